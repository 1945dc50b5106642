"""Folders and archives -> MIDI bytes, one source at a time, read in place."""

import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from musicvae.music.midi import MAX_BYTES, MidiError

MIDI_ENDINGS = (".mid", ".midi", ".kar", ".rmi", ".smf")
ARCHIVE_ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar")
FILES_PER_CHUNK = 64
MEMBERS_PER_CHUNK = 4096  # of a tar, which can only be read from its beginning


class Source(NamedTuple):
    """One MIDI file: where it lies, and the name it goes by in data sets and reports."""

    name: str  # path from the common folder, with / between
    path: str
    member: str = ""  # inside the archive at `path`
    size: int = 0
    changed: int = 0  # nanoseconds, of the file or its archive
    train_only: bool = False  # never in validation or test
    problem: str = ""  # an archive that cannot be listed is one source that says why


def list_sources(folders: list[Path], train_only: list[Path] | None = None) -> list[Source]:
    """Every MIDI file below the folders (or among the files given), inside archives too, sorted by name.

    Names are relative to the folder, or to what several folders have in common. What lies below `train_only` is marked
    so. Raises ValueError for a path that does not exist, or if nothing is found.
    """
    folders, apart = folders + (train_only or []), [folder.resolve() for folder in train_only or []]
    for folder in folders:
        if not folder.exists():
            raise ValueError(f"{folder}: no such file or folder")
    roots = [folder.resolve() for folder in folders]
    base = Path(os.path.commonpath([root if root.is_dir() else root.parent for root in roots]))
    found = {}
    for root in roots:
        for path in _walk(root):
            marked = any(path.is_relative_to(folder) for folder in apart)
            found.update((source.name, source._replace(train_only=marked)) for source in _sources(path, base))
    if not found:
        where = ", ".join(map(str, folders))
        raise ValueError(f"{where}: no MIDI file found; looked for {' '.join(MIDI_ENDINGS)}, also in {' '.join(ARCHIVE_ENDINGS)}")
    return [found[name] for name in sorted(found)]


def chunks(sources: list[Source]) -> list[list[int]]:
    """Indices of sources in the portions that one worker takes at a time."""
    result: list[list[int]] = []
    for i, source in enumerate(sources):
        last = sources[result[-1][0]] if result else None
        limit = MEMBERS_PER_CHUNK if _is_tar(source.path) else FILES_PER_CHUNK
        same = last is not None and (source.path == last.path or not (_is_archive(source.path) or _is_archive(last.path)))
        if not same or len(result[-1]) >= limit:
            result.append([])
        result[-1].append(i)
    return result


def read_sources(sources: list[Source]) -> Iterator[bytes | MidiError]:
    """The bytes of each source in turn, or why it cannot be read; sources of one tar should stand together."""
    at = 0
    while at < len(sources):
        path, until = sources[at].path, at + 1
        if sources[at].problem or not _is_archive(path):
            yield MidiError("unreadable", sources[at].problem) if sources[at].problem else _read_plain(path)
        else:
            while until < len(sources) and sources[until].path == path:
                until += 1
            yield from (_read_tar if _is_tar(path) else _read_zip)(path, [s.member for s in sources[at:until]])
        at = until


def _walk(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(MIDI_ENDINGS + ARCHIVE_ENDINGS) and not name.startswith("."):
                yield Path(folder, name)


def _sources(path: Path, base: Path) -> Iterator[Source]:
    name, status = path.relative_to(base).as_posix(), path.stat()
    if not _is_archive(str(path)):
        yield Source(name, str(path), "", status.st_size, status.st_mtime_ns)
        return
    try:
        for member, size in _members(path):
            if member.lower().endswith(MIDI_ENDINGS):
                yield Source(f"{name}/{member}", str(path), member, size, status.st_mtime_ns)
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        yield Source(name, str(path), "", status.st_size, status.st_mtime_ns, problem=f"damaged archive: {error}")


def _members(path: Path) -> list[tuple[str, int]]:
    if _is_tar(str(path)):
        with tarfile.open(path) as tar:
            return [(m.name, m.size) for m in tar if m.isfile()]
    with zipfile.ZipFile(path) as archive:
        return [(m.filename, m.file_size) for m in archive.infolist() if not m.is_dir()]


def _read_plain(path: str) -> bytes | MidiError:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        return MidiError("unreadable", error.strerror or str(error))


def _read_zip(path: str, members: list[str]) -> Iterator[bytes | MidiError]:
    with zipfile.ZipFile(path) as archive:
        for member in members:
            try:
                with archive.open(member) as file:
                    yield file.read(MAX_BYTES + 1)
            except Exception as error:  # encrypted, damaged, an unknown compression
                yield MidiError("unreadable", f"in the archive: {error}")


def _read_tar(path: str, members: list[str]) -> Iterator[bytes | MidiError]:
    """Members in any order, in one pass over the tar for those that stand in its order."""
    wanted, found = set(members), {}
    with tarfile.open(path) as tar:
        for info in tar:
            if info.name in wanted and info.isfile():
                file = tar.extractfile(info)
                found[info.name] = file.read(MAX_BYTES + 1) if file else b""
            if len(found) == len(wanted):
                break
    for member in members:
        yield found.get(member, MidiError("unreadable", "no longer in the archive"))


def _is_tar(path: str) -> bool:
    return path.lower().endswith((".tar.gz", ".tgz", ".tar"))


def _is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVE_ENDINGS)
