"""From the shell to files on disk: how long the commands take to start, import and work, the import of torch aside.

python benchmarks/start.py
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Options:
    """What is measured: the least of several repetitions."""

    model: str = "melody-2"
    repetitions: int = 5


def least(command: list[str], repetitions: int) -> tuple[float, float]:
    """Seconds by the clock and of processor time, each the least."""
    walls, processors = [], []
    for _ in range(repetitions):
        began, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        walls.append(time.perf_counter() - began)
        processors.append(after.children_user - before.children_user + after.children_system - before.children_system)
    return min(walls), min(processors)


def main(options: Options) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    musicvae = [sys.executable, "-m", "musicvae.cli"]
    print(f"{'':24} {'wall s':>8} {'processor s':>12}")
    torch = least([sys.executable, "-c", "import torch"], options.repetitions)
    print(f"{'import torch':24} {torch[0]:8.2f} {torch[1]:12.2f}")
    shown = least([*musicvae, "--help"], options.repetitions)
    print(f"{'musicvae --help':24} {shown[0]:8.2f} {shown[1]:12.2f}")
    with tempfile.TemporaryDirectory() as folder:
        sample = [*musicvae, "sample", options.model, "-n", "8", "--out", str(Path(folder) / "out"), "--overwrite"]
        whole = least(sample, options.repetitions)
    print(f"{'musicvae sample, 8 files':24} {whole[0]:8.2f} {whole[1]:12.2f}")
    print(f"{'  without import torch':24} {whole[0] - torch[0]:8.2f} {whole[1] - torch[1]:12.2f}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
