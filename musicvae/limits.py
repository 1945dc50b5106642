"""What may be asked of a model: checked before one is loaded, and again by whoever calls it in Python."""

import math
import re
from pathlib import Path

HELP = "musicvae train --help"
MOST = 10_000  # windows written in one call
MOST_ROUNDS = 100  # of pseudo-Gibbs sampling


def checked_number(n: int) -> int:
    """How many pieces of music. Raises ValueError for none, or too many."""
    if not 1 <= n <= MOST:
        raise ValueError(f"{n} pieces of music; it must be from 1 to {MOST:,}")
    return n


def checked_seed(seed: int) -> int:
    if not 0 <= seed < 2**63:
        raise ValueError(f"a seed of {seed}; it must be 0 or more, and below 2^63")
    return seed


def checked_temperature(temperature: float) -> float:
    if not 0 <= temperature < math.inf:
        raise ValueError(
            f"a temperature of {temperature:g}; it must be 0 or more (1 is the model's own, 0 the most likely)"
        )
    return temperature


def checked_rounds(rounds: int) -> int:
    if not 0 <= rounds <= MOST_ROUNDS:
        raise ValueError(f"{rounds} rounds; it must be from 0 (z as it is drawn) to {MOST_ROUNDS}")
    return rounds


def checked_variation(amount: float) -> float:
    """How far a variation goes from its song."""
    if not 0 <= amount <= 1:
        raise ValueError(f"an amount of {amount:g}; it must be from 0 (the song itself) to 1 (any other)")
    return amount


def checked_shift(name: str, amount: float) -> float:
    """How much of an attribute vector is added."""
    if not math.isfinite(amount):
        raise ValueError(f"{name}={amount}; an amount is a number such as 1.5 or -1")
    return amount


def seconds(text: str) -> float:
    """ "90s", "10m", "2h" or plain seconds -> seconds. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise ValueError(f"--max-time {text!r}; write 90s, 10m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def checked_steps(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"steps is {steps!r}; must be an integer of at least 1")
    return steps


def checked_samples(samples: int) -> int:
    if samples < 0:
        raise ValueError(f"--samples {samples}; it must be 0 (none) or more")
    return samples


def checked_windows(n: int) -> int:
    if n < 1:
        raise ValueError(f"{n} windows; must be at least 1")
    return n


def checked_preset(name: str) -> str:
    """A name that could be a preset's; which there are, presets.py knows."""
    if not re.fullmatch(r"(melody|drums|trio)(-\d+){1,2}(-flat)?", name):
        raise ValueError(f"no preset {name!r}; known are such as melody-2, drums-16 and trio-16, see: {HELP}")
    return name


def checked_threads(number: int) -> int:
    if number < 0:
        raise ValueError(f"--threads {number}; it must be 0 (one for each core) or more")
    return number


def check_free(folder: Path, option: str, overwrite: bool) -> None:
    """ValueError for a file, and for a folder that holds something already."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; {option} needs a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} holds files already. Give another {option}, or --overwrite")


def checked_device(name: str) -> str:
    """The name of a device that torch may know; whether it is there, torch alone can say."""
    if not re.fullmatch(r"auto|(cpu|cuda|mps)(:\d+)?", name):
        raise ValueError(f"the device {name!r} cannot be used here (there is no such kind); use cpu, or auto")
    return name
