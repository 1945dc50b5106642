"""Figure 4: what the note-density vector does to sparse melodies, and whether the new notes fit (section 5.5).

    python paper/figure4.py data/melody-16 melody-16 melody-16-flat --out results/figure4.png

One data set, any number of models of melodies or trios. The vector is learnt from training windows: from the mean of
those with fewer than 64 notes in 16 bars to that of those with more than 180 (`--vector note-density`: of the extreme
quartiles). It is added to test windows of the first kind. Writes the picture, and its figures as figure4.json.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicvae.composer import Composer, load
from musicvae.evaluation.command import fitting_dataset
from musicvae.evaluation.density import PAPER, SPARSE, measure_density, melody_of, sparse_windows
from musicvae.evaluation.reconstruction import draw_windows
from musicvae.evaluation.results import checked_picture, save_results
from musicvae.learn import Lesson, learn_from_dataset

WINDOWS, TEMPERATURE = 1024, 0.5  # at most so many windows
TRAIN_WINDOWS = 16_384
AMOUNTS = (0.0, 0.5, 1.0, 1.5)


def figure4(composer: Composer, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model, ready for JSON."""
    dataset = fitting_dataset(composer, folder)
    windows, groups = dataset.tokens(given.split), dataset.rows(given.split, ["group"])["group"].to_numpy()
    sparse = np.flatnonzero(sparse_windows(melody_of(composer, windows)))
    if not len(sparse):
        raise ValueError(f"{folder}: no {given.split} window with fewer than {SPARSE:g} notes a bar, and with a key")
    chosen = sparse[draw_windows(len(sparse), given.windows, given.seed)]
    print(f"{composer.name}: {len(chosen)} of {len(sparse)} sparse windows", flush=True)
    lesson = density_lesson(composer, folder, given)
    report = measure_density(
        composer,
        np.asarray(windows[chosen]),
        lesson.vector,
        groups[chosen],
        amounts=given.amounts,
        temperature=given.temperature,
        seed=given.seed,
    )
    learnt = {key: value for key, value in vars(lesson).items() if key != "vector"}
    return {
        "model": composer.name,
        "sparse_windows": len(sparse),
        "vector": learnt,
        "amounts": list(given.amounts),
        "report": asdict(report),
    }


def density_lesson(composer: Composer, folder: Path, given: argparse.Namespace) -> Lesson:
    """The vector asked for. Raises ValueError if the training windows have none of its extremes."""
    learned = learn_from_dataset(composer, folder, given.train_windows, measured=0, seed=given.seed)
    name = f"melody-{given.vector}" if len(composer.representation.vocab_sizes) > 1 else given.vector
    if name not in learned.lessons:
        why = learned.skipped.get(name, "it has none")
        raise ValueError(f"{folder}: no vector {name!r} ({why}). Try --vector note-density, or more --train-windows")
    return learned.lessons[name]


def draw(results: dict[str, Any]) -> Any:
    """The picture: how many more notes, and how many of the new ones fit, by the amount of the vector.

    The lines of other notes are those of the first model's windows.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, model in enumerate(results["models"]):
        amounts = model["report"]["amounts"]
        _line(left, amounts, [a["change_percent"] for a in amounts], f"C{i}", "-", model["model"])
        for style, share, words in (("-", "in_key", "in the key"), (":", "in_tonal_centre", "around the tonic")):
            _line(right, amounts, [a["new"][share] for a in amounts], f"C{i}", style, f"{model['model']}, {words}", 100)
    report = results["models"][0]["report"]
    for which, style, words in (("own", "--", "the originals' own notes"), ("others", "-.", "other originals' notes")):
        share = 100 * report[which]["in_key"]["value"]
        right.axhline(share, color="0.6", linewidth=0.9, linestyle=style, label=f"{words}, in the key")
    left.axhline(PAPER["change_percent"], color="black", linewidth=0.9, label="the paper")
    centre = PAPER["in_tonal_centre_percent"]
    right.axhline(centre, color="black", linewidth=0.9, label='the paper, "original tonal centre"')
    left.set_ylabel("change of the number of notes, %")
    right.set_ylabel("share of the new notes, %")
    for axes in (left, right):
        axes.set_xlabel("amount of the note-density vector")
        axes.set_xticks(results["models"][0]["amounts"])
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def _line(axes: Any, amounts: list[dict], figures: list[dict], color: str, style: str, name: str, by: int = 1) -> None:
    x, y = [a["amount"] for a in amounts], [by * f["value"] for f in figures]
    axes.plot(x, y, color=color, linestyle=style, marker="o", ms=3.5, label=name)
    if figures[0]["low"] is not None:
        ends = ([by * f["low"] for f in figures], [by * f["high"] for f in figures])
        axes.fill_between(x, *ends, color=color, alpha=0.15, linewidth=0)


def summary(model: dict[str, Any]) -> str:
    """What to look at first, one line an amount, and what the figures are to be held against."""
    report = model["report"]
    lines = [f"{model['model']}: {report['windows']} windows with {report['notes_a_bar']['value']:.2f} notes a bar"]
    lines.append(f"{'amount':>8}{'notes a bar':>13}{'change %':>10}{'new':>8}{'in key %':>10}{'tonic %':>9}")
    for a in report["amounts"]:
        shares = [100 * a["new"][share]["value"] for share in ("in_key", "in_tonal_centre")]
        cells = f"{a['notes_a_bar']['value']:13.2f}{a['change_percent']['value']:10.1f}{a['new_notes']:8}"
        lines.append(f"{a['amount']:8g}{cells}{shares[0]:10.1f}{shares[1]:9.1f}")
    for which, words in (("own", "the originals' own notes"), ("others", "notes of other originals")):
        shares = [100 * report[which][share]["value"] for share in ("in_key", "in_tonal_centre")]
        lines.append(f"{words:>39}{shares[0]:10.1f}{shares[1]:9.1f}")
    lines.append(f"{'paper':>8}{PAPER['change_percent']:23.1f}{PAPER['in_tonal_centre_percent']:27.1f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", nargs="+", help="models in the box, or run folders")
    parser.add_argument("--out", type=Path, default=Path("figure4.png"), help="picture: .png, .svg or .pdf")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="at most so many, drawn by the seed")
    parser.add_argument("--train-windows", type=int, default=TRAIN_WINDOWS, help="to learn the vector from")
    parser.add_argument("--vector", choices=("busy", "note-density"), default="busy")
    parser.add_argument("--amounts", type=float, nargs="+", default=AMOUNTS)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    try:
        checked_picture(given.out)
        models = [figure4(load(name, given.device), given.dataset, given) for name in given.models]
    except ValueError as error:
        sys.exit(f"error: {error}")
    settings = {key: getattr(given, key) for key in ("temperature", "split", "seed", "train_windows")}
    results = {"paper": PAPER, **settings, "models": models}
    beside = save_results(given.out, draw(results), results)
    for model in models:
        print(summary(model))
    print(f"{given.out}, {beside}")


if __name__ == "__main__":
    main()
