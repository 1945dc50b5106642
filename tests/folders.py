"""Folders of little tunes, and the data sets built from them."""

import random
import tarfile
import zipfile
from pathlib import Path

import pytest
from smf import file, notes, track

from musicvae.music import dataset as dataset_module
from musicvae.music.dataset import Dataset, DatasetSettings, build_dataset
from musicvae.music.grouping import SPLITS
from musicvae.music.workers import Done

MELODY = DatasetSettings("melody", 2)


def tune(seed: int, bars: int = 8, up: int = 0) -> bytes:
    """A walk of quavers, unlike that of any other seed."""
    rng = random.Random(seed)
    pitch, line = 60, []
    for step in range(0, bars * 16, 2):
        pitch = min(max(pitch + rng.choice([-4, -3, -2, -1, 1, 2, 3, 4]), 40), 90)
        line.append((step, pitch + up, 2))
    return file(track(*notes(*line)))


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tunes(count: int, first: int = 0, bars: int = 8) -> dict[str, bytes]:
    return {f"{n % 3}/tune-{n:03d}.mid": tune(n, bars) for n in range(first, first + count)}


def table(data: Dataset) -> dict[str, list]:
    """All rows of all splits, by column."""
    rows = [data.rows(split) for split in SPLITS]
    return {name: [x for r in rows for x in r[name].to_pylist()] for name in rows[0].column_names}


def in_this_process(work, tasks, workers):
    """What `run_tasks` does, without the second that each process takes to start."""
    for task in tasks:
        yield Done(task, work(task))


def build(*given, **more) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_module, "run_tasks", in_this_process)
        return build_dataset(*given, **more)


def pack(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    inside = sorted(folder.rglob("*.mid"), key=lambda p: p.name[::-1])  # in another order than that of names
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in inside:
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(target, "w:gz" if target.suffix == ".gz" else "w") as archive:
            for path in inside:
                archive.add(path, path.relative_to(folder))
