"""MusicVAE: music you can hold as a vector."""

__version__ = "0.1.0"
