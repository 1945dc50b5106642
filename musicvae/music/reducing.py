"""One bucket of every chunk -> the unique windows among them, by split."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from musicvae.files import replacing
from musicvae.music.grouping import HELD_BACK, SPLITS
from musicvae.music.mapping import DatasetSettings, read_bucket
from musicvae.music.representation import FIRST_PITCH
from musicvae.music.unique import same_rows
from musicvae.music.workers import NOTHING, Beat, Skip, no_beat


class BucketTask(NamedTuple):
    """One bucket of all chunks, and the files that its windows go to."""

    number: int
    buckets: int  # of how many
    chunks: list[Path]
    settings: DatasetSettings
    work: Path
    names: list[str]

    @property
    def counts(self) -> Path:
        return self.work / f"bucket-{self.number:05d}.json"

    def part(self, split: str) -> Path:
        return self.work / f"bucket-{self.number:05d}-{split}.parquet"


def reduce_bucket(task: BucketTask, skip: Skip = NOTHING, beat: Beat = no_beat) -> None:
    """Keeps one of each window of a bucket.

    A window that stands in songs of several splits goes to train if one of them is there, else to the split of its
    least song; its source is the least (file, instrument, bar) in that split.
    """
    if task.counts.exists():
        return
    with np.load(task.work / "split.npz") as stored:
        group, split_of = stored["group"], stored["split"]
    columns = read_bucket(task.chunks, task.number, task.buckets, task.settings)
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
    for number in range(1, len(SPLITS)):  # windows of a split's songs that train has too
        moved[number] = len(np.unique(first[(split == number) & (target != number)]))
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
        with replacing(task.part(name), concurrent=True) as temporary:
            pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
    counts = {
        "rows": len(first),
        "unique": np.bincount(target[keep], minlength=len(SPLITS)).tolist(),
        "moved": moved.tolist(),
        "onsets": onsets,
        "files": np.unique(file[keep]).tolist(),
        "by_file": np.stack(np.unique(file[keep], return_counts=True)).tolist(),
    }
    with replacing(task.counts, concurrent=True) as temporary:
        temporary.write_text(json.dumps(counts))


def _onsets(tokens: np.ndarray, settings: DatasetSettings) -> list[int]:
    streams = len(settings.tokens.vocab_sizes)
    drums = {"drums": [0], "trio": [2], "trio-90": [2]}.get(settings.representation, [])
    return [int(np.count_nonzero(tokens[:, s::streams] >= (1 if s in drums else FIRST_PITCH))) for s in range(streams)]


def schema(settings: DatasetSettings) -> pa.Schema:
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


def _table(
    tokens: np.ndarray,
    names: pa.Array,
    values: dict[str, np.ndarray],
    split: str,
    group: np.ndarray,
    settings: DatasetSettings,
) -> pa.Table:
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
        schema=schema(settings),
    )
