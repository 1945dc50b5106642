"""TensorFlow's "V2" checkpoints, without TensorFlow: a table of names (NAME.index) beside raw arrays (NAME.data-...).

The index is a sorted table of LevelDB: blocks of entries whose keys leave out what they share with the key before, each
block with its checksum, and a footer that says where the block of blocks lies. Its values are small protobuf messages
(tensor_bundle.proto). Every size that a file claims is held against the size of the file before anything is read.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from musicvae.model.crc32c import crc32c, masked

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER, TRAILER = 48, 5  # bytes: two handles and the magic; a block's kind of compression and checksum
MAX_INDEX = 64 * 2**20  # bytes; those of the original's models are under 10 kB
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 10: "|b1", 19: "<f2"}  # types.proto


class Entry(NamedTuple):
    """Where the array of one variable lies."""

    dtype: int  # a number of types.proto
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    crc: int  # masked


class Bundle:
    """The variables of a checkpoint by name; ValueError where its files are damaged, or are none."""

    def __init__(self, prefix: str | Path):
        """prefix: what the names of the files begin with, such as FOLDER/model.ckpt."""
        self.prefix = Path(prefix)
        self.index = self.prefix.with_name(self.prefix.name + ".index")
        with _about(self.index):
            table = dict(read_table(self.index))
            self.shards = _read_header(table.pop("", None))
            self.entries = {name: _read_entry(name, value, self.shards) for name, value in table.items()}
            for name, entry in self.entries.items():
                _check_size(name, entry)
        self._check_shards()
        self.shapes = {name: entry.shape for name, entry in self.entries.items()}

    @property
    def step(self) -> int | None:
        """How many updates the training had made; None where the checkpoint does not say."""
        entry = self.entries.get("global_step")
        if entry is None or DTYPES.get(entry.dtype) not in ("<i8", "<i4") or math.prod(entry.shape) != 1:
            return None
        return int(self._read("global_step").reshape(-1)[0])

    def read(self, name: str) -> np.ndarray:
        """The array of a variable in float32, its checksum verified. ValueError where it is of another type."""
        dtype = DTYPES.get(self.entries[name].dtype, f"number {self.entries[name].dtype}")
        if dtype != "<f4":
            raise ValueError(f"{self.index}: {name} is of type {dtype.lstrip('<|')}; only float32 (f4) is supported")
        return self._read(name)

    def shard(self, number: int) -> Path:
        """A data file, counted from 0."""
        return self.prefix.with_name(f"{self.prefix.name}.data-{number:05d}-of-{self.shards:05d}")

    def _read(self, name: str) -> np.ndarray:
        entry, dtype = self.entries[name], np.dtype(DTYPES[self.entries[name].dtype])
        path = self.shard(entry.shard)
        array = np.fromfile(path, dtype, math.prod(entry.shape), offset=entry.offset)  # a map would die if it shrank
        if masked(crc32c(array)) != entry.crc:
            raise ValueError(f"{path}: {name} does not have its checksum, so the file was damaged. Copy it again")
        return array.reshape(entry.shape)

    def _check_shards(self) -> None:
        """ValueError where a data file is missing, or ends before the arrays that lie in it."""
        ends: dict[int, int] = {}
        for entry in self.entries.values():
            ends[entry.shard] = max(ends.get(entry.shard, 0), entry.offset + entry.size)
        for number, end in sorted(ends.items()):
            path = self.shard(number)
            if not path.is_file():
                raise ValueError(f"{path}: there is no such file; {self.index.name} needs it beside itself")
            if path.stat().st_size < end:
                found = f"has {path.stat().st_size:,} bytes; {self.index.name} asks for {end:,}"
                raise ValueError(f"{path}: {found}, so one of them is damaged or cut short. Copy both again")


# --- the sorted table (LevelDB's table_format.md) ------------------------------------------------------------------


def read_table(path: Path) -> list[tuple[str, bytes]]:
    """The keys and values of an index file, in order. Raises ValueError for anything that is no sound table."""
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        raise ValueError("there is no such file")
    if not FOOTER <= size <= MAX_INDEX:
        raise ValueError(
            f"no index of a TensorFlow checkpoint ({size:,} bytes; {FOOTER} to {MAX_INDEX:,} are possible)"
        )
    data = path.read_bytes()
    if data[-8:] != MAGIC:
        raise ValueError("no index of a TensorFlow checkpoint (it does not end in the mark of a table), or cut short")
    _, at = _read_handle(data, size - FOOTER)  # of the block of statistics, which is empty
    blocks, _ = _read_handle(data, at)
    rows: list[tuple[bytes, bytes]] = []
    for _, value in _read_block(data, blocks):
        handle, end = _read_handle(value, 0)
        if end != len(value):
            raise ValueError("damaged: a reference to a block goes on after its end")
        rows += _read_block(data, handle)
    if any(a >= b for (a, _), (b, _) in pairwise(rows)):
        raise ValueError("damaged: its names are not in order")
    return [(_text(key), value) for key, value in rows]


class Handle(NamedTuple):
    offset: int
    size: int


def _read_handle(data: bytes, at: int) -> tuple[Handle, int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return Handle(offset, size), at


def _read_block(data: bytes, handle: Handle) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block, which must lie before the footer and have its checksum."""
    end = handle.offset + handle.size
    if end + TRAILER > len(data) - FOOTER or handle.size < 4:
        raise ValueError(f"damaged: a block of {handle.size:,} bytes at {handle.offset:,} does not fit the file")
    stored = int.from_bytes(data[end + 1 : end + TRAILER], "little")
    if masked(crc32c(data[handle.offset : end + 1])) != stored:
        raise ValueError(f"damaged: the block at byte {handle.offset:,} does not have its checksum. Copy it again")
    if data[end]:
        raise ValueError(f"its blocks are compressed (kind {data[end]}), which no checkpoint of the original is")
    restarts = int.from_bytes(data[end - 4 : end], "little")
    entries = data[handle.offset : max(handle.offset, end - 4 - 4 * restarts)]
    key, at = b"", 0
    while at < len(entries):
        shared, at = read_varint(entries, at)
        rest, at = read_varint(entries, at)
        size, at = read_varint(entries, at)
        if shared > len(key) or at + rest + size > len(entries):
            raise ValueError("damaged: an entry goes on after the end of its block")
        key = key[:shared] + entries[at : at + rest]
        yield key, entries[at + rest : at + rest + size]
        at += rest + size


# --- protobuf, as much of it as tensor_bundle.proto needs ----------------------------------------------------------


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the least first, that begins at `at` -> the number, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
    raise ValueError("damaged: a number has no end")


def read_message(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message in order: number and value, a number or bytes."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind, value = tag & 7, b""
        if kind == 0:
            number, at = read_varint(data, at)
            yield tag >> 3, number
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"damaged: a field of kind {kind}, which there is not")
        size, at = read_varint(data, at) if kind == 2 else (8 if kind == 1 else 4, at)
        if size > len(data) - at:
            raise ValueError("damaged: a field goes on after the end of its message")
        value, at = data[at : at + size], at + size
        yield tag >> 3, value if kind == 2 else int.from_bytes(value, "little")


def _read_header(value: bytes | None) -> int:
    """BundleHeaderProto -> the number of data files."""
    if value is None:
        raise ValueError("damaged: it has no header")
    fields = dict(read_message(value))
    shards = fields.get(1, 0)
    if fields.get(2, 0) != 0:
        raise ValueError("its arrays are big-endian, which no checkpoint of the original is")
    if not isinstance(shards, int) or not 1 <= shards <= 99999:
        raise ValueError("damaged: it claims a number of data files that cannot be")
    return shards


def _read_entry(name: str, value: bytes, shards: int) -> Entry:
    """BundleEntryProto -> where the array lies."""
    fields = dict(read_message(value))
    if 7 in fields:
        raise ValueError(f"{name} is stored in slices, which no checkpoint of the original is")
    numbers = [fields.get(field, 0) for field in (1, 3, 4, 5, 6)]
    shape = fields.get(2, b"")
    if not isinstance(shape, bytes) or not all(isinstance(n, int) and 0 <= n < 2**63 for n in numbers):
        raise ValueError(f"damaged: the entry of {name} is no entry")
    dtype, shard, offset, size, crc = (int(n) for n in numbers)
    if shard >= shards:
        raise ValueError(f"damaged: {name} lies in data file {shard + 1} of {shards}")
    return Entry(dtype, tuple(_read_shape(name, shape)), shard, offset, size, crc)


def _check_size(name: str, entry: Entry) -> None:
    """ValueError where the bytes of an array are not those of its type and shape."""
    if entry.dtype in DTYPES:
        wanted = math.prod(entry.shape) * np.dtype(DTYPES[entry.dtype]).itemsize
        if entry.size != wanted:
            raise ValueError(f"damaged: {name} of shape {entry.shape} takes {wanted:,} bytes, not {entry.size:,}")


def _read_shape(name: str, value: bytes) -> Iterator[int]:
    for field, dimension in read_message(value):
        if field == 2 and isinstance(dimension, bytes):
            size = dict(read_message(dimension)).get(1, 0)
            if not isinstance(size, int) or size >= 2**40:
                raise ValueError(f"damaged: {name} has a dimension that is no size")
            yield size


def _text(key: bytes) -> str:
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("damaged: a name is no text") from None


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """Puts the file's name before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
