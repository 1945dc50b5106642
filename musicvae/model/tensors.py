"""Files of named tensors (safetensors) <-> arrays, without torch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, deserialize

from musicvae.files import replacing

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"} | {
    f"{sign}{8 * size}": f"<{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)
}


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; bf16, which NumPy lacks, becomes fp32.

    Raises FileNotFoundError, and ValueError for what is no such file or holds other kinds of numbers.
    """
    found = {}
    try:
        for name, tensor in deserialize(Path(path).read_bytes()):
            kind = tensor["dtype"]
            if kind not in DTYPES:
                raise ValueError(
                    f"its tensor {name} holds numbers of another kind, {kind}; known are {', '.join(DTYPES)}"
                )
            values = np.frombuffer(tensor["data"], DTYPES[kind])
            if kind == "BF16":  # the upper half of fp32
                values = (values.astype("<u4") << 16).view("<f4")
            found[name] = values.reshape(tensor["shape"])
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    return found


def write_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays under their names; the file is the old one or the new one at every moment."""
    content = packed(tensors)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)


def packed(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The content of a file that holds these arrays."""
    return safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
