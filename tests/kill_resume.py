"""Builds that are killed again and again end with the same bytes.

    python tests/kill_resume.py FOLDER --kills 20 --workers 2                 of `musicvae dataset build`
    python tests/kill_resume.py --train melody-2 DATASET --kills 20           of `musicvae train`

A command is run once without a kill. Then it is begun with another --out and killed at a random moment (SIGKILL, now
with its workers, now without), begun again, until it has been killed so often, and at last left to end.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MUSICVAE = [sys.executable, "-m", "musicvae.cli"]


def digests(folder: Path, pattern: str = "*") -> dict[str, str]:
    """sha256 of every file of that name in a folder."""
    files = [p for p in sorted(folder.rglob(pattern)) if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def run(command: list[str], kill_after: float | None = None, whole_group: bool = True) -> bool:
    """Runs a command, killed after some seconds with or without its workers; returns whether it ended by itself."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        errors = process.communicate(timeout=kill_after)[1]
    except subprocess.TimeoutExpired:
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)  # workers whose parent was killed must end by themselves, or this fails
        return False
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{errors.decode()}")
    return True


def killed_to_the_end(
    command: list[str], out: Path, kills: int, seconds: float, rng: random.Random, whole: Callable[[Path], bool]
) -> int:
    """Begins a command until it has been killed `kills` times, each time within so many seconds; then lets it end.

    Returns how often it was quicker than its killer, and begun anew.
    """
    late = 0
    while kills:
        if whole(out):  # killed when all was done
            shutil.rmtree(out)
        if run(command, rng.uniform(0.2, seconds), whole_group=rng.random() < 0.7):
            late += 1
            shutil.rmtree(out)
        else:
            kills -= 1
    if not whole(out):
        run(command)
    return late


def dataset_command(folders: list[Path], out: Path, workers: int, representation: str = "melody") -> list[str]:
    given = ["--representation", representation, "--bars", "2", "--workers", str(workers), "--out", str(out)]
    return [*MUSICVAE, "dataset", "build", *map(str, folders), *given]


def train_command(preset: str, dataset: Path, out: Path, steps: int, settings: list[str]) -> list[str]:
    given = ["--steps", str(steps), "--device", "cpu", "--threads", "1", *(["--set", *settings] if settings else [])]
    return [*MUSICVAE, "train", preset, str(dataset), "--out", str(out), *given]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("sources", type=Path, nargs="+")
    words.add_argument("--train", metavar="PRESET", help="kill trainings on the data set given")
    words.add_argument("--steps", type=int, default=200)
    words.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the training")
    words.add_argument("--kills", type=int, default=20)
    words.add_argument("--workers", type=int, default=2)
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    kept = "*.safetensors" if given.train else "*"  # the rest of a run says when things happened
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"

        def command(out: Path) -> list[str]:
            if given.train:
                return train_command(given.train, given.sources[0], out, given.steps, given.set)
            return dataset_command(given.sources, out, given.workers)

        start = time.time()
        run(command(whole))
        seconds = time.time() - start
        print(f"without a kill: {seconds:.1f} s", flush=True)
        done = (lambda _: False) if given.train else Path.exists
        rng = random.Random(given.seed)
        late = killed_to_the_end(command(broken), broken, given.kills, seconds, rng, done)
        one, other = digests(whole, kept), digests(broken, kept)
        different = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        print(f"{given.kills} kills, {late} times too late; {len(one)} files, different: {different or 'none'}")
        left = [p.name for p in Path(folder).iterdir() if p.name not in ("whole", "broken")]
        print(f"left behind: {left or 'nothing'}")
        sys.exit(bool(different))


if __name__ == "__main__":
    main()
