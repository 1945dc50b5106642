"""Commands as they stand in messages, to be copied into a shell."""

import shlex


def command(*words: object) -> str:
    """`musicvae` and its words, each in quotes where a shell would else read it otherwise."""
    return shlex.join(["musicvae", *map(str, words)])
