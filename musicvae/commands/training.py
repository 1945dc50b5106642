"""Models: training them, measuring them, and those in the box."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from musicvae.commands.checks import check, check_dataset
from musicvae.commands.options import Device, Json, Model, load, print_json


def train(
    preset: Annotated[
        Positional[str],
        arg(metavar="PRESET", help="melody-2 drums-2 melody-16 drums-16 trio-16, or 1 to 32 bars; also with -flat."),
    ],
    dataset: Annotated[Positional[Path], arg(metavar="DATASET")],
    /,
    out: Annotated[Path, arg(metavar="RUN", help="Folder of the run; the same command again goes on with it.")],
    start: Annotated[
        str | None, arg(name="from", metavar="MODEL", help="Begin with this model in the box or run (fine-tuning).")
    ] = None,
    bars_from: Annotated[
        str | None, arg(metavar="MODEL", help="Begin with the encoder and decoders of bars of this model.")
    ] = None,
    size: Annotated[
        Literal["small", "medium", "paper"] | None, arg(help="Widths and schedules; small if not given.")
    ] = None,
    steps: Annotated[int | None, arg(help="Updates in all stages; the schedules stretch over them.")] = None,
    max_time: Annotated[str | None, arg(help="Pause after 90s, 10m, 2h; without --steps as many as fit.")] = None,
    seed: Annotated[int, arg(help="Weights, order of the data, noise.")] = 0,
    device: Device = "auto",
    settings: Annotated[list[str], arg(name="set", metavar="KEY=VALUE", help="Such as training.batch_size=64.")] = [],  # noqa: B006
    threads: Annotated[int, arg(help="CPU threads; 0 is one for each core.")] = 0,
) -> None:
    """Train a model on a data set. Ctrl-C saves; the same command again resumes exactly."""
    if start and size:
        raise ValueError(f"--size {size} is for a new model; {start} brings its own widths. Leave one of the two out")
    if start and bars_from:
        raise ValueError("--from begins with a whole model, --bars-from with its bars alone. Leave one of the two out")
    check(start, device, seed=seed, steps=steps, threads=threads, max_time=max_time, preset=preset)
    check_dataset(dataset)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out must be a folder")
    from musicvae.train import train_preset

    train_preset(
        preset, dataset, out, size or "small", steps, max_time, seed, device, settings, threads, start, bars_from
    )


def evaluate(
    model: Model,
    dataset: Annotated[Positional[Path], arg(metavar="DATASET")],
    /,
    split: Annotated[Literal["train", "validation", "test"], arg(help="Which windows.")] = "test",
    windows: Annotated[int | None, arg(help="At most so many, drawn by the seed.")] = None,
    seed: Annotated[int, arg(help="Of the draw, of z and of the tokens.")] = 0,
    samples: Annotated[
        int, arg(help="Also compare so many samples from the prior with the windows; 0 leaves it out.")
    ] = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure how well a model gives windows back: Table 1 of the paper, and what must stand beside it."""
    check(model, device, seed=seed, samples=samples, windows=windows)
    check_dataset(dataset)
    from musicvae.evaluation.command import evaluate_model

    report = evaluate_model(load(model, device), dataset, split, windows, seed, samples, show=not json)
    if json:
        print_json(report)


def models(json: Json = False) -> None:
    """List the models in the box."""
    from dataclasses import asdict

    from musicvae.box import models as boxed

    found = boxed()
    if json:
        print_json({name: asdict(config) for name, config in found.items()})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "music", "bars", "size", "sampled accuracy", "licence", box=None, pad_edge=False)
    for name, config in found.items():
        accuracy = config.trained.get("test", {}).get("sampled_accuracy")
        shown = f"{accuracy:.3f}" if accuracy is not None else "not measured"
        table.add_row(name, config.representation, str(config.model.steps // 16), config.size, shown, "Apache-2.0")
    Console().print(table)
