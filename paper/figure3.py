"""Figure 3: interpolation in the latent space beside a mix of the notes themselves (section 5.4).

    python paper/figure3.py data/melody-16 melody-16 melody-16-flat --out results/figure3.png

One data set, any number of models of its kind. Writes the picture, and the figures behind it as figure3.json.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicvae.composer import Composer, load
from musicvae.evaluation.arpa import save_arpa
from musicvae.evaluation.command import KINDS, fitting_dataset
from musicvae.evaluation.interpolation import (
    POINTS,
    cost,
    draw_pairs,
    latent_paths,
    measure_paths,
    mixed_paths,
    train_language_models,
)
from musicvae.evaluation.ngram import NgramModel
from musicvae.evaluation.results import checked_picture, save_results
from musicvae.evaluation.streams import stream_names

PAIRS, TEMPERATURE = 1024, 0.5  # the paper's


def figure3(composers: list[Composer], folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All figures of the experiment, ready for JSON."""
    datasets = [fitting_dataset(composer, folder) for composer in composers]
    windows, training = datasets[0].tokens(given.split), datasets[0].tokens("train")
    if not len(windows) or not len(training):
        raise ValueError(f"{folder}: no {given.split} windows, or no training windows; build from more music")
    groups = datasets[0].rows(given.split, ["group"])["group"].to_numpy()
    if given.points < 2:
        raise ValueError(f"{given.points} points; the two ends are the least")
    pairs, points = draw_pairs(groups, given.pairs, given.seed), np.linspace(0, 1, given.points)
    a, b = np.asarray(windows[pairs.a]), np.asarray(windows[pairs.b])
    models = train_language_models(training, given.order)
    if given.arpa:
        _save_models(given.arpa, models, stream_names(KINDS[composers[0].representation.name]))
    paths = {"data": mixed_paths(a, b, points, given.seed)}
    for composer in composers:
        print(f"{composer.name}: {len(a)} pairs of {composer.bars} bars", flush=True)
        paths[label(composer)] = latent_paths(composer, a, b, points, given.temperature, given.seed)
    curves = [measure_paths(k, v, a, b, models, points, groups[pairs.a], given.seed) for k, v in paths.items()]
    return {
        "pairs": len(a),
        "groups": len(np.unique(groups[pairs.a])),
        "split": given.split,
        "bars": composers[0].bars,
        "temperature": given.temperature,
        "seed": given.seed,
        "language_model": {
            "order": given.order,
            "windows": len(training),
            "ngrams": [[len(n.keys) for n in model.ngrams] for model in models],
            "bits_a_token": float(cost(models, np.concatenate([a, b])).mean() * np.log2(10) / (a[0].size + a.shape[2])),
        },
        "distance_a_to_b": float((a != b).mean()),
        "curves": [asdict(curve) for curve in curves],
    }


def label(composer: Composer) -> str:
    kind = "hierarchical" if composer.model.config.bars > 1 else "flat"
    return composer.name if kind in composer.name else f"{composer.name} ({kind})"


def draw(results: dict[str, Any]) -> Any:
    """The picture: cost above, distance below, one line a curve with its 95 % interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for i, curve in enumerate(results["curves"]):
        style = {"color": "0.45", "linestyle": "--"} if curve["name"] == "data" else {"color": f"C{i - 1}"}
        for axes, figures in ((above, curve["cost"]), (below, curve["to_a"])):
            axes.plot(curve["points"], [f["value"] for f in figures], marker="o", ms=3.5, label=curve["name"], **style)
            if figures[0]["low"] is not None:
                ends = ([f["low"] for f in figures], [f["high"] for f in figures])
                axes.fill_between(curve["points"], *ends, color=style["color"], alpha=0.15, linewidth=0)
    above.axhline(1, color="0.8", linewidth=0.8, zorder=0)
    above.set_ylabel(f"{results['language_model']['order']}-gram cost / cost of the originals")
    below.set_ylabel("Hamming distance from A")
    below.set_ylim(bottom=0)
    below.set_xticks(np.linspace(0, 1, 6), ["A", "0.2", "0.4", "0.6", "0.8", "B"])
    below.set_xlabel(f"from A to B, {results['pairs']:,} pairs of {results['bars']} bars")
    above.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(results["curves"]))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def summary(curves: list[dict[str, Any]]) -> str:
    """What to look at first, one line a curve."""
    lines = [f"{'':32}{'cost: A':>9}{'middle':>8}{'B':>8}{'hump':>8}{'from A: A':>11}{'middle':>8}{'B':>8}{'jump':>8}"]
    for curve in curves:
        costs, distances = ([f["value"] for f in curve[key]] for key in ("cost", "to_a"))
        middle = len(costs) // 2
        row = [costs[0], costs[middle], costs[-1], curve["hump"], distances[0], distances[middle], distances[-1]]
        widths = (9, 8, 8, 8, 11, 8, 8)
        cells = "".join(f"{value:{width}.3f}" for value, width in zip(row, widths))
        lines.append(f"{curve['name']:32}{cells}{curve['largest_jump']['value']:8.3f}")
    return "\n".join(lines)


def _save_models(path: Path, models: tuple[NgramModel, ...], names: tuple[str, ...]) -> None:
    """One ARPA file, or for a trio one a stream."""
    for model, name in zip(models, names):
        save_arpa(path if len(models) == 1 else path.with_name(f"{name}-{path.name}"), model)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", nargs="+", help="models in the box, or run folders")
    parser.add_argument("--out", type=Path, default=Path("figure3.png"), help="picture: .png, .svg or .pdf")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--points", type=int, default=POINTS, help="on the way, the ends included")
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    parser.add_argument("--split", choices=("train", "validation", "test"), default="test")
    parser.add_argument("--order", type=int, default=5, help="of the language model")
    parser.add_argument("--arpa", type=Path, help="also write the language model to this file (.arpa or .arpa.gz)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    try:
        checked_picture(given.out)
        results = figure3([load(name, given.device) for name in given.models], given.dataset, given)
    except ValueError as error:
        sys.exit(f"error: {error}")
    beside = save_results(given.out, draw(results), results)
    print(summary(results["curves"]))
    print(f"{given.out}, {beside}")


if __name__ == "__main__":
    main()
