"""The folders that magenta.js loads: config.json, weights_manifest.json and shards, read and written.

The manifest is a list of groups; the tensors of a group lie one after another over its shards, which are files cut
anywhere. A tensor may be quantised: q * scale + min, in whole numbers q of 8 or 16 bits. There are no checksums.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from musicvae.files import replacing

CONFIG, MANIFEST, SHARD = "config.json", "weights_manifest.json", "group1-shard1of1"
MAX_JSON = 16 * 2**20  # bytes; those of real models are under 10 kB
DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint16": "<u2", "uint8": "|u1", "bool": "|b1"}


class Quantization(msgspec.Struct):
    dtype: str
    scale: float = 1.0
    min: float = 0.0


class Weight(msgspec.Struct):
    name: str
    shape: list[int]
    dtype: str
    quantization: Quantization | None = None


class Group(msgspec.Struct):
    paths: list[str]
    weights: list[Weight]


class Place(NamedTuple):
    """Where a tensor lies in its group."""

    weight: Weight
    stored: np.dtype
    offset: int
    shards: list[Path]


class Folder:
    """The variables of a magenta.js folder by name, and its config (None if it has none); ValueError if damaged."""

    step = None  # these folders do not say how long a model was trained

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.config = self._read_config() if (self.folder / CONFIG).exists() else None
        groups = read_json(self.folder / MANIFEST, list[Group])
        self.places: dict[str, Place] = {}
        for group in groups:
            self._add(group)
        self.shapes = {name: tuple(place.weight.shape) for name, place in self.places.items()}

    def read(self, name: str) -> np.ndarray:
        """The array of a variable in float32. ValueError where it is of another type."""
        weight, stored, offset, shards = self.places[name]
        if weight.dtype != "float32":
            raise ValueError(f"{self.folder / MANIFEST}: {name} is of type {weight.dtype}; only float32 is supported")
        size = math.prod(weight.shape) * stored.itemsize
        array = np.empty(math.prod(weight.shape), stored)
        _fill(array.view(np.uint8), offset, shards)
        assert array.nbytes == size
        if weight.quantization is not None and stored.kind == "u":
            scale, low = weight.quantization.scale, weight.quantization.min
            values = np.arange(2 ** (8 * stored.itemsize)) * scale + low  # in double, as JavaScript does
            array = values.astype(np.float32)[array]
        return array.astype(np.float32, copy=False).reshape(weight.shape)

    def _read_config(self) -> dict[str, Any]:
        return read_json(self.folder / CONFIG, dict[str, Any])

    def _add(self, group: Group) -> None:
        """The tensors of a group, their sizes held against those of its shards."""
        path = self.folder / MANIFEST
        shards = [self.folder / _plain(name, path) for name in group.paths]
        offset = 0
        for weight in group.weights:
            stored = _stored(weight, path)
            if weight.name in self.places:
                raise ValueError(f"{path}: {weight.name} stands there twice")
            if not all(0 <= n < 2**40 for n in weight.shape):
                raise ValueError(f"{path}: {weight.name} has shape {weight.shape}, which is none")
            self.places[weight.name] = Place(weight, stored, offset, shards)
            offset += math.prod(weight.shape) * stored.itemsize
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise ValueError(f"{self.folder} lacks {', '.join(missing[:5])}, which {MANIFEST} asks for")
        found = sum(shard.stat().st_size for shard in shards)
        if found != offset:
            names = ", ".join(group.paths[:5])
            raise ValueError(
                f"{self.folder}: {names} hold {found:,} bytes; {MANIFEST} asks for {offset:,}. Copy the folder again"
            )


def write_folder(folder: Path, config: dict[str, Any], tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes float32 tensors by name, in the order given, in one shard, each file under a temporary name first.

    config.json comes last: without it no page loads the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = []
    with replacing(folder / SHARD) as temporary, open(temporary, "wb") as file:
        for name, tensor in tensors:
            np.ascontiguousarray(tensor, "<f4").tofile(file)
            weights.append({"name": name, "shape": list(tensor.shape), "dtype": "float32"})
    for name, value in ((MANIFEST, [{"paths": [SHARD], "weights": weights}]), (CONFIG, config)):
        with replacing(folder / name) as temporary:
            temporary.write_text(json.dumps(value), encoding="utf-8")


def read_json(path: Path, kind: Any) -> Any:
    """A JSON file as a value of a type. Raises ValueError for anything else, and for one of senseless size."""
    size = path.stat().st_size if path.is_file() else None
    if size is None or size > MAX_JSON:
        raise ValueError(f"{path}: {'there is no such file' if size is None else f'{size:,} bytes are no {path.name}'}")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no {path.name} of a magenta.js model: {error}") from None


def _plain(name: str, path: Path) -> str:
    """The name of a file in the folder itself. Raises ValueError for one that leads elsewhere."""
    if name in ("", ".", "..") or any(c in name for c in "/\\:\0"):
        raise ValueError(f"{path}: the shard {name!r} is no name of a file in this folder")
    return name


def _stored(weight: Weight, path: Path) -> np.dtype:
    """How the numbers of a tensor lie on disk. Raises ValueError for a type or a quantisation that is none."""
    quantised = weight.quantization
    name = weight.dtype if quantised is None else quantised.dtype
    if name not in DTYPES or (quantised is not None and name not in ("uint8", "uint16", "float16")):
        raise ValueError(f"{path}: {weight.name} is stored as {name}; known are {', '.join(DTYPES)}")
    if quantised is not None and not (math.isfinite(quantised.scale) and math.isfinite(quantised.min)):
        raise ValueError(f"{path}: {weight.name} has no finite scale and min")
    return np.dtype(DTYPES[name])


def _fill(array: np.ndarray, offset: int, shards: list[Path]) -> None:
    """The bytes from `offset` on, over one shard after another, into array."""
    at = 0
    for shard in shards:
        size = shard.stat().st_size
        if offset < size and at < len(array):
            with open(shard, "rb") as file:
                file.seek(offset)
                at += file.readinto(array[at : at + size - offset].data)
        offset = max(0, offset - size)
    if at < len(array):
        raise ValueError(f"{shards[-1] if shards else 'a group without shards'} was cut short while it was read")
