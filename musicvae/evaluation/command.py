"""A model and a data set, measured: what `musicvae evaluate` does."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from musicvae.composer import Composer
from musicvae.evaluation.reconstruction import draw_windows, evaluate_reconstruction, reconstruction_table
from musicvae.evaluation.statistics import compare, sample_statistics
from musicvae.music.dataset import Dataset

TEMPERATURES = (0.5, 1.0)  # of the samples that are compared with real windows
TRIO = ("melody", "melody", "drums")
KINDS = {"melody": ("melody",), "melody-90": ("melody",), "drums": ("drums",), "trio": TRIO, "trio-90": TRIO}


def evaluate_model(
    composer: Composer,
    folder: Path,
    split: str = "test",
    windows: int | None = None,
    seed: int = 0,
    samples: int = 0,
    show: bool = True,
    known: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Reconstruction of a split's windows, and statistics of samples beside them if asked for; ready for JSON.

    `known` is a reconstruction that was measured before, with the same weights, windows and seed.
    Raises ValueError for a data set that is not of the model's kind, or a split without windows.
    """
    composer.check_encodes()
    if samples < 0:
        raise ValueError(f"--samples {samples}; it must be 0 (none) or more")
    z = composer.draw(samples, seed) if samples else np.empty(0)  # a broken prior is told of before minutes go by
    dataset, kinds = fitting_dataset(composer, folder), KINDS[composer.representation.name]
    tokens, rows = dataset.tokens(split), dataset.rows(split, ["group"])
    if not len(tokens):
        raise ValueError(
            f"{folder}: no {split} windows (too few songs). Choose another --split, or build from more music"
        )
    chosen = draw_windows(len(tokens), windows, seed)
    tokens, groups = np.asarray(tokens[chosen]), rows["group"].to_numpy()[chosen]
    result: dict[str, Any] = {"model": composer.name, "split": split, "reconstruction": known}
    if known is None:
        report = evaluate_reconstruction(composer.model, tokens, groups, kinds=kinds, seed=seed)
        result["reconstruction"] = asdict(report)
        if show:
            _print(reconstruction_table(report))
    if samples:
        training = dataset.tokens("train")
        real = sample_statistics(tokens, kinds, training)
        made = {
            f"temperature {t:g}": sample_statistics(composer.decode_tokens(z, t, seed + 1), kinds, training)
            for t in TEMPERATURES
        }
        result["statistics"] = {"windows": asdict(real), **{name: asdict(s) for name, s in made.items()}}
        if show:
            _print(compare(real, made, f"{split} windows"))
    return result


def fitting_dataset(composer: Composer, folder: Path) -> Dataset:
    """The data set in a folder. Raises ValueError for one that is not of the model's kind."""
    dataset, kinds = Dataset(folder).seen_as(composer.representation.name), KINDS[composer.representation.name]
    ours = (composer.representation.name, composer.bars, getattr(composer.representation, "drum_map", "current"))
    theirs = (dataset.settings.representation, dataset.settings.bars, dataset.settings.drum_map)
    if ours[:2] != theirs[:2] or ("drums" in kinds and ours[2] != theirs[2]):
        found, wanted = (f"{name} of {bars} bars (drum map {drums})" for name, bars, drums in (theirs, ours))
        raise ValueError(f"{folder} holds {found}; the model is for {wanted}")
    return dataset


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table)
