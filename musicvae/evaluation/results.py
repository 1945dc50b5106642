"""What an experiment leaves behind: a picture, and beside it its figures as JSON."""

import json
import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from musicvae.files import replacing

PICTURES = (".png", ".svg", ".pdf")


def checked_picture(path: Path) -> Path:
    """The path itself. Raises ValueError if its name does not end as a picture's does."""
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"{path}: not the name of a picture; end it with {', '.join(PICTURES)}")
    return path


def save_results(path: Path, figure: Any, results: dict[str, Any]) -> Path:
    """Writes a matplotlib figure to `path`, and the results to the same name with .json, which it gives back."""
    beside = checked_picture(path).with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150)
    with replacing(beside) as temporary:
        temporary.write_text(json.dumps(plain(results), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return beside


def plain(value: Any) -> Any:
    """Dataclasses as dictionaries, figures with six digits, and null for what is not a number: ready for JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
