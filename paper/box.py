"""What is in the box, from the data sets: every command that made it, in order, each only if it was not done before.

    python paper/box.py data runs --teacher TEACHER
    python paper/box.py data runs --only drums-2 drums-16
    python paper/box.py data runs --list

TEACHER is the original's `mel_2bar_small_tfjs`, which melody-2 is taught by; the 16-bar models with melodies begin with
melody-2. What is begun and done is noted in RUNS, and trainings that were stopped go on from their last checkpoint. It
takes about fifteen hours of one core; `--short 100` takes a hundredth of everything but the priors, to see that it
runs.

Weights do not come out bit for bit: some of this was trained with older versions of the code; README.md and comments
say where the history took a detour.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
MODELS = ("melody-2", "drums-2", "melody-16", "melody-16-flat", "drums-16", "trio-16")
PLAYED = ["--corpora", "groove", "freedoom", "easyrpg", "--times", "4"]
LESSON = {"batch_size": 64, "learning_rate": 7e-4, "beta": 0.1, "beta_schedule": "constant", "token_dropout": 0.2}
SETTINGS = {"learning_rate": 1e-3, "beta": 0.1, "beta_schedule": "constant", "token_dropout": 0.3}
AGAIN = {"learning_rate": 4e-4, "beta": 0.1, "beta_schedule": "constant", "scheduled_sampling": 0.5}
LEAST = 600  # windows
# The others begin anew, without what they left half done.
RESUMED = ("teach.py", "levels.py", "train", "train.py")


class Step(NamedTuple):
    """One command. `out` is what it makes, `taken` what it needs that other steps make."""

    model: str
    out: str
    taken: tuple[str, ...]
    words: list[str]


class Recipe:
    """Collects the steps of one model after another; names of runs and data sets stand for their folders."""

    def __init__(self, data: Path, runs: Path, teacher: Path, short: int):
        self.data, self.runs, self.teacher, self.short = data, runs, teacher, short
        self.model, self.collected = "", list[Step]()

    def add(self, out: str, taken: tuple[str, ...], *words: str) -> str:
        """A step whose words are a script of this folder, or a command of musicvae, and its arguments."""
        at = words.index("--windows") + 1 if "--windows" in words else None
        chosen = [str(self.fewer(int(word))) if place == at else word for place, word in enumerate(words)]
        self.collected.append(Step(self.model, out, taken, chosen))
        return out

    def fewer(self, windows: int) -> int:
        """More than z has numbers, which `whiten.py` asks for."""
        return max(windows // self.short, min(windows, LEAST))

    def steps(self, number: int) -> tuple[str, str]:
        return "--steps", str(max(number // self.short, 2))

    def at(self, name: str) -> str:
        """The folder of a run or a data set."""
        return str((self.data if name.startswith("data/") else self.runs) / name.removeprefix("data/"))

    def repeat(self, data: str, out: str, *words: str) -> str:
        return self.add(out, (data,), "repeat.py", self.at(data), self.at(out), *words)

    def parts(self, out: str, *words: str) -> str:
        others = ("data/trio-16-played", "data/melody-16", "data/drums-16-played")
        trios, melodies, drums = map(self.at, others)
        return self.add(out, others, "parts.py", trios, self.at(out), "--melodies", melodies, "--drums", drums, *words)

    def train(self, preset: str, data: str, start: str, out: str, steps: int, **settings: float | str) -> str:
        values = [f"training.{key}={value}" for key, value in settings.items()]
        words = ["train", preset, self.at(data), "--from", self.at(start), "--out", self.at(out), *self.steps(steps)]
        return self.add(out, (data, start), *words, "--threads", "1", "--set", *values)

    def teach(self, what: str, out: str, steps: int, start: str = "", data: str = "") -> str:
        words = ["teach.py", what, self.at("teacher"), self.at("dreams.npz"), self.at(out), *self.steps(steps)]
        words += ["--start", self.at(start)] if start else []
        words += ["--data", self.at(data)] if data else []
        return self.add(out, tuple(filter(None, ("teacher", "dreams.npz", start, data))), *words)

    def level(self, which: str, start: str, data: str, out: str, steps: int, *words: str) -> str:
        words = ("levels.py", which, self.at(start), self.at(data), self.at(out), *self.steps(steps), *words)
        return self.add(out, (start, data), *words)

    def whiten(self, run: str, data: str, out: str, *words: str) -> str:
        words = words if "--windows" in words else (*words, "--windows", "16384")
        return self.add(out, (run, data), "whiten.py", self.at(run), self.at(data), self.at(out), *words)

    def rounds(self, start: str, data: str, out: str, *rounds: tuple[int, int], windows: int) -> str:
        """Lessons of windows, after each of which z is made white: its bits say more then (LOG.md)."""
        for number, (steps, bits) in enumerate(rounds, 1):
            run = self.level("windows", start, data, f"{out}-{number}", steps, "--free-bits", str(bits))
            start = self.whiten(run, data, f"{run}-white", "--windows", str(windows))
        return start

    def prior(self, run: str, data: str, steps: int, *words: str) -> None:
        if self.short > 1:
            return  # there is nothing that it could learn, and it says so
        script = ("prior.py", self.at(run), self.at(data), *self.steps(steps))
        self.add(f"{run}/prior.safetensors", (run, data), *script, *words)

    # --- one model after another ------------------------------------------------------------------------------------

    def melody_2(self) -> None:
        data = "data/melody-90"
        self.add("teacher", (), "import", str(self.teacher), "--out", self.at("teacher"))
        dream = ("teach.py", "dream", self.at("teacher"), self.at("dreams.npz"), "--dreams", str(256_000 // self.short))
        self.add("dreams.npz", ("teacher",), *dream)
        asleep = self.teach("sleep", "melody-2-asleep", 1400)  # 1,100 and 300
        taught = self.teach("wake", "melody-2-taught", 2000, asleep, data)  # 1,300 and 700
        first = self.train("melody-90", data, taught, "melody-2-first", 3600, **LESSON, free_bits=100)
        white = self.whiten(first, data, "melody-2-first-white", "--keep", "96")
        second = self.train("melody-90", data, white, "melody-2-second", 2500, **LESSON, free_bits=160)
        run = self.train("melody-90", data, second, "melody-2", 1350, **AGAIN | {"batch_size": 64}, free_bits=160)
        self.prior(self.whiten(run, data, "melody-2-white"), data, 4000, "--units", "96", "--windows", "50000")

    def drums_2(self) -> None:
        played = self.repeat("data/drums-2", "data/drums-2-played", *PLAYED)
        words = ("train.py", str(self.data), str(self.runs / "plain"), "--only", "drums-2", "--threads", "1")
        minutes = f"{50 * 60 // self.short}s"
        self.add("plain/drums-2", ("data/drums-2",), *words, "--max-time", minutes, "--set", "training.free_bits=100")
        mixed = self.train("drums-2", "data/drums-2", "plain/drums-2", "drums-2-mixed", 7000, **SETTINGS, free_bits=100)
        second = self.train("drums-2", played, mixed, "drums-2-played", 16_000, **SETTINGS, free_bits=128)
        run = self.train("drums-2", played, second, "drums-2", 1000, **AGAIN, free_bits=128)
        white = self.whiten(run, played, "drums-2-white", "--windows", "8192")
        self.prior(white, played, 4000, "--units", "64", "--decay", "0.05", "--windows", "40000")

    def melody_16(self) -> None:
        data, taken = "data/melody-16", ("melody-2-first-white", "data/melody-90")
        source = ("--melody", *map(self.at, taken))
        warm = self.add("melody-16-warm", taken, "warm_start.py", "melody-16", self.at("melody-16-warm"), *source)
        bars = self.level("bars", warm, data, "melody-16-bars-1", 900)
        windows = self.level("windows", bars, data, "melody-16-windows-0", 5000)
        first = self.train("melody-16", data, windows, "melody-16-first", 8000, **SETTINGS, free_bits=448)
        white = self.whiten(first, data, "melody-16-first-white", "--keep", "192")
        refit = ("refit.py", self.at(white), self.at(data), self.at("melody-16-refit"), "--latent", "256")
        again = self.add("melody-16-refit", (white, data), *refit)
        small = ("--batch-size", "12", "--learning-rate", "1e-3")
        bars = self.level("bars", again, data, "melody-16-bars-2", 3200, *small)
        rounds = [(1600, 800), (1800, 800), (1200, 800)]
        start = self.rounds(bars, data, "melody-16-windows", *rounds, windows=8192)
        run = self.train("melody-16", data, start, "melody-16", 3000, **SETTINGS, free_bits=800)
        white = self.whiten(run, data, "melody-16-white", "--keep", "224")
        sizes = ("--units", "72", "--layers", "5", "--hidden", "128", "--given", "80", "--decay", "0.02")
        self.prior(white, data, 7000, "--bars", "--windows", "40000", *sizes)

    def melody_16_flat(self) -> None:
        words = ("train.py", str(self.data), str(self.runs), "--only", "melody-16-flat", "--threads", "1")
        values = [f"training.{key}={value}" for key, value in (SETTINGS | {"free_bits": 448}).items()]
        minutes = f"{142 * 60 // self.short}s"
        self.add("melody-16-flat", ("data/melody-16",), *words, "--max-time", minutes, "--set", *values)

    def drums_16(self) -> None:
        played = self.repeat("data/drums-16", "data/drums-16-played", *PLAYED)
        taken = ("drums-2-played", "data/drums-2")  # after 7,000 of its updates
        source = ("--drums", *map(self.at, taken), "--set", "model.encoder_units=144", "model.conductor_units=160")
        warm = self.add("drums-16-warm", taken, "warm_start.py", "drums-16", self.at("drums-16-warm"), *source)
        bars = self.level("bars", warm, played, "drums-16-bars", 4500, "--batch-size", "12")
        start = self.rounds(bars, played, "drums-16-windows", *[(750, 1000)] * 4, windows=4096)
        first = self.train("drums-16", played, start, "drums-16-first", 2400, **SETTINGS, free_bits=1000)
        white = self.whiten(first, played, "drums-16-first-white")
        refit = ("refit.py", self.at(white), self.at(played), self.at("drums-16-refit"))
        again = self.add("drums-16-refit", (white, played), *refit)
        bars = self.level(
            "bars", again, played, "drums-16-bars-2", 300, "--batch-size", "12", "--learning-rate", "1e-3"
        )
        start = self.rounds(bars, played, "drums-16-again", *[(700, 1000)] * 3, windows=4096)
        run = self.train("drums-16", played, start, "drums-16", 1650, **SETTINGS, free_bits=1000)
        white = self.whiten(run, played, "drums-16-white", "--windows", "8192")
        self.prior(white, played, 2000, "--units", "32", "--layers", "6", "--decay", "0.1", "--windows", "30000")

    def trio_16(self) -> None:
        played = ("--corpora", "freedoom", "easyrpg", "--times", "8")
        played = self.repeat("data/trio-16", "data/trio-16-played", *played)
        parts = self.parts("data/trio-16-parts")
        mixed = self.parts("data/trio-16-mixed", "--share", "0.4", "--seed", "1")
        melody, drums = ("melody-2-first-white", "data/melody-90"), ("drums-2-played", "data/drums-2")
        source = ("--melody", *map(self.at, melody), "--drums", *map(self.at, drums))
        sizes = ("--set", "model.encoder_units=160", "model.conductor_units=192")
        words = ("warm_start.py", "trio-16", self.at("trio-16-warm"), *source, *sizes)
        warm = self.add("trio-16-warm", melody + drums, *words)
        bars = self.level("bars", warm, parts, "trio-16-bars-1", 2000, "--batch-size", "12")
        bars = self.level("bars", bars, parts, "trio-16-bars-2", 3200, "--batch-size", "12")
        rounds = [(1200, 1400), (1500, 1400), (1500, 1200)]
        start = self.rounds(bars, parts, "trio-16-windows", *rounds, windows=4096)
        run = self.train("trio-16", mixed, start, "trio-16", 1700, **SETTINGS, free_bits=1200)
        self.whiten(run, played, "trio-16-white")


def recipe(data: Path, runs: Path, teacher: Path = Path("TEACHER"), short: int = 1) -> list[Step]:
    """All steps, in an order in which each finds what it takes."""
    book = Recipe(data, runs, teacher, short)
    for book.model in MODELS:
        getattr(book, book.model.replace("-", "_"))()
    return book.collected


def needed(steps: list[Step], models: list[str]) -> list[Step]:
    """The steps of some models, and those of others that they take something from."""
    wanted, chosen = {step.out for step in steps if step.model in models}, list[Step]()
    for step in reversed(steps):
        if step.out in wanted:
            chosen.append(step)
            wanted.update(step.taken)
    return chosen[::-1]


def command(words: list[str]) -> list[str]:
    """A script of this folder, or a command of musicvae."""
    script = HERE / words[0]
    program = [str(script)] if script.suffix == ".py" else ["-c", "from musicvae.cli import main; main()", words[0]]
    return [sys.executable, *program, *words[1:]]


def shown(steps: list[Step]) -> Iterator[str]:
    for step in steps:
        first = f"python paper/{step.words[0]}" if step.words[0].endswith(".py") else f"musicvae {step.words[0]}"
        yield " ".join([first, *step.words[1:]])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data sets (data.py); those made of them go there too")
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL")
    parser.add_argument("--teacher", type=Path, default=Path("TEACHER"), help="folder of the original's decoder")
    parser.add_argument("--short", type=int, default=1, help="the updates divided by this, to see that all runs")
    parser.add_argument("--list", action="store_true", help="only say what would be run")
    given = parser.parse_args(arguments)
    if given.short < 1:
        raise ValueError(f"--short {given.short}; it must be at least 1")
    steps = needed(recipe(given.data, given.runs, given.teacher, given.short), given.only)
    if given.list:
        print("\n".join(shown(steps)))
        return
    for step in steps:
        name = step.out.replace("/", "-")
        begun, done = (given.runs / state / name for state in ("begun", "done"))
        if done.exists():
            continue
        made = given.data / step.out.removeprefix("data/") if step.out.startswith("data/") else given.runs / step.out
        if made.exists() and not begun.exists():
            raise ValueError(f"{made} is there already, and was not made here. Move it away, or give another folder")
        if step.words[0] not in RESUMED and made.is_dir():
            shutil.rmtree(made)
        mark(begun)
        print(f"{step.model}: {next(shown([step]))}", flush=True)
        if subprocess.run(command(step.words), check=False).returncode:
            raise ValueError(f"{step.out} could not be made, see above. The same command goes on from there")
        mark(done)


def mark(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"box.py: {error}")
