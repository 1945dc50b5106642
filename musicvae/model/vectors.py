"""Named vectors of the latent space <-> attributes.safetensors, beside the weights of a model or anywhere."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from musicvae.files import replacing

ATTRIBUTES = "attributes.safetensors"


def save_vectors(path: str | Path, vectors: Mapping[str, np.ndarray]) -> None:
    """Writes vectors (Z,) under their names, in float32; the file is the old one or the new one at every moment."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = safetensors.numpy.save({k: np.ascontiguousarray(v, np.float32) for k, v in vectors.items()})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def load_vectors(path: str | Path, latent_size: int | None = None) -> dict[str, np.ndarray]:
    """The vectors (Z,) in a file, by name. Raises ValueError for what is no such file, or of another latent size."""
    import safetensors.torch  # slow to import, and knows bf16, unlike NumPy

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Write one with: musicvae attribute learn")
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Write it again with: musicvae attribute learn") from None
    vectors = {name: tensor.float().numpy() for name, tensor in tensors.items() if not tensor.is_complex()}
    if len(vectors) < len(tensors):
        raise ValueError(f"{path}: holds complex numbers. Write it again with: musicvae attribute learn")
    for name, vector in vectors.items():
        fits = vector.ndim == 1 and len(vector) == (latent_size or len(vector))
        if not fits or not np.isfinite(vector).all():
            found = "numbers that are not finite" if fits else f"shape {vector.shape}"
            wanted = f"this model needs {latent_size} numbers" if latent_size else "a vector is a row of numbers"
            raise ValueError(f"{path}: {name!r} has {found}; {wanted}, so learn it again")
    return dict(sorted(vectors.items()))
