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
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from musicvae.files import locked, replacing
from musicvae.music.grouping import HELD_BACK, SPLITS, read_groups, split_groups, tie
from musicvae.music.mapping import ChunkTask, DatasetSettings, map_chunk, read_chunk_results, read_track_names
from musicvae.music.reasons import MAX_BYTES
from musicvae.music.reducing import BucketTask, reduce_bucket, schema
from musicvae.music.report import FileResult, make_report
from musicvae.music.representation import MELODY_90
from musicvae.music.sources import Source, chunks, list_sources
from musicvae.music.workers import check_main_guard, run_tasks
from musicvae.shell import command

FORMAT = 2  # of data sets
WORK_FORMAT = 5  # of half-done work, which other versions start anew
PLAN = "plan.json"  # of half-done work
BYTES_PER_BUCKET = 2 << 20  # of MIDI, which gives some ten times as much in windows

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

    What lies below the folders `train_only` (assembled or synthetic music, say) is never used to validate or test; if
    it is tied to a song that is, it is left out. Raises ValueError for what a user can mend.
    """
    check_main_guard()
    _check_target(out, [*folders, *(train_only or [])], overwrite)
    out = out.resolve()
    sources = list_sources(folders, train_only)
    ties = read_groups(groups, [s.name for s in sources]) if groups else []
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.with_name(f".{out.name}.lock")):
        _check_target(out, [*folders, *(train_only or [])], overwrite)  # another process may have been quicker
        return _build(folders, sources, ties, settings, out, workers, progress)


def _build(
    folders: list[Path],
    sources: list[Source],
    ties: list[list[int]],
    settings: DatasetSettings,
    out: Path,
    workers: int,
    progress: Progress,
) -> "Dataset":
    work = out.with_name(f".{out.name}.partial")
    plan = _plan(sources, settings, ties)
    _prepare(work, plan)
    tasks = [
        ChunkTask(n, [sources[i] for i in c], c[0], settings, plan["buckets"], work)
        for n, c in enumerate(chunks(sources))
    ]
    _run(map_chunk, tasks, workers, progress, "reading", [len(t.sources) for t in tasks])
    _check_names(settings, [t.results for t in tasks], work)
    progress("grouping", 0, 1)
    files, signature = _read_results([t.results for t in tasks])
    group = tie(signature, ties)
    split = split_groups(signature, group)
    split[(split > 0) & np.array([s.train_only for s in sources])] = HELD_BACK
    np.savez(work / "split.npz", group=group, split=split)
    names = [s.name for s in sources]
    buckets = [
        BucketTask(b, plan["buckets"], [t.path for t in tasks], settings, work, names) for b in range(plan["buckets"])
    ]
    _run(reduce_bucket, buckets, workers, progress, "removing duplicates", [1] * len(buckets))

    counts = [json.loads(b.counts.read_text()) for b in buckets]
    report = {"format": FORMAT, **make_report(asdict(settings), names, files, group, split, counts)}
    if not report["windows"]["unique"]:
        _discard(work)
        raise ValueError(_why_empty(folders, settings, report))
    final = work / "final"
    shutil.rmtree(final, ignore_errors=True)
    final.mkdir()
    for name in SPLITS:
        _join_parts([b.part(name) for b in buckets], final / f"{name}.parquet", settings)
    (final / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    _replace_folder(final, out)
    _discard(work)
    return Dataset(out)


@dataclass(frozen=True)
class Dataset:
    """A folder that `build_dataset` wrote: train, validation and test windows, and the report."""

    folder: Path
    narrow: bool = False  # melodies seen as melody-90: windows with other pitches are left out

    def __post_init__(self):
        object.__setattr__(self, "folder", Path(self.folder))
        if not (self.folder / "report.json").is_file():
            found = "no such folder" if not self.folder.exists() else "not a data set (it has no report.json)"
            again = command("dataset", "build", "FOLDER", "--representation", "KIND", "--out", self.folder)
            raise ValueError(f"{self.folder}: {found}. Build one with: {again}")
        if self.report.get("format") != FORMAT:
            raise ValueError(
                f"{self.folder}: a data set of format {self.report.get('format')}; this version reads format {FORMAT}, "
                "whose windows are cut by other rules. Build it again from its MIDI files"
            )
        try:
            DatasetSettings(**self.report["settings"])
        except (KeyError, TypeError) as error:
            raise self._damaged(error) from None

    @property
    def report(self) -> dict[str, Any]:
        try:
            report = json.loads((self.folder / "report.json").read_text())
        except (ValueError, RecursionError) as error:
            raise self._damaged(error) from None
        if not isinstance(report, dict):
            raise self._damaged("it is no object")
        return report

    def _windows(self, split: str) -> Any:
        try:
            return self.report["splits"][split]["windows"]
        except (KeyError, TypeError) as error:
            raise self._damaged(error) from None

    def _damaged(self, why: object) -> ValueError:
        return ValueError(f"{self.folder / 'report.json'}: damaged ({why}). Build the data set again")

    @property
    def settings(self) -> DatasetSettings:
        settings = DatasetSettings(**self.report["settings"])
        return replace(settings, representation=MELODY_90.name) if self.narrow else settings

    def seen_as(self, representation: str) -> "Dataset":
        """Melodies as melody-90, where a model wants that; in every other case the data set itself."""
        both = (representation, self.settings.representation)
        return replace(self, narrow=True) if both == (MELODY_90.name, "melody") else self

    def rows(self, split: str, columns: list[str] | None = None) -> pa.Table:
        """The windows of a split as an Arrow table: tokens, file, instrument, bar, tempo, split, group."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        path = self.folder / f"{split}.parquet"
        try:
            table = pq.read_table(path, columns=columns, page_checksum_verification=True)
            _check_table(table, schema(replace(self, narrow=False).settings), columns, self._windows(split))
        except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
            why = str(error).split("\n")[0]
            raise ValueError(f"{path}: cannot be read ({why}). Build the data set again") from None
        if not self.narrow:
            return table
        tokens = MELODY_90.narrowed(replace(self, narrow=False).tokens(split))
        if "tokens" in table.column_names:
            raise ValueError(f"{self.folder}: seen as {MELODY_90.name}, tokens are had from Dataset.tokens alone")
        return table.filter(pa.array(tokens.kept))

    def tokens(self, split: str) -> np.ndarray:
        """The windows of a split, (N, T, streams) uint16, mapped from disk where the folder can be written to."""
        if self.narrow:
            return MELODY_90.narrowed(replace(self, narrow=False).tokens(split)).tokens
        path = self.folder / f"{split}.parquet"
        if split not in SPLITS or not path.is_file():
            self.rows(split)  # says what is wrong
        cache = self.folder / f"{split}.{path.stat().st_size}-{path.stat().st_mtime_ns}.npy"
        mapped = self._mapped(cache, path) if cache.exists() else None
        if mapped is not None:
            return mapped
        tokens = self._tokens_from_rows(split)
        try:
            with replacing(cache, concurrent=True) as temporary, temporary.open("wb") as file:
                np.save(file, tokens)
        except OSError:
            return tokens
        return np.load(cache, mmap_mode="r")

    @property
    def _window(self) -> tuple[int, int]:
        """Steps and streams of a window."""
        return self.settings.steps, len(self.settings.tokens.vocab_sizes)

    def _mapped(self, cache: Path, parquet: Path) -> np.ndarray | None:
        """The cached tokens of a split; None where either file is damaged, and the cache is to be written again."""
        try:
            tokens, windows = np.load(cache, mmap_mode="r"), pq.read_metadata(parquet).num_rows
        except (ValueError, OSError, EOFError):
            return None
        fits = isinstance(tokens, np.ndarray) and tokens.dtype == np.uint16
        return tokens if fits and tokens.shape == (windows, *self._window) else None

    def _tokens_from_rows(self, split: str) -> np.ndarray:
        tokens = self.rows(split, ["tokens"])["tokens"].combine_chunks()
        try:
            numbers = tokens.flatten().cast(pa.uint16()).to_numpy(zero_copy_only=False)
            return numbers.reshape(len(tokens), *self._window)
        except (AttributeError, ValueError, pa.ArrowException) as error:  # text, nulls, windows of another length
            path = self.folder / f"{split}.parquet"
            raise ValueError(f"{path}: its tokens cannot be read ({error}). Build the data set again") from None


# --- the rest of the job ---------------------------------------------------------------------------------------


def _check_target(out: Path, folders: list[Path], overwrite: bool) -> None:
    """ValueError for a target that must not be written to: only a data set is ever replaced, and no source."""
    if not out.exists():
        return
    if not overwrite:
        raise ValueError(f"{out} exists already. Give another --out, or --overwrite to replace it")
    ours = ("report.json", ".parquet", ".npy", ".partial")
    strange = [name for name in (os.listdir(out) if out.is_dir() else [out.name]) if not name.endswith(ours)]
    holds = [folder for folder in folders if folder.resolve().is_relative_to(out.resolve())]
    if holds or strange or not (out / "report.json").is_file():
        found = f"the source {holds[0]}" if holds else ", ".join(sorted(strange)[:3]) or "nothing"
        raise ValueError(f"{out} holds {found}; --overwrite replaces nothing but data sets. Give another --out")


def _check_table(table: pa.Table, wanted: pa.Schema, columns: list[str] | None, windows: int) -> None:
    """ValueError for a table other than was written: page checksums do not cover what the footer of Parquet says."""
    fields = [wanted.field(name) for name in columns or wanted.names]
    if list(table.schema) != fields:
        raise ValueError("its columns are not those of a data set")
    if len(table) != windows or any(len(column) != windows or column.null_count for column in table.columns):
        raise ValueError(f"it does not have the {windows:,} windows that report.json counts")


def _plan(sources: list[Source], settings: DatasetSettings, ties: list[list[int]]) -> dict[str, Any]:
    """What is to be done, in a form that tells whether a half-built data set is the same job."""
    size = sum(s.size for s in sources if s.size <= MAX_BYTES)  # larger ones are refused
    buckets = 1 << min(max((size // BYTES_PER_BUCKET).bit_length(), 2), 12)
    files = hashlib.sha256(json.dumps([sources, ties]).encode()).hexdigest()
    return {"format": FORMAT, "work": WORK_FORMAT, "settings": asdict(settings), "buckets": buckets, "files": files}


def _prepare(work: Path, plan: dict[str, Any]) -> None:
    """A folder for half-done work: the one left by the same job, or a new one."""
    path = work / PLAN
    if path.exists() and path.read_text() == json.dumps(plan):
        return
    _discard(work)
    work.mkdir(parents=True, exist_ok=True)
    with replacing(path, concurrent=True) as temporary:
        temporary.write_text(json.dumps(plan))


def _discard(work: Path) -> None:
    """Takes half-done work away, its plan first: killed in between, it is begun anew and not gone on with."""
    (work / PLAN).unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def _run(function: Callable, tasks: list, workers: int, progress: Progress, what: str, sizes: list[int]) -> None:
    done = 0
    progress(what, 0, sum(sizes))
    for finished in run_tasks(function, tasks, workers):
        done += sizes[finished.task.number]
        progress(what, done, sum(sizes))


def _check_names(settings: DatasetSettings, results: list[Path], work: Path) -> None:
    """ValueError for a name of a melody or of drums that no track has; it lists the most frequent names."""
    wanted = [*settings.melody, *settings.drums]
    if not wanted:
        return
    names = sum(map(read_track_names, results), Counter[str]())
    there = {name.casefold() for name in names}
    if missing := [name for name in wanted if name.strip().casefold() not in there]:
        _discard(work)
        known = ", ".join(f'"{name}" ({count})' for name, count in names.most_common(12) if name) or "none"
        raise ValueError(f"no track is named {missing[0]!r}; the names there are most of: {known}")


def _read_results(paths: list[Path]) -> tuple[list[FileResult], list[np.ndarray]]:
    chunks = [read_chunk_results(path) for path in paths]
    return [f for files, _ in chunks for f in files], [s for _, signature in chunks for s in signature]


def _join_parts(parts: list[Path], target: Path, settings: DatasetSettings) -> None:
    with pq.ParquetWriter(target, schema(settings), compression="zstd", write_page_checksum=True) as writer:
        for part in parts:
            table = pq.read_table(part, page_checksum_verification=True)
            if len(table):
                writer.write_table(table)


def _why_empty(folders: list[Path], settings: DatasetSettings, report: dict[str, Any]) -> str:
    found = list(report["rejected"].values())[:3]
    reasons = "; ".join(f"{r['files']} because {r['why']}, such as {r['examples'][0]}" for r in found)
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
