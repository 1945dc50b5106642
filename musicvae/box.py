"""Names -> models: run folders, the models in the box, and those on the hub."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musicvae.model.config import RunConfig

PRETRAINED = Path(__file__).parent / "pretrained"


def find_model(name: str | Path) -> Path:
    """The folder of a model: a run folder if there is one of that path, else one in the box, else one from the hub."""
    folder = find_here(name)
    if folder is None:
        from musicvae.hub import fetch

        folder = fetch(str(name))
    return folder


def find_here(name: str | Path) -> Path | None:
    """The folder of a model on this machine, None for a name that only the hub may know. ValueError for others.

    A path whose parent is a folder here is a slip of the pen, and nobody else is asked for it.
    """
    if Path(name).is_dir():
        return Path(name)
    if str(name) in _names():
        return PRETRAINED / str(name)
    if isinstance(name, str) and "/" in name and not Path(name).parent.is_dir():
        from musicvae.hub import is_hub_name

        if is_hub_name(name):
            return None
    known = ", ".join(_names()) or "none"
    raise ValueError(f"no model {str(name)!r}: it is no run folder, and in the box are: {known}")


def models() -> "dict[str, RunConfig]":
    """The models in the box, by name."""
    from musicvae.model.config import load_config

    return {name: load_config(PRETRAINED / name) for name in _names()}


def _names() -> list[str]:
    return sorted(path.parent.name for path in PRETRAINED.glob("*/config.json"))
