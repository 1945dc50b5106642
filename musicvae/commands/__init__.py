"""The functions behind the command line, one a command; what is heavy they import when they are called."""
