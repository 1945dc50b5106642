"""How fast MIDI becomes unique windows, and how much memory that takes.

    python benchmarks/dataset.py [FOLDER]                 speed, over all files of a folder (../shared/corpora)
    python benchmarks/dataset.py [FOLDER] --against DIR   the same beside another checkout, by turns
    python benchmarks/dataset.py [FOLDER] --memory 400    peak memory of builds of 400 files, 4 and 16 times as many

Speed: one worker, in this process, from opening the file to the unique 2-bar melodies of each song, without grouping;
beside it, only parsing the same files with symusic (`Score.from_file`). Files are in the page cache. Both are measured
by turns, a chunk of 64 files at a time, so that whatever else the machine does meets both; the least of three rounds
counts.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

CORPORA = Path(__file__).parent.parent.parent / "shared" / "corpora"


def speed(folder: Path, rounds: int, share: int) -> None:
    """Prints files a second and the ratio, by the clock and by the processor's time."""
    from musicvae.music.mapping import DatasetSettings
    from musicvae.music.sources import chunks, list_sources

    sources = list_sources([folder])
    portions = [[sources[i] for i in chunk] for chunk in chunks(sources)][::share]
    plain = [[s for s in portion if not s.member and not s.problem] for portion in portions]
    settings = DatasetSettings("melody", 2)
    windows = sum(to_windows(portion, settings) for portion in portions)
    least = {"parse": [0.0, 0.0], "windows": [0.0, 0.0]}
    for portion, files in zip(portions, plain):
        measured: dict[str, list[tuple[float, float]]] = {"parse": [], "windows": []}
        for _ in range(rounds):
            measured["parse"].append(timed(only_parse, files))
            measured["windows"].append(timed(to_windows, portion, settings))
        for name, times in measured.items():
            for i in range(2):
                least[name][i] += min(t[i] for t in times)
    count = sum(map(len, portions))
    print(f"{count:,} files, {windows:,} windows (each once a song)")
    for i, clock in enumerate(("wall clock", "processor")):
        parse, ours = least["parse"][i], least["windows"][i]
        print(
            f"{clock}: only parsing {parse:.2f} s ({count / parse:,.0f} files/s), to unique windows {ours:.2f} s "
            f"({count / ours:,.0f} files/s), ratio {parse / ours:.2f}"
        )


def against(folder: Path, other: Path, rounds: int, share: int) -> None:
    """Prints the processor's time of this checkout and of another for the same files, the least of several turns."""
    least = dict.fromkeys((Path(__file__).parent.parent, other.resolve()), float("inf"))
    command = [sys.executable, __file__, str(folder), "--rounds", "1", "--share", str(share)]
    for _ in range(rounds):
        for checkout in least:
            environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            seconds = re.search(r"processor: .* to unique windows ([\d.]+) s", out)
            assert seconds, out
            least[checkout] = min(least[checkout], float(seconds[1]))
    ours, theirs = least.values()
    print(
        f"processor: {ours:.2f} s, the other checkout {theirs:.2f} s; files a second {theirs / ours:.2f} of the other's"
    )


def timed(function, *given) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    function(*given)
    return time.perf_counter() - wall, time.process_time() - processor


def only_parse(files: list) -> None:
    from symusic import Score

    for source in files:
        with suppress(Exception):  # a damaged file costs its time too
            Score.from_file(source.path)


def to_windows(portion: list, settings) -> int:
    """What a worker does with a chunk, but for signatures and writing; returns how many windows it found."""
    import numpy as np

    from musicvae.music.mapping import FileResult, read_portions, unique_rows
    from musicvae.music.windows import find_windows

    found = 0
    for songs, index in read_portions(portion, [FileResult()] * len(portion)):
        if songs:
            rows = unique_rows(songs, find_windows(songs, settings.tokens, settings.bars), np.array(index))
            found += len(rows.key)
    return found


def memory(folder: Path, count: int, times: list[int]) -> None:
    """Prints the peak memory of fresh builds of `count` files under so many names each."""
    files = sorted(p for p in folder.rglob("*.mid"))
    files = random.Random(0).sample(files, min(count, len(files)))
    for n in times:
        with tempfile.TemporaryDirectory() as temporary:
            music = Path(temporary) / "music"
            for copy in range(n):
                (music / f"{copy:02d}").mkdir(parents=True)
                for i, path in enumerate(files):
                    (music / f"{copy:02d}" / f"{i:05d}.mid").symlink_to(path.resolve())
            command = [sys.executable, __file__, str(music), "--one-build", str(Path(temporary) / "out")]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(f"{n:2d} x {len(files):,} files: {out.strip()}", flush=True)


def one_build(folder: Path, out: Path) -> None:
    from musicvae.music import dataset

    dataset.map_chunk, dataset.reduce_bucket = measured_map, measured_reduce
    start = time.time()
    report = dataset.build_dataset([folder], dataset.DatasetSettings("melody", 2), out, workers=1).report
    peaks = [int(line) for line in peaks_of(folder).read_text().split()]
    print(
        f"{report['windows']['unique_in_their_song']:,} windows, {report['windows']['unique']:,} unique; peak memory "
        f"{max(peaks)} MB in a worker, {peak()} MB in the parent; {time.time() - start:.0f} s"
    )


def measured_map(task, skip, beat) -> None:
    from musicvae.music.mapping import map_chunk

    map_chunk(task, skip, beat)
    note_peak(Path(task.sources[0].path).parent.parent)


def measured_reduce(task, skip, beat) -> None:
    from musicvae.music.reducing import reduce_bucket

    reduce_bucket(task, skip, beat)
    note_peak(task.work.parent / "music")


def peaks_of(folder: Path) -> Path:
    return folder / "peaks.txt"


def note_peak(folder: Path) -> None:
    with peaks_of(folder).open("a") as file:
        file.write(f"{peak()}\n")


def peak() -> int:
    """The most memory that this process has had, in MB. (What getrusage says of a new process is its parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, nargs="?", default=CORPORA)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--share", type=int, default=1, help="take only every so-manieth chunk of files")
    words.add_argument("--against", type=Path, metavar="DIR", help="another checkout")
    words.add_argument("--memory", type=int, metavar="FILES")
    words.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    words.add_argument("--one-build", type=Path, help=argparse.SUPPRESS)
    given = words.parse_args()
    if not given.folder.is_dir():
        sys.exit(f"{given.folder}: no such folder. Give a folder of MIDI files")
    if given.one_build:
        one_build(given.folder, given.one_build)
    elif given.against:
        against(given.folder, given.against, given.rounds, given.share)
    elif given.memory:
        memory(given.folder, given.memory, given.times)
    else:
        speed(given.folder, given.rounds, given.share)


if __name__ == "__main__":
    main()
