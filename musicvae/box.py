"""Names -> models: run folders, the models in the box, and those on the hub."""

from pathlib import Path

from musicvae.hub import fetch, is_hub_name
from musicvae.model.config import RunConfig, load_config

PRETRAINED = Path(__file__).parent / "pretrained"


def find_model(name: str | Path) -> Path:
    """The folder of a model: a run folder if there is one of that path, else one in the box, else one from the hub.

    A path whose parent is a folder here is a slip of the pen, and nobody else is asked for it.
    """
    if Path(name).is_dir():
        return Path(name)
    if str(name) in models():
        return PRETRAINED / str(name)
    if isinstance(name, str) and is_hub_name(name) and not Path(name).parent.is_dir():
        return fetch(name)
    known = ", ".join(models()) or "none"
    raise ValueError(f"no model {str(name)!r}: it is no run folder, and in the box are: {known}")


def models() -> dict[str, RunConfig]:
    """The models in the box, by name."""
    folders = sorted(p for p in PRETRAINED.glob("*") if (p / "config.json").is_file()) if PRETRAINED.is_dir() else []
    return {folder.name: load_config(folder) for folder in folders}
