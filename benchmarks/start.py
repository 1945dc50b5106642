"""From the shell to files on disk: processor time and memory of the commands, beside the import of torch.

    python benchmarks/start.py
    python benchmarks/start.py --before ../old                # also the commands of another checkout

Ratios of one run say more than seconds: the machine may be busy.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import tyro

HERE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Options:
    """What is measured: the least of several repetitions."""

    models: tuple[str, ...] = ("melody-2", "melody-16")
    number: int = 4  # of files
    before: Path | None = None  # another checkout
    repetitions: int = 5


class Cost(NamedTuple):
    wall: float  # seconds
    processor: float  # seconds, user and system
    memory: float  # MB at most


def least(command: list[str], repetitions: int, folder: Path = HERE) -> Cost:
    """The least of each over several runs of a command, in a checkout."""
    found = []
    for _ in range(repetitions):
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
        found.append((time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
    return Cost(*(min(column) for column in zip(*found)))


def commands(options: Options, out: Path) -> dict[str, list[str]]:
    musicvae = [sys.executable, "-m", "musicvae.cli"]
    shell = {"musicvae --help": [*musicvae, "--help"]}
    for model in options.models:
        words = ["sample", model, "-n", str(options.number), "--out", str(out), "--overwrite"]
        shell[f"musicvae sample {model} -n {options.number}"] = [*musicvae, *words]
    return shell


def main(options: Options) -> None:
    python = [sys.executable, "-c"]
    print(f"{'':34} {'wall s':>8} {'processor s':>12} {'MB':>6} {'ratio':>6}")
    references = {
        f"import {name}": least([*python, f"import {name}"], options.repetitions) for name in ("numpy", "torch")
    }
    for name, cost in references.items():
        print(f"{name:34} {cost.wall:8.2f} {cost.processor:12.2f} {cost.memory:6.0f}")
    with tempfile.TemporaryDirectory() as folder:
        for name, command in commands(options, Path(folder)).items():
            reference = least(command, options.repetitions, options.before) if options.before else None
            cost = least(command, options.repetitions)
            ratio = f"{reference.processor / cost.processor:6.1f}" if reference else ""
            print(f"{name:34} {cost.wall:8.2f} {cost.processor:12.2f} {cost.memory:6.0f} {ratio}")
            if reference:
                print(f"{'  before':34} {reference.wall:8.2f} {reference.processor:12.2f} {reference.memory:6.0f}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
