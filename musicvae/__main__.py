"""`python -m musicvae` is the command `musicvae`."""

from musicvae.cli import main

if __name__ == "__main__":
    main()
