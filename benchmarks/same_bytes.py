"""Whether two checkouts write the same bytes: every command, every shipped model, same seeds.

    python benchmarks/same_bytes.py OLD [NEW] [--only WORD ...]

OLD and NEW (by default this one) are folders with a `musicvae` package each. Both run the same commands in folders of
their own, on songs that OLD samples first, with one thread. What is compared: files by their bytes (arrays of .npz and
columns of Parquet by value, as their containers hold times and versions), and what is printed. Exits with 1 if
anything differs.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

MODELS = ("melody-2", "drums-2", "melody-16", "drums-16", "trio-16")
ROOT = Path(__file__).parent.parent


EACH_MODEL = """
sample MODEL -n 4 --seed 3 --out sample-MODEL
sample MODEL -n 2 --temperature 1 --out sample1-MODEL
reconstruct MODEL songs/MODEL/1.mid --out reconstruct-MODEL
encode MODEL songs/MODEL/1.mid songs/MODEL/2.mid --out z-MODEL.npz
decode MODEL z-MODEL.npz -n 2 --out decode-MODEL
interpolate MODEL songs/MODEL/1.mid songs/MODEL/2.mid --steps 5 --out interpolate-MODEL
average MODEL songs/MODEL/1.mid songs/MODEL/2.mid --out average-MODEL
vary MODEL songs/MODEL/1.mid -n 3 --out vary-MODEL
grid MODEL songs/MODEL/1.mid songs/MODEL/2.mid songs/MODEL/3.mid songs/MODEL/4.mid --size 3 --out grid-MODEL
attribute list MODEL
inspect songs/MODEL/1.mid --json
"""
ONCE = """
models
--help
attribute apply melody-2 songs/melody-2/1.mid --set note-density=+0.5 --out apply
attribute sweep melody-2 songs/melody-2/1.mid --attribute note-density --out sweep
attribute swap melody-2 songs/melody-2/1.mid --from note-density --to average-pitch --out swap
sample melody-2 -n 2 --picture svg --out picture
sample drums-2 -n 1 --sound synth --out sound
export melody-2 --magenta-js js
dataset build songs --representation melody --bars 2 --out data
dataset info data
train melody-2 data --out run --steps 12 --set training.batch_size=4 model.encoder_units=16 training.precision=fp32
sample run -n 2 --out sample-run
evaluate melody-2 data --windows 16 --json
"""


def commands() -> list[str]:
    """The command lines. Paths are relative to the folder in which they run; songs/ holds the input."""
    each = [line.replace("MODEL", model) for model in MODELS for line in EACH_MODEL.split("\n") if line]
    return [*each, *(line for line in ONCE.split("\n") if line)]


def run(checkout: Path, folder: Path, words: list[str]) -> str:
    """What a command of a checkout prints and its exit code, without paths and times."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    command = [sys.executable, "-P", "-m", "musicvae.cli", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    printed = f"{done.stdout}{done.stderr}exit code {done.returncode}"
    return re.sub(r"\d+(\.\d+)? (s|windows/s|examples/s)\b", "TIME", printed)


def contents(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder."""
    return {str(p.relative_to(folder)): digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def digest(path: Path) -> str:
    if path.suffix == ".npz":
        import numpy as np

        with np.load(path) as arrays:
            content = b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays.files))
    elif path.suffix == ".parquet":
        import pyarrow.parquet as pq

        content = repr(pq.read_table(path).to_pydict()).encode()
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def volatile(path: str) -> bool:
    """Whether a file holds times, or is only of use to the version that wrote it."""
    name = path.rsplit("/", 1)[-1]
    return name in ("training.pt", "metrics.jsonl", "config.json") or "tfevents" in name or name.endswith(".npy")


def make_songs(checkout: Path, folder: Path) -> None:
    for model in MODELS:
        out = folder / "songs" / model
        run(checkout, folder, ["sample", model, "-n", "12", "--seed", "1", "--out", str(out)])
        for i, path in enumerate(sorted(out.glob("*.mid")), 1):
            path.rename(out / f"{i}.mid")


def first_difference(old: str, new: str) -> str:
    pairs = zip_longest(old.splitlines(), new.splitlines(), fillvalue="")
    a, b = next(pair for pair in pairs if pair[0] != pair[1])
    return f"    old: {a[:150]}\n    new: {b[:150]}"


def compare(command: str, sides: list[tuple[Path, Path]]) -> bool:
    """Runs a command on both sides, prints what differs, and returns whether anything does."""
    before = [contents(folder) for _, folder in sides]
    said = [run(checkout, folder, command.split()) for checkout, folder in sides]
    after = [contents(folder) for _, folder in sides]
    old, new = ({p: d for p, d in a.items() if b.get(p) != d and not volatile(p)} for a, b in zip(after, before))
    changed = sorted(p for p in old.keys() | new.keys() if old.get(p) != new.get(p))
    same = not changed and said[0] == said[1]
    verdict = "same" if same else f"DIFFERS in {', '.join([*changed[:3], *(['words'] if said[0] != said[1] else [])])}"
    if not said[0].endswith("exit code 0"):
        verdict = f"FAILS in the old checkout: {said[0].splitlines()[-2]}"
    print(f"{command[:70]:70} {len(old):3d} files  {verdict}", flush=True)
    if said[0] != said[1]:
        print(first_difference(*said))
    return verdict != "same"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=ROOT)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="commands that hold one of these words")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sides = [(given.old.resolve(), Path(temporary) / "old"), (given.new.resolve(), Path(temporary) / "new")]
        for _, folder in sides:
            folder.mkdir()
        make_songs(*sides[0])
        shutil.copytree(sides[0][1] / "songs", sides[1][1] / "songs")
        chosen = [c for c in commands() if any(word in c for word in given.only)]
        differ = sum(compare(command, sides) for command in chosen)
    print(f"{differ} of {len(chosen)} commands differ")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
