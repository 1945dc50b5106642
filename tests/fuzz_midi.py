"""Damaged MIDI files in numbers: every one must give a song or a reason, in time and in bounds.

    python tests/fuzz_midi.py 20000 --seed 1 --sources FOLDER

reads mutations of real files (bit flips, truncations, spliced chunks) one by one, then builds a data set of them all.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SLOW, LARGE = 2.0, 500 << 20  # seconds of a file, bytes of memory


def mutated(seeds: list[bytes], number: int, seed: int = 0) -> bytes:
    """The damaged file of that number: the same for the same seeds."""
    rng = random.Random(f"{seed}/{number}")
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 4])):
        damage = rng.choice([flip, flip, write, cut, drop, repeat, splice, splice, number_bomb, status])
        damage(data, rng, seeds)
    if rng.random() < 0.5:
        mend(data)
    return bytes(data)


def mend(data: bytearray) -> None:
    """Writes a good header and the true lengths of tracks, so that the damage inside is reached."""
    data[:14] = bytes.fromhex("4d546864000000060001000101e0")
    starts = [i for i in range(14, len(data) - 8) if data.startswith(b"MTrk", i)]
    for start, following in zip(starts, [*starts[1:], len(data)]):
        data[start + 4 : start + 8] = max(following - start - 8, 0).to_bytes(4)


def flip(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Turns single bits over."""
    for _ in range(rng.choice([1, 1, 3, 20, 200])):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def write(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Overwrites a run with one byte."""
    at = place(data, rng)
    length = rng.choice([1, 4, 30])
    data[at : at + length] = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])]) * length


def cut(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Loses the end."""
    del data[place(data, rng) :]


def drop(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Loses something in the middle."""
    at = place(data, rng)
    del data[at : at + rng.choice([1, 2, 7, 300])]


def repeat(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Says something many times."""
    at = place(data, rng)
    data[at:at] = data[at : at + rng.choice([1, 4, 60])] * rng.choice([1, 2, 50])


def splice(data: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    """Puts a piece of another file in, a whole track for choice."""
    other = rng.choice(seeds)
    tracks = [i for i in range(len(other)) if other.startswith(b"MTrk", i)]
    start = rng.choice(tracks) if tracks and rng.random() < 0.7 else rng.randrange(len(other) + 1)
    end = min(len(other), start + rng.choice([8, 100, 5000]))
    mine = [i for i in range(len(data)) if data.startswith(b"MTrk", i)]
    at = rng.choice(mine) if mine and rng.random() < 0.7 else place(data, rng)
    data[at:at] = other[start:end]


def number_bomb(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Makes a length, a time or a division enormous."""
    at = rng.choice([4, 8, 10, 12, place(data, rng)])
    bomb = rng.choice(
        [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\x80\x00", b"\x00\x01", b"\x7f\xff"]
    )
    data[at : at + len(bomb)] = bomb


def status(data: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Puts an event in that says something odd: signatures, tempos, program changes, all-notes-off, sysex."""
    at = place(data, rng)
    event = rng.choice(
        [
            "00ff580403020818",
            "00ff58040000",
            "00ff5103000000",
            "00ff5103ffffff",
            "00c0e6",
            "00b07b00",
            "00f07f",
            "8fffff7f903c64",
        ]
    )
    data[at:at] = bytes.fromhex(event) * rng.choice([1, 1, 30])


def place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1) if rng.random() < 0.8 and data else min(len(data), rng.randrange(40))


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def read_all(seeds: list[bytes], count: int, seed: int) -> dict:
    """Reads mutations in this process and finds their windows; returns counts, the slowest, and the memory."""
    from musicvae.music.midi import Song
    from musicvae.music.reasons import MidiError
    from musicvae.music.representation import Drums, Melody, Trio
    from musicvae.music.windows import find_windows

    outcomes: Counter[str] = Counter()
    slowest, slowest_number, before = 0.0, -1, peak()
    for number in range(count):
        data = mutated(seeds, number, seed)
        start = time.process_time()
        try:
            song = Song.read(data)
            for kind in (Melody(), Drums(), Trio()):
                find_windows([song], kind, 2 if number % 2 else 16)
            outcomes["song"] += 1
        except MidiError as error:
            outcomes[error.reason] += 1
        seconds = time.process_time() - start
        if seconds > slowest:
            slowest, slowest_number = seconds, number
    return {
        "outcomes": dict(outcomes.most_common()),
        "slowest_seconds": round(slowest, 3),
        "slowest_number": slowest_number,
        "memory_before_mb": before >> 20,
        "memory_mb": peak() >> 20,
    }


def build_all(seeds: list[bytes], count: int, seed: int, folder: Path, workers: int = 1) -> dict:
    """Builds a data set of mutations; returns its report. Every file must be in it, and none crashed or hung."""
    from musicvae.music.dataset import DatasetSettings, build_dataset

    damaged = folder / "damaged"
    for number in range(count):
        path = damaged / f"{number // 1000:03d}" / f"{number:06d}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutated(seeds, number, seed))
    return build_dataset([damaged], DatasetSettings("melody", 2), folder / "out", workers=workers).report


def check(result: dict, report: dict, count: int) -> list[str]:
    """What is wrong with a campaign, in words."""
    rejected = {reason: r["files"] for reason, r in report["rejected"].items()}
    wrong = []
    if sum(result["outcomes"].values()) != count:
        wrong.append(f"{count - sum(result['outcomes'].values())} files have no outcome")
    if result["slowest_seconds"] > SLOW:
        wrong.append(f"file {result['slowest_number']} took {result['slowest_seconds']} s")
    if result["memory_mb"] << 20 > LARGE:
        wrong.append(f"reading took {result['memory_mb']} MB")
    if report["files"]["read"] != count or report["files"]["used"] + sum(rejected.values()) != count:
        wrong.append(f"the report has {report['files']} and {rejected} of {count} files")
    wrong += [f"{rejected[r]} files {r}" for r in ("crashed", "hung", "internal") if r in rejected]
    return wrong


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("count", type=int)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--sources", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "corpora")
    words.add_argument("--workers", type=int, default=1)
    given = words.parse_args()
    real = [p for p in sorted(given.sources.glob("**/*.mid")) if p.stat().st_size < 60_000]
    seeds = [p.read_bytes() for p in random.Random(given.seed).sample(real, min(600, len(real)))]
    start = time.time()
    result = read_all(seeds, given.count, given.seed)
    print(json.dumps(result, indent=1), f"{time.time() - start:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = build_all(seeds, given.count, given.seed, Path(folder), given.workers)
    print(json.dumps(report["files"]), {reason: r["files"] for reason, r in report["rejected"].items()})
    print(json.dumps(report["windows"]), f"{time.time() - start:.0f} s")
    wrong = check(result, report, given.count)
    print(
        "\n".join(wrong) or f"{given.count} damaged files: all in the report, no crash, no hang, none slow, none large"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
