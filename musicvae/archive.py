"""Archives from strangers: unpacked member by member, each name and size looked at before a byte is written."""

import gzip
import math
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_MEMBERS = 10_000
MAX_RATIO, ALWAYS_ALLOWED = 100, 64 * 2**20  # bytes out of a byte in; weights do not shrink, zeros do by 1000
MAX_HEADER = 2**20  # bytes that a header of a tar may have
CHUNK = 2**20
GZIP = b"\x1f\x8b"
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression that zipfile has not
    struct.error,
    UnicodeDecodeError,
)


class Member(NamedTuple):
    """A file of an archive, and how it is opened."""

    name: str
    size: int  # claimed
    content: IO[bytes]


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS) and path.is_file()


@contextmanager
def unpacked(path: Path, beside: Path) -> Iterator[Path]:
    """The contents of an archive in a folder of their own, which is made in `beside` and gone afterwards.

    Raises ValueError, and leaves nothing, for a name that leads elsewhere, a link, a device, more bytes than an archive
    of this size can honestly hold, more than the disk has, and for damage.
    """
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=beside) as folder:
        unpack(path, Path(folder))
        yield Path(folder)


def unpack(path: Path, folder: Path) -> None:
    """Writes the files of an archive into an empty folder; see `unpacked`."""
    limit = max(ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size)
    free = shutil.disk_usage(folder).free
    total, seen = 0, set[PurePosixPath]()
    try:
        for member in _members(path, limit):
            name = checked_name(path, member.name)
            if name in seen or not seen.isdisjoint(name.parents):
                raise ValueError(f"{path}: {member.name!r} stands there twice")
            seen.add(name)
            total += member.size
            if total > limit:
                raise _too_much(path, total)
            if total > free:
                raise ValueError(f"{path}: holds {total:,} bytes or more; {folder.parent} has room for {free:,}")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _copy(path, member, folder / name)
            if len(seen) > MAX_MEMBERS:
                raise ValueError(f"{path}: holds more than {MAX_MEMBERS:,} files; a checkpoint has a handful")
    except DAMAGE as error:
        raise ValueError(f"{path}: damaged archive ({error}). Copy it again") from None


def checked_name(path: Path, name: str) -> PurePosixPath:
    """The name of a member as a path below a folder. Raises ValueError for one that could lead out of it."""
    result = PurePosixPath(name)
    strange = any(c in name for c in "\\:\0") or any(len(part.encode()) > 255 for part in result.parts)
    if strange or result.is_absolute() or ".." in result.parts or not result.parts:
        raise ValueError(f"{path}: refused, because its member {name!r} would be written outside its folder")
    return result


def _members(path: Path, limit: int) -> Iterator[Member]:
    """The files of an archive, one after another; only what is read here can raise OSError here."""
    try:
        yield from _zip_members(path) if path.name.lower().endswith(".zip") else _tar_members(path, limit)
    except OSError as error:  # a seek to before the beginning, say
        raise ValueError(f"{path}: damaged archive ({error}). Copy it again") from None


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                checked_name(path, info.filename)
                continue
            if kind not in (0, stat.S_IFREG):
                raise _no_file(path, info.filename)
            if info.flag_bits & 1:
                raise ValueError(f"{path}: {info.filename} is encrypted. Unpack it yourself, and import the folder")
            with archive.open(info) as content:
                yield Member(info.filename, info.file_size, content)


def _tar_members(path: Path, limit: int) -> Iterator[Member]:
    with open_tar(path, limit) as archive:
        for info in archive:
            if info.isdir():
                checked_name(path, info.name)
                continue
            content = archive.extractfile(info) if info.isreg() and not info.issparse() else None
            if content is None:
                raise _no_file(path, info.name)
            yield Member(info.name, info.size, content)


@contextmanager
def open_tar(path: Path, limit: float = math.inf) -> Iterator[tarfile.TarFile]:
    """A tar, packed by gzip or not: no header can fill the memory, and nothing is read beyond `limit` bytes."""
    with open(path, "rb") as plain:
        packed = plain.read(2) == GZIP
    with (
        gzip.open(path) if packed else open(path, "rb") as file,
        tarfile.open(fileobj=_Measured(file, path, limit), mode="r:") as archive,  # type: ignore[call-overload]
    ):
        yield archive


def read_content(file: IO[bytes], limit: int) -> bytes:
    """The first `limit` bytes of a member at most, in portions that no limit on headers stands in the way of."""
    parts: list[bytes] = []
    while limit and (part := file.read(min(CHUNK, limit))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _too_much(path: Path, size: int) -> ValueError:
    return ValueError(f"{path}: refused, because it claims to hold {size:,} bytes, more than its size allows")


def _no_file(path: Path, name: str) -> ValueError:
    return ValueError(f"{path}: refused, because its member {name!r} is a link, a device or another thing than a file")


def _copy(path: Path, member: Member, target: Path) -> None:
    written = 0
    with open(target, "xb") as file:
        while written <= member.size and (chunk := _read(path, member, min(CHUNK, member.size - written + 1))):
            file.write(chunk)
            written += len(chunk)
    if written != member.size:
        raise ValueError(f"{path}: damaged archive ({member.name} does not have the {member.size:,} bytes it claims)")


def _read(path: Path, member: Member, size: int) -> bytes:
    try:
        return member.content.read(size)
    except (*DAMAGE, OSError) as error:
        raise ValueError(f"{path}: damaged archive ({member.name}: {error}). Copy it again") from None


class _Measured:
    """A file to read from, but not on after `limit` bytes, and no header that would fill the memory."""

    def __init__(self, file: Any, path: Path, limit: float):
        self.file, self.path, self.limit = file, path, limit
        self.tell = file.tell

    def seek(self, at: int) -> int:
        if at > self.limit + tarfile.RECORDSIZE:
            raise _too_much(self.path, at)
        return int(self.file.seek(at))

    def read(self, size: int) -> bytes:
        if size > max(MAX_HEADER, CHUNK + 1):
            raise _too_much(self.path, size)
        return bytes(self.file.read(size))
