"""Folders of MIDI -> unique windows on disk, split by groups of songs, with a report; and back as arrays.

`map_chunk` turns some files into rows sorted by bucket (a part of their content hash); `reduce_bucket` takes one bucket
of every chunk, so that equal windows meet, and keeps one of each. Both are plain functions from files to a file: a pool
of processes runs them here, a cluster could. All work lies in a folder beside the target until it is whole, so the
same command goes on after a kill, and ends with the same bytes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from musicvae.music.grouping import HELD_BACK, SPLITS, read_groups, signatures, split_groups, tie
from musicvae.music.midi import REASONS, STEPS_PER_BAR, MidiError, Song
from musicvae.music.report import FileResult, make_report
from musicvae.music.representation import FIRST_PITCH, Representation, representation
from musicvae.music.sources import Source, chunks, list_sources, read_sources
from musicvae.music.unique import as_bytes, hash_rows, same_rows
from musicvae.music.windows import Windows, find_windows
from musicvae.music.workers import run_tasks

FORMAT = 1
BYTES_PER_BUCKET = 2 << 20  # of MIDI, which gives some ten times as much in windows
NOTES_AT_ONCE = 200_000  # in one pass of find_windows: bounds the memory of a worker


@dataclass(frozen=True)
class DatasetSettings:
    """What decides which windows a data set holds."""

    representation: str
    bars: int
    drum_map: str = "current"

    def __post_init__(self):
        representation(self.representation, self.drum_map)  # raises for an unknown name
        if self.bars not in (2, 16):
            raise ValueError(f"windows of {self.bars} bars; the models take 2 or 16")

    @property
    def tokens(self) -> Representation:
        return representation(self.representation, self.drum_map)

    @property
    def steps(self) -> int:
        return self.bars * STEPS_PER_BAR


Progress = Callable[[str, int, int], None]  # what is being done, how much of it, of how much


def build_dataset(
    folders: list[Path],
    settings: DatasetSettings,
    out: Path,
    *,
    workers: int = 1,
    groups: Path | None = None,
    train_only: list[Path] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda *_: None,
) -> "Dataset":
    """Builds the data set `out` from every MIDI file below the folders.

    What lies below the folders `train_only` (assembled or synthetic music, say) is never used to validate or test; if it
    is tied to a song that is, it is left out. Raises ValueError for what a user can mend.
    """
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists already. Give another --out, or --overwrite to replace it")
    sources = list_sources(folders, train_only)
    work = out.resolve().with_name(f".{out.name}.partial")
    ties = read_groups(groups, [s.name for s in sources]) if groups else []
    plan = _plan(sources, settings, ties)
    _prepare(work, plan)

    tasks = [ChunkTask(n, [sources[i] for i in c], c[0], settings, plan["buckets"], work) for n, c in enumerate(chunks(sources))]
    _run(map_chunk, tasks, workers, progress, "reading", [len(t.sources) for t in tasks])
    progress("grouping", 0, 1)
    files, signature = _read_chunks([t.path for t in tasks])
    group = tie(signature, ties)
    split = split_groups(signature, group)
    split[(split > 0) & np.array([s.train_only for s in sources])] = HELD_BACK
    np.savez(work / "split.npz", group=group, split=split)
    names = [s.name for s in sources]
    buckets = [BucketTask(b, [t.path for t in tasks], settings, work, names) for b in range(plan["buckets"])]
    _run(reduce_bucket, buckets, workers, progress, "removing duplicates", [1] * len(buckets))

    report = make_report(asdict(settings), names, files, group, split, [json.loads(b.counts.read_text()) for b in buckets])
    if not report["windows"]["unique"]:
        shutil.rmtree(work)
        raise ValueError(_why_empty(folders, settings, report))
    final = work / "final"
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    for name in SPLITS:
        _join_parts([b.part(name) for b in buckets], final / f"{name}.parquet", settings)
    (final / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    _replace_folder(final, out.resolve())
    shutil.rmtree(work)
    return Dataset(out)


@dataclass(frozen=True)
class Dataset:
    """A folder that `build_dataset` wrote: train, validation and test windows, and the report."""

    folder: Path

    def __post_init__(self):
        object.__setattr__(self, "folder", Path(self.folder))
        if not (self.folder / "report.json").is_file():
            found = "no such folder" if not self.folder.exists() else "not a data set (it has no report.json)"
            raise ValueError(f"{self.folder}: {found}. Build one with: musicvae dataset build FOLDER --out {self.folder}")
        if self.report.get("format") != FORMAT:
            raise ValueError(f"{self.folder}: format {self.report.get('format')}; this version reads format {FORMAT}")

    @property
    def report(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / "report.json").read_text())
        except ValueError as error:
            raise ValueError(f"{self.folder / 'report.json'}: damaged ({error}). Build the data set again") from None

    @property
    def settings(self) -> DatasetSettings:
        return DatasetSettings(**self.report["settings"])

    def rows(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """The windows of a split as an Arrow table: tokens, file, instrument, bar, tempo, split, group."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        path = self.folder / f"{split}.parquet"
        try:
            return pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise ValueError(f"{path}: cannot be read ({error}). Build the data set again") from None

    def tokens(self, split: str) -> np.ndarray:
        """The windows of a split, (N, T, streams) uint16, mapped from disk where the folder can be written to."""
        path = self.folder / f"{split}.parquet"
        if split not in SPLITS or not path.is_file():
            self.rows(split)  # says what is wrong
        cache = self.folder / f"{split}.{path.stat().st_size}-{path.stat().st_mtime_ns}.npy"
        if not cache.exists():
            tokens = self._tokens_from_rows(split)
            temporary = cache.with_suffix(f".{os.getpid()}.partial")
            try:
                with temporary.open("wb") as file:
                    np.save(file, tokens)
                temporary.replace(cache)
            except OSError:
                return tokens
            finally:
                if temporary.exists():
                    temporary.unlink()
        return np.load(cache, mmap_mode="r")

    def _tokens_from_rows(self, split: str) -> np.ndarray:
        column = self.rows(split, ["tokens"])["tokens"].combine_chunks()
        shape = (-1, self.settings.steps, len(self.settings.tokens.vocab_sizes))
        return column.flatten().to_numpy(zero_copy_only=False).astype(np.uint16, copy=False).reshape(shape)


# --- map: files -> rows by bucket ----------------------------------------------------------------------------------


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


def map_chunk(task: ChunkTask, skip: dict[int, str] = {}, beat: Callable[[int], None] = lambda _: None) -> None:  # noqa: B006
    """Reads some files and writes their windows, one record batch a bucket, in the order of file, instrument and bar."""
    if task.path.exists():
        return
    files, songs, index = read_songs(task.sources, skip, beat)
    columns, signature = [], [np.zeros(0, np.uint64)] * len(files)
    for a, b in _portions(songs):
        for rows, marks, at, failed in _windows_of(songs[a:b], index[a:b], task.settings):
            for i, result in failed.items():
                files[i] = result
            for i, mark in zip(at, marks):
                signature[i] = mark
            if rows is not None:
                columns.append(rows)
    rows = _Rows(*(np.concatenate(c) for c in zip(*columns))) if columns else _no_rows(task.settings)
    files = _count(files, rows)
    rows = rows._replace(file=rows.file + task.first)
    _write_chunk(task, rows, files, signature)


def read_songs(sources: list[Source], skip: dict[int, str], beat: Callable[[int], None]) -> tuple[list[FileResult], list[Song], list[int]]:
    """Sources -> a result for each, the songs among them, and which source each song is."""
    files, songs, index = [], [], []
    reader = read_sources(sources)
    for i in range(len(sources)):
        if i in skip:
            files.append(FileResult(skip[i], REASONS_OF_PROCESSES[skip[i]]))
            next(reader)
            continue
        beat(i)
        data = next(reader)
        try:
            if isinstance(data, MidiError):
                raise data
            song = Song.read(data)
            if not len(song.notes.start):
                raise MidiError("no-notes")
        except MidiError as error:
            files.append(FileResult(error.reason, str(error)))
        else:
            songs.append(song)
            index.append(i)
            files.append(FileResult.of_song(song))
    return files, songs, index


REASONS_OF_PROCESSES = {"crashed": "reading it ended the process", "hung": "reading it took too long"}


class _Rows(NamedTuple):
    tokens: np.ndarray  # (N, T, streams) uint8 or uint16
    key: np.ndarray  # (N,) uint64
    file: np.ndarray  # (N,) int32
    instrument: np.ndarray
    bar: np.ndarray
    tempo: np.ndarray
    possible: np.ndarray  # windows of the row's file before the rule of silence


def _windows_of(songs: list[Song], index: list[int], settings: DatasetSettings) -> Iterator[tuple]:
    """Windows and signatures of some songs together; if that fails, of each by itself, so that one costs only itself."""
    try:
        found = find_windows(songs, settings.tokens, settings.bars)
        marks = signatures(songs, settings.tokens)
    except Exception as error:
        if len(songs) > 1:
            for song, i in zip(songs, index):
                yield from _windows_of([song], [i], settings)
        else:
            yield None, [], [], {index[0]: FileResult("internal", f"{type(error).__name__}: {error}")}
        return
    at = np.array(index, np.int64)
    failed = {}
    for n in np.flatnonzero(np.bincount(found.song, minlength=len(songs)) == 0).tolist():
        failed[index[n]] = _why_nothing(songs[n], int(found.possible[n]), settings)
    yield _rows(songs, found, at), marks, index, failed


def _rows(songs: list[Song], found: Windows, at: np.ndarray) -> _Rows:
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
    total = np.bincount(found.song, minlength=len(songs))
    counts = np.stack([found.possible, total], axis=1)[song]
    return _Rows(found.tokens[keep], key[keep], at[song], found.instrument[keep], bar, tempo, counts)


def _no_rows(settings: DatasetSettings) -> _Rows:
    shape = (0, settings.steps, len(settings.tokens.vocab_sizes))
    empty = np.zeros(0, np.int64)
    dtype = np.uint8 if settings.representation.startswith("melody") else np.uint16
    return _Rows(np.zeros(shape, dtype), empty.astype(np.uint64), empty, empty, empty, empty, np.zeros((0, 2), np.int64))


def _why_nothing(song: Song, possible: int, settings: DatasetSettings) -> FileResult:
    result = FileResult.of_song(song)
    kinds = settings.tokens
    if settings.representation == "drums":
        missing = "no drums" if not result.drum_tracks else ""
    elif settings.representation == "trio":
        parts = {"melody": kinds.choose(song)[0], "bass": kinds.choose(song)[1]} if _plays(kinds, song) else {}  # type: ignore[union-attr]
        lacking = [part for part, index in parts.items() if index is None] + ([] if result.drum_tracks else ["drums"])
        missing = f"no {' and no '.join(lacking)}" if lacking or not parts else ""
    else:
        missing = "no melody (drums only)" if result.drum_tracks == result.tracks else ""
    if missing:
        return result._replace(reason="no-part", detail=missing)
    longest = max(p.end - p.start for p in song.pieces) // STEPS_PER_BAR
    if longest < settings.bars:
        return result._replace(reason="too-short", detail=f"longest stretch of 4/4: {longest} bars")
    return result._replace(reason="too-silent", detail=f"{possible} windows, each silent for more than a bar")


def _plays(kinds: Any, song: Song) -> bool:
    try:
        kinds.choose(song)
    except ValueError:
        return False
    return True


def _count(files: list[FileResult], rows: _Rows) -> list[FileResult]:
    unique = np.bincount(rows.file, minlength=len(files)) if len(rows.file) else np.zeros(len(files), np.int64)
    totals = {int(f): c.tolist() for f, c in zip(*_first_of(rows.file, rows.possible))}
    return [
        f._replace(possible=totals[i][0], sounding=totals[i][1], unique=int(unique[i])) if i in totals else f
        for i, f in enumerate(files)
    ]


def _first_of(file: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found, at = np.unique(file, return_index=True)
    return found, values[at]


def _portions(songs: list[Song]) -> Iterator[tuple[int, int]]:
    """Runs of songs with no more than NOTES_AT_ONCE notes together (or one song)."""
    start, notes = 0, 0
    for i, song in enumerate(songs):
        if i > start and notes + len(song.notes.start) > NOTES_AT_ONCE:
            yield start, i
            start, notes = i, 0
        notes += len(song.notes.start)
    if start < len(songs):
        yield start, len(songs)


def _write_chunk(task: ChunkTask, rows: _Rows, files: list[FileResult], signature: list[np.ndarray]) -> None:
    content = as_bytes(rows.tokens) if len(rows.key) else np.zeros((0, 1), np.uint8)
    bucket = (rows.key >> np.uint64(40)) % np.uint64(task.buckets)
    order = np.argsort(bucket, kind="stable")
    bounds = np.searchsorted(bucket[order], np.arange(task.buckets + 1).astype(np.uint64))
    width = int(np.prod(rows.tokens.shape[1:])) * rows.tokens.itemsize
    payload = content[order].reshape(-1)
    table = pa.table(
        {
            "tokens": pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(order), [None, pa.py_buffer(payload)]),
            "key": rows.key[order],
            "file": rows.file[order].astype(np.int32),
            "instrument": rows.instrument[order].astype(np.int32),
            "bar": rows.bar[order].astype(np.int32),
            "tempo": rows.tempo[order].astype(np.float32),
        }
    )
    marks = np.concatenate([np.zeros(0, np.uint64), *signature])
    notes = {
        b"files": json.dumps(files).encode(),
        b"marks": marks.tobytes(),
        b"mark_counts": np.array([len(s) for s in signature], np.int64).tobytes(),
    }
    with replacing(task.path) as temporary, pa.ipc.new_file(str(temporary), table.schema.with_metadata(notes)) as writer:
        for a, b in zip(bounds[:-1], bounds[1:]):
            writer.write_batch(pa.RecordBatch.from_arrays([_slice(c, a, b) for c in table.columns], schema=writer_schema(table, notes)))


def writer_schema(table: pa.Table, notes: dict[bytes, bytes]) -> pa.Schema:
    return table.schema.with_metadata(notes)


def _slice(column: pa.ChunkedArray, a: int, b: int) -> pa.Array:
    part = column.slice(a, b - a)
    return part.combine_chunks() if part.num_chunks != 1 else part.chunk(0)


# --- reduce: one bucket of every chunk -> unique windows -------------------------------------------------------------


class BucketTask(NamedTuple):
    """One bucket of all chunks, and the files that its windows go to."""

    number: int
    chunks: list[Path]
    settings: DatasetSettings
    work: Path
    names: list[str]

    @property
    def counts(self) -> Path:
        return self.work / f"bucket-{self.number:05d}.json"

    def part(self, split: str) -> Path:
        return self.work / f"bucket-{self.number:05d}-{split}.parquet"


def reduce_bucket(task: BucketTask, skip: dict[int, str] = {}, beat: Callable[[int], None] = lambda _: None) -> None:  # noqa: B006
    """Keeps one of each window of a bucket.

    A window that stands in songs of several splits goes to train if one of them is there, else to the split of its
    least song; its source is the least (file, instrument, bar) in that split.
    """
    if task.counts.exists():
        return
    with np.load(task.work / "split.npz") as stored:
        group, split_of = stored["group"], stored["split"]
    columns = _read_bucket(task)
    columns = {name: column[split_of[columns["file"]] != HELD_BACK] for name, column in columns.items()}
    content, file = columns["tokens"], columns["file"]
    first = same_rows(content, columns["key"])
    split = split_of[file]
    in_train = np.zeros(len(first), bool)
    in_train[first[split == 0]] = True
    target = np.where(in_train[first], 0, split[first])
    eligible = np.flatnonzero(split == target)
    keep = eligible[np.unique(first[eligible], return_index=True)[1]]
    keep.sort()
    moved = np.zeros(len(SPLITS), np.int64)
    for name in range(1, len(SPLITS)):  # windows of a split's songs that train has too
        moved[name] = len(np.unique(first[(split == name) & (target != name)]))
    width = task.settings.steps * len(task.settings.tokens.vocab_sizes)
    dtype = np.uint8 if content.shape[1] == width else np.uint16
    tokens = content[keep].view(dtype).reshape(len(keep), width).astype(np.uint16)
    onsets = _onsets(tokens, task.settings)
    for number, name in enumerate(SPLITS):
        mine = np.flatnonzero(target[keep] == number)
        rows = keep[mine]
        values = {c: columns[c][rows] for c in ("instrument", "bar", "tempo")}
        names = pa.array([task.names[i] for i in file[rows].tolist()], pa.string())
        table = _table(tokens[mine], names, values, name, group[file[rows]], task.settings)
        with replacing(task.part(name)) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    counts = {
        "rows": len(first),
        "unique": np.bincount(target[keep], minlength=len(SPLITS)).tolist(),
        "moved": moved.tolist(),
        "onsets": onsets,
        "files": np.unique(file[keep]).tolist(),
        "by_file": np.stack(np.unique(file[keep], return_counts=True)).tolist(),
    }
    with replacing(task.counts) as temporary:
        temporary.write_text(json.dumps(counts))


def _read_bucket(task: BucketTask) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("tokens", "key", "file", "instrument", "bar", "tempo")}
    for path in task.chunks:
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
            batch = reader.get_batch(task.number)
        if not batch.num_rows:
            continue
        for name, column in zip(batch.schema.names, batch.columns):
            if name == "tokens":
                width, at = column.type.byte_width, column.offset * column.type.byte_width
                flat = np.frombuffer(column.buffers()[1], np.uint8)[at : at + len(column) * width]
                parts[name].append(flat.reshape(-1, width))
            else:
                parts[name].append(column.to_numpy())
    empty = {"tokens": np.zeros((0, task.settings.steps * len(task.settings.tokens.vocab_sizes)), np.uint8), "key": np.zeros(0, np.uint64)}
    return {n: np.concatenate(p) if p else empty.get(n, np.zeros(0, np.int32)) for n, p in parts.items()}


def _onsets(tokens: np.ndarray, settings: DatasetSettings) -> list[int]:
    streams = len(settings.tokens.vocab_sizes)
    drums = {"drums": [0], "trio": [2]}.get(settings.representation, [])
    return [int(np.count_nonzero(tokens[:, s::streams] >= (1 if s in drums else FIRST_PITCH))) for s in range(streams)]


def _schema(settings: DatasetSettings) -> pa.Schema:
    width = settings.steps * len(settings.tokens.vocab_sizes)
    return pa.schema(
        {
            "tokens": pa.list_(pa.uint16(), width),
            "file": pa.string(),
            "instrument": pa.int32(),
            "bar": pa.int32(),
            "tempo": pa.float32(),
            "split": pa.string(),
            "group": pa.int32(),
        }
    )


def _table(tokens: np.ndarray, names: pa.Array, values: dict[str, np.ndarray], split: str, group: np.ndarray, settings: DatasetSettings) -> pa.Table:
    width = settings.steps * len(settings.tokens.vocab_sizes)
    return pa.table(
        [
            pa.FixedSizeListArray.from_arrays(pa.array(tokens.reshape(-1)), width),
            names,
            *(pa.array(values[c]) for c in ("instrument", "bar")),
            pa.array(values["tempo"].astype(np.float32)),
            pa.array([split] * len(names), pa.string()),
            pa.array(group.astype(np.int32)),
        ],
        schema=_schema(settings),
    )


# --- the rest of the job -----------------------------------------------------------------------------------------------


def _plan(sources: list[Source], settings: DatasetSettings, ties: list[list[int]]) -> dict[str, Any]:
    """What is to be done, in a form that tells whether a half-built data set is the same job."""
    size = sum(s.size for s in sources)
    buckets = 1 << min(max((size // BYTES_PER_BUCKET).bit_length(), 2), 12)
    files = hashlib.sha256(json.dumps([sources, ties]).encode()).hexdigest()
    return {"format": FORMAT, "settings": asdict(settings), "buckets": buckets, "files": files}


def _prepare(work: Path, plan: dict[str, Any]) -> None:
    """A folder for half-done work: the one left by the same job, or a new one."""
    path = work / "plan.json"
    if path.exists() and path.read_text() == json.dumps(plan):
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(plan))


def _run(function: Callable, tasks: list, workers: int, progress: Progress, what: str, sizes: list[int]) -> None:
    done = 0
    progress(what, 0, sum(sizes))
    for finished in run_tasks(function, tasks, workers):
        done += sizes[finished.task.number]
        progress(what, done, sum(sizes))


def _read_chunks(paths: list[Path]) -> tuple[list[FileResult], list[np.ndarray]]:
    files: list[FileResult] = []
    signature: list[np.ndarray] = []
    for path in paths:
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
            notes = reader.schema.metadata
        files += [FileResult(*f) for f in json.loads(notes[b"files"])]
        counts = np.frombuffer(notes[b"mark_counts"], np.int64)
        signature += np.split(np.frombuffer(notes[b"marks"], np.uint64), np.cumsum(counts)[:-1])
    return files, signature


def _join_parts(parts: list[Path], target: Path, settings: DatasetSettings) -> None:
    with pq.ParquetWriter(target, _schema(settings), compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part)
            if len(table):
                writer.write_table(table)


def _why_empty(folders: list[Path], settings: DatasetSettings, report: dict[str, Any]) -> str:
    reasons = "; ".join(f"{r['files']} because {r['why']}, such as {r['examples'][0]}" for r in list(report["rejected"].values())[:3])
    hint = "Try --bars 2, or see" if settings.bars == 16 else "See"
    return (
        f"{', '.join(map(str, folders))}: no {settings.representation} window of {settings.bars} bars in "
        f"the {report['files']['read']} files ({reasons}). {hint} what a file holds with: musicvae inspect FILE"
    )


def _replace_folder(new: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


class replacing:  # noqa: N801 (reads as a verb)
    """`with replacing(path) as temporary`: what is written there becomes `path` when all went well, at once."""

    def __init__(self, path: Path):
        self.path, self.temporary = path, path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.temporary.replace(self.path)
        else:
            self.temporary.unlink(missing_ok=True)
