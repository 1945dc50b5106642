"""Some files -> their windows, one portion of songs at a time, in record batches by bucket of content hash."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from musicvae.files import replacing
from musicvae.music.channels import Parsed
from musicvae.music.grouping import signatures
from musicvae.music.guard import parse
from musicvae.music.metre import STEPS_PER_BAR
from musicvae.music.midi import Song, to_songs
from musicvae.music.reasons import MAX_INSTRUMENTS, MidiError
from musicvae.music.report import WHY, FileResult
from musicvae.music.representation import Drums, Melody, NoPart, Representation, representation
from musicvae.music.roles import Roles, with_named_roles
from musicvae.music.sources import Source, read_sources
from musicvae.music.unique import as_bytes, hash_rows, same_rows
from musicvae.music.windows import TooManyWindows, Windows, find_windows
from musicvae.music.workers import NOTHING, Beat, Skip, no_beat

NOTES_AT_ONCE = 200_000  # in one pass: bounds the memory of a worker
TOGETHER = -1  # the item that a worker is at while it works on several songs at once


@dataclass(frozen=True)
class DatasetSettings:
    """What decides which windows a data set holds."""

    representation: str
    bars: int
    drum_map: str = "current"
    melody: tuple[str, ...] = ()  # names of the tracks that are the melody, in files that have such
    drums: tuple[str, ...] = ()

    def __post_init__(self):
        for role in ("melody", "drums"):  # lists, as JSON has them
            object.__setattr__(self, role, tuple(getattr(self, role)))
        if both := set(self.melody) & set(self.drums):
            raise ValueError(f"{min(both)!r} cannot be the melody and the drums; name different tracks")
        representation(self.representation, self.drum_map)  # raises for an unknown name
        if self.bars not in (2, 16):
            raise ValueError(f"windows of {self.bars} bars; the models take 2 or 16")

    @property
    def tokens(self) -> Representation:
        return representation(self.representation, self.drum_map)

    @property
    def roles(self) -> Roles:
        return Roles(self.melody, self.drums)

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR


class ChunkTask(NamedTuple):
    """Some files in a row, and the file that their windows go to."""

    number: int
    sources: list[Source]
    first: int  # index of the first source among all
    settings: DatasetSettings
    buckets: int
    work: Path

    @property
    def path(self) -> Path:
        return self.work / f"chunk-{self.number:06d}.arrow"

    @property
    def results(self) -> Path:
        return self.work / f"chunk-{self.number:06d}.npz"


def map_chunk(task: ChunkTask, skip: Skip = NOTHING, beat: Beat = no_beat) -> None:
    """Reads some files and writes their windows, by portion and bucket, in the order of file, instrument and bar.

    A file in `skip` is left out for the reason that stands there; see `run_tasks` for it and `beat`. If `skip` has
    `TOGETHER`, portions are of one song, to find the one that ended the process.
    """
    if task.path.exists():
        return
    files = [FileResult()] * len(task.sources)
    signature = [np.zeros(0, np.uint64)] * len(files)
    names = Counter[str]()
    with replacing(task.path, concurrent=True) as temporary:
        with pa.ipc.new_file(str(temporary), _chunk_schema(task.settings)) as writer:
            for songs, index in read_portions(task.sources, files, skip, beat):
                names.update(player.name.strip() for song in songs for player in song.instruments)
                songs = [with_named_roles(song, task.settings.tokens, task.settings.roles) for song in songs]
                for rows, marks, at in _windows_of(songs, index, files, task.settings):
                    for i, mark in zip(at, marks):
                        signature[i] = mark
                    _write_rows(writer, rows, task)
        _write_results(task.results, files, signature, names)


def read_chunk_results(path: Path) -> tuple[list[FileResult], list[np.ndarray]]:
    """What `map_chunk` found out about each file: the result, and the song's signature."""
    with np.load(path) as stored:
        files = [FileResult(*f) for f in json.loads(stored["files"].tobytes())]
        return files, np.split(stored["marks"], np.cumsum(stored["counts"])[:-1])


def read_track_names(path: Path) -> Counter[str]:
    """How many tracks of each name `map_chunk` found."""
    with np.load(path) as stored:
        return Counter(json.loads(stored["names"].tobytes()))


def read_bucket(paths: list[Path], number: int, buckets: int, settings: DatasetSettings) -> dict[str, np.ndarray]:
    """The rows of one bucket in all chunks: tokens as bytes (N, L), and the other columns (N,)."""
    schema = _chunk_schema(settings)
    batches = []
    for path in paths:
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
            batches += [reader.get_batch(n) for n in range(number, reader.num_record_batches, buckets)]
    rows = pa.Table.from_batches([b for b in batches if b.num_rows], schema).combine_chunks()
    columns = {name: rows[name].to_numpy() for name in schema.names if name != "tokens"}
    width = schema.field("tokens").type.byte_width
    tokens = rows["tokens"].chunk(0) if rows.num_rows else pa.array([], pa.binary(width))
    flat = np.frombuffer(tokens.buffers()[1] or b"", np.uint8)[tokens.offset * width :][: len(tokens) * width]
    return {"tokens": flat.reshape(-1, width), **columns}


# --- reading -------------------------------------------------------------------------------------------------


def read_portions(
    sources: list[Source], files: list[FileResult], skip: Skip = NOTHING, beat: Beat = no_beat
) -> Iterator[tuple[list[Song], list[int]]]:
    """Yields songs, each with the number of its source, as many as may be worked on together.

    What becomes of each source is written into `files`.
    """
    portion: list[tuple[int, Parsed]] = []
    notes = players = 0
    alone = TOGETHER in skip
    for i, data in enumerate(read_sources(sources, skip, beat)):
        try:
            if isinstance(data, MidiError):
                raise data
            if data is None:
                files[i] = FileResult(skip[i], WHY[skip[i]])
                continue
            parsed = parse(data)
        except MidiError as error:
            files[i] = FileResult(error.reason, str(error))
            continue
        if portion and (notes + parsed.size > NOTES_AT_ONCE or players + len(parsed.notes) > MAX_INSTRUMENTS):
            beat(TOGETHER)
            yield _songs(portion, files)
            portion, notes, players = [], 0, 0
            beat(i)
        portion.append((i, parsed))
        notes, players = notes + parsed.size, players + len(parsed.notes)
        if alone:
            yield _songs(portion, files)
            portion, notes, players = [], 0, 0
    if portion:
        beat(TOGETHER)
        yield _songs(portion, files)


def _songs(portion: list[tuple[int, Parsed]], files: list[FileResult]) -> tuple[list[Song], list[int]]:
    songs, index = [], []
    for (i, _), song in zip(portion, to_songs([parsed for _, parsed in portion])):
        if isinstance(song, Song) and not len(song.notes.start):
            song = MidiError("no-notes")
        if isinstance(song, MidiError):
            files[i] = FileResult(song.reason, str(song))
        else:
            files[i] = FileResult.of_song(song)
            songs.append(song)
            index.append(i)
    return songs, index


# --- windows -------------------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    tokens: np.ndarray  # (N, T, streams) uint8 or uint16
    key: np.ndarray  # (N,) uint64
    file: np.ndarray  # (N,) int32
    instrument: np.ndarray
    bar: np.ndarray
    tempo: np.ndarray


def _windows_of(
    songs: list[Song], index: list[int], files: list[FileResult], settings: DatasetSettings
) -> Iterator[tuple[_Rows, list[np.ndarray], list[int]]]:
    """Windows and signatures of some songs together; if that fails, of half of them, so that one costs only itself.

    The counts of each song, or why it gives nothing, are written into `files`.
    """
    if not songs:
        return
    try:
        found = find_windows(songs, settings.tokens, settings.bars)
        marks = signatures(songs, settings.tokens)
        rows = unique_rows(songs, found, np.array(index, np.int64))
    except Exception as error:
        if half := len(songs) // 2:
            yield from _windows_of(songs[:half], index[:half], files, settings)
            yield from _windows_of(songs[half:], index[half:], files, settings)
        elif isinstance(error, TooManyWindows):
            files[index[0]] = files[index[0]]._replace(reason="too-many-windows")
        else:
            files[index[0]] = FileResult("internal", f"{type(error).__name__}: {error}")
        return
    sounding = np.bincount(found.song, minlength=len(songs)).tolist()
    unique = np.bincount(rows.file, minlength=index[-1] + 1).tolist()
    columns = (songs, index, found.possible.tolist(), sounding, found.cut_pairs.tolist())
    for song, i, possible, count, cut in zip(*columns):
        if count:
            files[i] = files[i]._replace(possible=possible, sounding=count, unique=unique[i], cut_pairs=cut)
        else:
            files[i] = _why_nothing(song, possible, settings)._replace(cut_pairs=cut)
    yield rows, marks, index


def unique_rows(songs: list[Song], found: Windows, at: np.ndarray) -> _Rows:
    """Windows of songs -> rows, each window of a song once (the first)."""
    content = as_bytes(found.tokens)
    key = hash_rows(found.tokens)
    salted = key + found.song.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
    first = same_rows(content, salted)
    own = found.song[first] == found.song  # a hash of hashes may meet another song's: then it is no repetition
    keep = np.flatnonzero((first == np.arange(len(first))) | ~own)
    song, bar = found.song[keep], found.bar[keep]
    tempo = np.array([s.tempo for s in songs], np.float32)[song]
    for n in [n for n, s in enumerate(songs) if len(s.tempos) > 1]:
        mine = np.flatnonzero(song == n)
        steps, values = np.array(songs[n].tempos).T
        tempo[mine] = values[np.searchsorted(steps, bar[mine] * STEPS_PER_BAR, side="right") - 1]
    return _Rows(found.tokens[keep], key[keep], at[song], found.instrument[keep], bar, tempo)


def _why_nothing(song: Song, possible: int, settings: DatasetSettings) -> FileResult:
    result = FileResult.of_song(song)
    if missing := _missing(song, settings.tokens):
        return result._replace(reason="no-part", detail=missing)
    longest = max(p.end - p.start for p in song.pieces) // STEPS_PER_BAR
    if longest < settings.bars:
        return result._replace(reason="too-short", detail=f"longest stretch of 4/4: {longest} bars")
    return result._replace(reason="too-silent", detail=f"{possible} windows, each silent for more than a bar")


def _missing(song: Song, kind: Representation) -> str:
    """What the song would need to have a part of this kind."""
    drums = [i.is_drum for i in song.instruments]
    if isinstance(kind, Drums):
        return "" if any(drums) else "no drums"
    if isinstance(kind, Melody):
        return "no melody (drums only)" if all(drums) else ""
    try:
        lead, bass = kind.choose(song)
    except NoPart:
        return "no melody, no bass and no drums"
    parts = {"melody": lead is not None, "bass": bass is not None, "drums": any(drums)}
    lacking = [f"no {part}" for part, there in parts.items() if not there]
    return " and ".join(lacking)


# --- writing -------------------------------------------------------------------------------------------------


def _chunk_schema(settings: DatasetSettings) -> pa.Schema:
    width = settings.steps * len(settings.tokens.vocab_sizes) * np.dtype(_dtype(settings)).itemsize
    numbers = {"file": pa.int32(), "instrument": pa.int32(), "bar": pa.int32(), "tempo": pa.float32()}
    return pa.schema({"tokens": pa.binary(width), "key": pa.uint64(), **numbers})


def _dtype(settings: DatasetSettings) -> type:
    return np.uint8 if max(settings.tokens.vocab_sizes) <= 256 else np.uint16


def _write_rows(writer: pa.RecordBatchFileWriter, rows: _Rows, task: ChunkTask) -> None:
    """One record batch for each bucket, empty ones too, so that number n of every portion is bucket n."""
    schema = _chunk_schema(task.settings)
    assert rows.tokens.dtype == _dtype(task.settings)
    bucket = (rows.key >> np.uint64(40)) % np.uint64(task.buckets)
    order = np.argsort(bucket, kind="stable")
    bounds = np.searchsorted(bucket[order], np.arange(task.buckets + 1).astype(np.uint64)).tolist()
    content = np.ascontiguousarray(as_bytes(rows.tokens)[order])
    tokens = pa.FixedSizeBinaryArray.from_buffers(
        schema.field("tokens").type, len(order), [None, pa.py_buffer(content)]
    )
    numbers = (rows.key, rows.file + task.first, rows.instrument, rows.bar, rows.tempo)
    columns = [tokens, *(pa.array(c[order], f.type, safe=False) for c, f in zip(numbers, list(schema)[1:]))]
    whole = pa.RecordBatch.from_arrays(columns, schema=schema)
    for a, b in pairwise(bounds):
        writer.write_batch(whole.slice(a, b - a))


def _write_results(path: Path, files: list[FileResult], signature: list[np.ndarray], names: Counter[str]) -> None:
    text = np.frombuffer(json.dumps(files).encode(), np.uint8)
    with replacing(path, concurrent=True) as temporary, temporary.open("wb") as file:
        tracks = np.frombuffer(json.dumps(names).encode(), np.uint8)
        counts = np.array([len(s) for s in signature])
        np.savez(file, files=text, marks=np.concatenate(signature), counts=counts, names=tracks)
