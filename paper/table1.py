"""Table 1: every trained model measured on its test windows, and RESULTS.md written beside the paper's figures.

    python paper/table1.py data --runs runs
    python paper/table1.py data --only drums-2 --windows 1000
    python paper/table1.py

A model is taken from its run folder below RUNS, else from the box. What is measured is kept in results/MODEL.json, and
measured again only if the weights, the data set or the options have changed (the samples alone, if only the prior has);
without DATA nothing is measured, and RESULTS.md is written anew from what is kept.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import ORIGIN, recipe_of
from tables import write_results
from train import MODELS

from musicvae.box import PRETRAINED
from musicvae.composer import Composer, load
from musicvae.evaluation.command import KINDS, TEMPERATURES, fitting_dataset
from musicvae.evaluation.errors import measure_errors
from musicvae.evaluation.quality import measure_quality
from musicvae.evaluation.reconstruction import draw_windows, evaluate_reconstruction
from musicvae.evaluation.results import plain
from musicvae.files import replacing
from musicvae.model.config import PRIOR, WEIGHTS
from musicvae.model.run_folder import METRICS
from musicvae.music.dataset import Dataset

ALL = (*MODELS, "melody-90")
WAYS = ("sampled", "greedy_mu")  # of which the kinds of errors are counted
DRAWN = ("prior", "spread", "rounds", "samples")  # of a stamp: what samples alone hang on
HERE = Path(__file__).parent


def measure(
    composer: Composer,
    dataset: Dataset,
    windows: int | None,
    samples: int,
    seed: int,
    known: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Reconstruction of the test windows, the kinds of errors, and samples beside them. ValueError without windows.

    `known` holds the first two, where they were measured before with the same weights.
    """
    tokens = dataset.tokens("test")
    if not len(tokens):
        raise ValueError(f"{dataset.folder}: no test windows (too few songs). Build from more music")
    chosen = draw_windows(len(tokens), windows, seed)
    tokens, groups = np.asarray(tokens[chosen]), dataset.rows("test", ["group"])["group"].to_numpy()[chosen]
    found = known or reconstruction(composer, tokens, groups, seed)
    return {**found, "quality": quality(composer, dataset, tokens, samples, seed)}


def reconstruction(composer: Composer, tokens: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, Any]:
    """Windows (N, T, streams) of groups (N,), and what the model makes of them."""
    kinds = KINDS[composer.representation.name]
    written: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}

    def keep(arrays: dict[str, np.ndarray]) -> None:
        for way in WAYS:
            written[way].append(arrays[way].astype(np.uint16))

    report = evaluate_reconstruction(composer.model, tokens, groups, kinds=kinds, seed=seed, on_written=keep)
    lowest = getattr(composer.representation, "lowest", 0)
    errors = {
        way: measure_errors(np.concatenate(parts), tokens, groups, kinds, lowest, seed)
        for way, parts in written.items()
    }
    return {"reconstruction": report, "errors": errors}


def quality(composer: Composer, dataset: Dataset, tokens: np.ndarray, samples: int, seed: int) -> dict[str, Any]:
    """Samples from the prior, and as many real training and test windows, all beside the test windows."""
    kinds, training = KINDS[composer.representation.name], dataset.tokens("train")
    some = tokens[draw_windows(len(tokens), samples, seed)]
    played = np.flatnonzero(composed_or_played(dataset))
    seen = np.asarray(training[played[draw_windows(len(played), samples, seed)]])
    z = composer.draw(samples, seed)
    made = {f"temperature {t:g}": composer.decode_tokens(z, t, seed + 1) for t in TEMPERATURES}
    if composer.config.rounds:
        z, t = composer.draw(samples, seed, rounds=0), TEMPERATURES[0]
        made[f"temperature {t:g}, no round"] = composer.decode_tokens(z, t, seed + 1)
    found = {name: measure_quality(windows, tokens, kinds, training, seed) for name, windows in made.items()}
    real = {
        "test windows": measure_quality(some, tokens, kinds, training, seed),
    }
    if len(seen):
        real["real training windows"] = measure_quality(seen, tokens, kinds, None, seed)
    return real | found


def composed_or_played(dataset: Dataset) -> np.ndarray:
    """Which training windows (M,) are neither assembled nor written by a program."""
    names = dataset.rows("train", ["file"])["file"].combine_chunks().dictionary_encode()
    real = np.array([name.split("/")[0] not in ORIGIN for name in names.dictionary.to_pylist()], bool)
    return real[names.indices.to_numpy()]


def describe(composer: Composer, folder: Path, dataset: Dataset) -> dict[str, Any]:
    """What a model is, how it was trained, and on what."""
    config, report = composer.config, dataset.report
    return {
        "name": composer.name,
        "source": "in the box" if folder.parent == PRETRAINED else "run",
        "preset": config.preset,
        "size": config.size,
        "bars": composer.bars,
        "flat": config.model.bars == 1,
        "parameters": sum(p.numel() for p in composer.model.parameters()),
        "spread": config.spread,
        "rounds": config.rounds,
        "training": config.training,
        "trained": config.trained,
        "data": {"splits": report["splits"], "folders": report["folders"]},
    }


def add_curve(kept: Path, metrics: Path) -> None:
    """Puts the validation lines of a training beside what is kept of its model, where there are any."""
    lines, found = curve(metrics), json.loads(kept.read_text())
    if lines and found.get("validation") != lines:
        with replacing(kept) as temporary:
            temporary.write_text(json.dumps({**found, "validation": lines}, indent=1, allow_nan=False) + "\n")


def known_curve(kept: Path, composer: Composer) -> list[dict[str, float]]:
    """The curve that is kept already, if it is of the same training: that of a model in the box has no run any more."""
    before = json.loads(kept.read_text()) if kept.exists() else {}
    same = before.get("trained", {}).get("seconds") == composer.config.trained.get("seconds")
    return before.get("validation", []) if same else []


def curve(metrics: Path) -> list[dict[str, float]]:
    """The validation lines of a run: seconds, step, accuracy (teacher-forced), KL in bits."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    keys = ("seconds", "step", "accuracy", "kl_bits")
    return [{key: line[key] for key in keys} for line in lines if line["kind"] == "validation"]


def stamp(composer: Composer, folder: Path, dataset: Dataset, options: dict[str, Any]) -> dict[str, Any]:
    """What a measurement hangs on: if it is the same, so are the figures."""
    weights, prior = (
        hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).is_file() else None
        for name in (WEIGHTS, PRIOR)
    )
    drawn = {"prior": prior, "spread": composer.config.spread, "rounds": composer.config.rounds}
    return {"weights": weights, **drawn, "test_windows": dataset.report["splits"]["test"]["windows"], **options}


def measured_before(found: dict[str, Any], mark: dict[str, Any]) -> dict[str, Any] | None:
    """What does not hang on how samples are drawn, if it was measured with these weights and options."""
    rest = {key: value for key, value in mark.items() if key not in DRAWN}
    same = rest == {key: value for key, value in found.get("stamp", {}).items() if key not in DRAWN}
    return {key: found[key] for key in ("reconstruction", "errors")} if same else None


def find(name: str, runs: Path | None) -> Path | None:
    """The folder of a trained model; None if there is none."""
    folders = [runs / name] if runs else []
    return next((folder for folder in [*folders, PRETRAINED / name] if (folder / WEIGHTS).is_file()), None)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the data sets; without it nothing is measured")
    parser.add_argument("--runs", type=Path, help="folder of the runs; what it lacks is taken from the box")
    parser.add_argument(
        "--curves", type=Path, help="folder of the runs that gave the models in the box, for their curves"
    )
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(ALL), metavar="NAME")
    parser.add_argument("--windows", type=int, help="at most so many test windows, drawn by the seed")
    parser.add_argument("--samples", type=int, default=1024, help="from the prior, at each temperature")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 is one for each core")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of what is kept")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    options = {"windows": given.windows, "samples": given.samples, "seed": given.seed}
    for name in given.only if given.data else []:
        folder, kept = find(name, given.runs), given.results / f"{name}.json"
        if folder is None:
            print(f"{name}: not trained")
            continue
        composer = load(folder, given.device)
        dataset = fitting_dataset(composer, given.data / recipe_of(composer.representation.name, composer.bars))
        mark = stamp(composer, folder, dataset, options)
        before = json.loads(kept.read_text()) if kept.exists() else {}
        if before.get("stamp") == mark:
            print(f"{name}: measured before")
        else:
            known = measured_before(before, mark)
            print(f"{name}: measuring {'samples of ' if known else ''}{folder}", flush=True)
            found = measure(composer, dataset, given.windows, given.samples, given.seed, known)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as temporary:
                about = {"stamp": mark, **describe(composer, folder, dataset)}
                everything = {**about, "validation": known_curve(kept, composer), **plain(found)}
                temporary.write_text(json.dumps(everything, indent=1, allow_nan=False) + "\n")
        add_curve(kept, (given.curves / name if given.curves else folder) / METRICS)
    write_results(given.results, given.out)
    print(f"{given.out}: written")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"table1.py: {error}")
