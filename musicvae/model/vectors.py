"""Named vectors of the latent space <-> attributes.safetensors, beside the weights of a model or anywhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from musicvae.model.tensors import read_tensors, write_tensors

ATTRIBUTES = "attributes.safetensors"
FORMAT = 1  # of the report beside them


def save_vectors(path: str | Path, vectors: Mapping[str, np.ndarray]) -> None:
    """Writes vectors (Z,) under their names, in float32; the file is the old one or the new one at every moment."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {name: vector.astype(np.float32) for name, vector in vectors.items()})


def load_vectors(path: str | Path, latent_size: int | None = None) -> dict[str, np.ndarray]:
    """The vectors (Z,) in a file, by name. Raises ValueError for what is no such file, or of another latent size."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Write one with: musicvae attribute learn")
    try:
        vectors = {name: vector.astype(np.float32) for name, vector in read_tensors(path).items()}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Write it again with: musicvae attribute learn") from None
    for name, vector in vectors.items():
        fits = vector.ndim == 1 and len(vector) == (latent_size or len(vector))
        if not fits or not np.isfinite(vector).all():
            found = "numbers that are not finite" if fits else f"shape {vector.shape}"
            wanted = f"this model needs {latent_size} numbers" if latent_size else "a vector is a row of numbers"
            raise ValueError(f"{path}: {name!r} has {found}; {wanted}, so learn it again")
    return dict(sorted(vectors.items()))


def read_report(path: Path) -> dict[str, Any]:
    """The JSON beside a file of vectors; empty if there is none. Raises ValueError if it is damaged."""
    beside = report_path(path)
    if not beside.exists():
        return {}
    try:
        report = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{beside}: damaged ({error}). Delete it, and learn the attributes anew") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ValueError(f"{beside}: not a report of format {FORMAT}. Delete it, and learn the attributes anew")
    return report


def report_path(path: Path) -> Path:
    return path.with_suffix(".json")
