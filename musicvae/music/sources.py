"""Folders and archives -> MIDI bytes, one source at a time, read in place."""

import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from musicvae.archive import open_tar, read_content
from musicvae.music.guard import read_file
from musicvae.music.reasons import MAX_BYTES, MidiError
from musicvae.music.workers import NOTHING, Beat, Skip, no_beat

MIDI_ENDINGS = (".mid", ".midi", ".kar", ".rmi", ".smf")
ARCHIVE_ENDINGS = (".zip", ".tar.gz", ".tgz", ".tar")
FILES_PER_CHUNK = 64
MEMBERS_PER_CHUNK = 4096  # of an archive: of a tar, which can only be read from its beginning, in bytes too
BYTES_PER_CHUNK = 64 << 20
CHANGED = "no longer in the archive"


class Source(NamedTuple):
    """One MIDI file: where it lies, and the name it goes by in data sets and reports."""

    name: str  # path from the common folder, with / between
    path: str
    member: str = ""  # inside the archive at `path`
    size: int = 0
    changed: int = 0  # nanoseconds, of the file or its archive
    train_only: bool = False  # never in validation or test
    problem: str = ""  # why it cannot be read; an archive that cannot be listed is one source that says so
    reason: str = "unreadable"  # in short, one of `guard.REASONS`; counts where there is a problem
    place: int = 0  # of the member among all entries of the archive, from 0


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
    found: dict[str, Source] = {}
    for root in roots:
        for path, problem in _walk(root):
            marked = any(path.is_relative_to(folder) for folder in apart)
            found.update((source.name, source._replace(train_only=marked)) for source in _sources(path, base, problem))
    if not found:
        where = ", ".join(map(str, folders))
        raise ValueError(
            f"{where}: no MIDI file found; looked for {' '.join(MIDI_ENDINGS)}, also in {' '.join(ARCHIVE_ENDINGS)}"
        )
    return [found[name] for name in sorted(found)]


def chunks(sources: list[Source]) -> list[list[int]]:
    """Indices of sources in the portions that one worker takes at a time."""
    result: list[list[int]] = []
    size = 0
    for i, source in enumerate(sources):
        last = sources[result[-1][0]] if result else None
        archive = _is_archive(source.path)
        same = last is not None and (source.path == last.path or not (archive or _is_archive(last.path)))
        size += min(source.size, MAX_BYTES)
        full = result and len(result[-1]) >= (MEMBERS_PER_CHUNK if archive else FILES_PER_CHUNK)
        if not same or full or (archive and size > BYTES_PER_CHUNK):
            result.append([])
            size = min(source.size, MAX_BYTES)
        result[-1].append(i)
    return result


def read_sources(
    sources: list[Source], skip: Skip = NOTHING, beat: Beat = no_beat
) -> Iterator[bytes | MidiError | None]:
    """The bytes of each source in turn, or why it cannot be read, or None for those in `skip`.

    `beat(i)` is called before source i is touched. Sources of one archive should stand together.
    """
    at = 0
    while at < len(sources):
        source, until = sources[at], at + 1
        if not source.problem and not _is_archive(source.path):
            beat(at)
            yield None if at in skip else _read_plain(source.path)
        else:
            while until < len(sources) and sources[until].path == source.path:
                until += 1
            members = {i: sources[i] for i in range(at, until) if not sources[i].problem}
            read = (_read_tar if _is_tar(source.path) else _read_zip)(source.path, members, skip, beat)
            for i in range(at, until):
                yield next(read) if i in members else _problem(sources[i])
        at = until


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    """Files that may hold MIDI, and what is wrong with those that cannot be read."""
    if not root.is_dir():
        yield root, ""
        return
    locked: list[OSError] = []
    for folder, inner, files in os.walk(root, onerror=locked.append):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(MIDI_ENDINGS + ARCHIVE_ENDINGS) and not name.startswith("."):
                yield Path(folder, name), ""
    for error in locked:
        yield Path(error.filename), f"cannot be listed: {error.strerror}"


def _sources(path: Path, base: Path, problem: str) -> Iterator[Source]:
    name = _printable(path.relative_to(base).as_posix())
    try:
        status = path.stat()
        if not problem and not stat.S_ISREG(status.st_mode):
            problem = "not a file"  # a pipe, say: opening it would wait for ever
    except OSError as error:  # a link that leads nowhere, or to itself
        yield Source(name, str(path), problem=error.strerror or str(error))
        return
    if problem or not _is_archive(str(path)):
        yield Source(name, str(path), "", status.st_size, status.st_mtime_ns, problem=problem)
        return
    try:
        yield from _members_of(Source(name, str(path), changed=status.st_mtime_ns))
    except Exception as error:  # damage has many names: zlib.error, EOFError, BadZipFile, UnicodeDecodeError...
        yield Source(name, str(path), "", status.st_size, status.st_mtime_ns, problem=f"damaged archive: {error}")


def _printable(name: str) -> str:
    """A name that can be written as UTF-8: bytes that are not, as files of other times have them, become \\x.."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Entry(NamedTuple):
    name: str
    size: int
    kind: str  # "file", "folder", or what else it is, in words


def _members_of(archive: Source) -> list[Source]:
    """A source for every entry that is MIDI by its name, and one that says why for each that cannot be read."""
    entries = _tar_entries(archive.path) if _is_tar(archive.path) else _zip_entries(archive.path)
    wanted = [
        archive._replace(name=f"{archive.name}/{_printable(e.name)}", member=e.name, size=e.size, place=place)
        for place, e in enumerate(entries)
        if e.kind != "folder" and e.name.lower().endswith(MIDI_ENDINGS + ARCHIVE_ENDINGS)
    ]
    last = {source.name: source.place for source in wanted}
    return [_checked(source, entries[source.place].kind, last[source.name]) for source in wanted]


def _checked(source: Source, kind: str, last: int) -> Source:
    """A member as it is read, or with the reason why it is not; `last` is the place of the last of its name."""
    if source.place != last:
        name = f"{source.name} (entry {source.place + 1})"  # the last one has the name for itself
        return source._replace(name=name, reason="same-name", problem=f"entry {last + 1} of {source.path} is read")
    if kind != "file":
        return source._replace(reason="link", problem=kind)
    if _is_archive(source.member):
        return source._replace(reason="nested", problem=f"in {source.path}")
    return source


def _tar_entries(path: str) -> list[_Entry]:
    with open_tar(Path(path)) as tar:
        return [_Entry(m.name, m.size, _tar_kind(m)) for m in tar]


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.islnk() or info.issym():
        return f"a {'hard' if info.islnk() else 'symbolic'} link to {_printable(info.linkname)}"
    return "file" if info.isfile() else "folder" if info.isdir() else "a device or a pipe"


def _zip_entries(path: str) -> list[_Entry]:
    with zipfile.ZipFile(path) as archive:
        return [_Entry(m.filename, m.file_size, "folder" if m.is_dir() else "file") for m in archive.infolist()]


def _problem(source: Source) -> MidiError:
    return MidiError(source.reason, source.problem)


def _read_plain(path: str) -> bytes | MidiError:
    try:
        return read_file(path)
    except MidiError as error:
        return error


def _read_zip(path: str, members: dict[int, Source], skip: Skip, beat: Beat) -> Iterator[bytes | MidiError | None]:
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # replaced since it was listed
        yield from (MidiError("unreadable", f"damaged archive: {error}") for _ in members)
        return
    with archive:
        entries = dict(enumerate(archive.infolist()))
        for i, source in members.items():
            beat(i)
            if i in skip:
                yield None
                continue
            try:
                if source.place not in entries or entries[source.place].filename != source.member:
                    yield MidiError("unreadable", CHANGED)
                    continue
                with archive.open(entries[source.place]) as file:
                    yield file.read(MAX_BYTES + 1)
            except Exception as error:  # encrypted, damaged, an unknown compression
                yield MidiError("unreadable", f"in the archive: {error}")


def _read_tar(path: str, members: dict[int, Source], skip: Skip, beat: Beat) -> Iterator[bytes | MidiError | None]:
    """All members in one pass over the tar, then one after another."""
    number = {source.place: i for i, source in members.items() if i not in skip}
    found: dict[int, bytes] = {}
    problem, last = CHANGED, max(number, default=-1)
    try:
        with open_tar(Path(path)) as tar:
            for place, info in enumerate(tar):
                if place > last:
                    break
                i = number.get(place, next(iter(members)))
                beat(i)  # a long archive is no hanging one
                if place in number and info.isfile() and info.name == members[i].member:
                    file = tar.extractfile(info)
                    found[i] = read_content(file, MAX_BYTES + 1) if file else b""
    except Exception as error:
        problem = f"damaged archive: {error}"
    for i in members:
        beat(i)
        yield None if i in skip else found.pop(i, MidiError("unreadable", problem))


def _is_tar(path: str) -> bool:
    return path.lower().endswith((".tar.gz", ".tgz", ".tar"))


def _is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVE_ENDINGS)
