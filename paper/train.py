"""All models of Table 1, trained from their data sets, each for the same time.

    python paper/train.py data runs --max-time 60m
    python paper/train.py data runs --max-time 10m --size medium --only trio-16 trio-16-flat --pause 10m

Schedules hang on steps, so the speed of each training is measured first, and its steps are chosen to fill its time;
plan.json in its run folder keeps them. The same command goes on where it was stopped, and does nothing when all is
done. The data set of a model, and of its flat twin, is the folder of its name below DATA (see data.py).
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from musicvae.files import replacing
from musicvae.model.checkpoint import find_device
from musicvae.model.feed import Feed
from musicvae.model.trainer import Trainer, new_model
from musicvae.model.training import TrainingResult
from musicvae.presets import SIZES
from musicvae.train import Prepared, keep_memory, prepare, seconds, train_preset, use_threads

MODELS = ("melody-2", "drums-2", "melody-16", "drums-16", "trio-16", "melody-16-flat", "drums-16-flat", "trio-16-flat")
UPDATING = 0.95  # share of the time; the rest goes into validation, checkpoints and music to listen to
MEASURING = 0.03  # share of the time that finding the speed may take
WARM_UP, LEAST = 2, 3  # updates that are not timed, and that are


@dataclass(frozen=True)
class Plan:
    """What is settled when a training begins, so that a later call goes on with the same."""

    preset: str
    size: str
    settings: list[str]
    seconds: float
    steps: int
    examples_per_second: float
    device: str
    threads: int
    start: str | None = None  # the model that it goes on from


def train_for(
    name: str,
    dataset: Path,
    out: Path,
    budget: float,
    size: str = "small",
    settings: list[str] = [],  # noqa: B006 (never changed)
    device: str = "auto",
    threads: int = 0,
    pause: float | None = None,
    start: str | None = None,
) -> TrainingResult:
    """Trains a preset into the run folder `out` with a schedule that fills `budget` seconds, or goes on with it.

    `pause` ends this call after so many seconds; `start` is the model that it goes on from. Raises ValueError for a
    run that was planned otherwise.
    """
    began = time.monotonic()
    plan = planned(name, dataset, out, budget, size, settings, device, threads, start)
    left = None if pause is None else f"{max(pause - (time.monotonic() - began), 0):.1f}s"
    return train_preset(name, dataset, out, size, plan.steps, left, 0, device, settings, threads, start)


def planned(
    name: str,
    dataset: Path,
    out: Path,
    budget: float,
    size: str,
    settings: list[str],
    device: str,
    threads: int,
    start: str | None = None,
) -> Plan:
    """The plan of a run folder, or a new one, for which the speed is measured."""
    path = out / "plan.json"
    if path.exists():
        plan = Plan(**json.loads(path.read_text()))
        found = (plan.preset, plan.size, plan.settings, plan.seconds, plan.start)
        if found != (name, size, settings, budget, start):
            begun = f"from {plan.start} " if plan.start else ""
            what = f"{plan.preset} {plan.size} {begun}for {plan.seconds:.0f} s {' '.join(plan.settings)}".rstrip()
            raise ValueError(f"{out} was planned as {what}. Ask for the same, or for another folder of runs")
        return plan
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds a run that was not begun here. Move it away, or leave {name} out with --only")
    made = prepare(name, dataset, size, settings, start)
    use_threads(threads)
    keep_memory()
    rate, batch = measure_speed(made, device, MEASURING * budget), made.training.batch_size
    steps = max(round(UPDATING * budget * rate / batch), 1)
    plan = Plan(name, size, settings, budget, steps, round(rate, 2), str(find_device(device)), threads, start)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(asdict(plan), indent=1) + "\n")
    print(f"{name}: {rate:.1f} examples/s, so {steps:,} steps of {batch} in {budget:.0f} s", flush=True)
    return plan


def measure_speed(made: Prepared, device: str, longest: float) -> float:
    """Examples a second of real updates, on weights that are thrown away; `longest` in seconds, but for slow steps."""
    training = made.training
    trainer = Trainer(new_model(made.model, training.seed, None), training, find_device(device))
    feed = Feed(made.dataset.tokens("train"), training, made.dataset.settings.tokens.augment)
    started, done = time.monotonic(), 0
    while done < LEAST or time.monotonic() - started < longest:
        trainer.update(feed.batch(trainer.step))
        if trainer.step <= WARM_UP:
            float(trainer.tally[0])  # waits for an accelerator
            started = time.monotonic()
        done = trainer.step - WARM_UP
    float(trainer.tally[0])
    return done * training.batch_size / (time.monotonic() - started)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("runs", type=Path, help="folder of the runs")
    parser.add_argument("--max-time", required=True, help="of each training, over all calls: 60m, 2h")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--pause", help="end this call after so long; the same command goes on")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 is one for each core")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="such as training.batch_size=64")
    given = parser.parse_args(arguments)
    budget, end = seconds(given.max_time), time.monotonic() + (seconds(given.pause) if given.pause else float("inf"))
    for name in given.only:
        left = end - time.monotonic()
        if left <= 0:
            print(f"{name} and what follows: not yet; the same command goes on")
            return
        dataset, out = given.data / name.removesuffix("-flat"), given.runs / name
        pause = left if given.pause else None
        result = train_for(name, dataset, out, budget, given.size, given.set, given.device, given.threads, pause=pause)
        if not result.finished:
            return


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"train.py: {error}")
