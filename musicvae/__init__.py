"""MusicVAE: music you can hold as a vector.

import musicvae
composer = musicvae.load("melody-2")
song = composer.sample(n=1, seed=1)[0]
song.save("song.mid")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musicvae.composer import Composer, load
    from musicvae.music.midi import Song

__version__ = "0.1.0"
__all__ = ["Composer", "Song", "load"]

_HOMES = {"Composer": "musicvae.composer", "load": "musicvae.composer", "Song": "musicvae.music.midi"}


def __getattr__(name: str) -> Any:
    """Loads torch only when somebody asks for a model, so that the command line answers at once."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'musicvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
