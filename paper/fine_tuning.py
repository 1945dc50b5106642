"""What a few minutes on a few tunes of one kind do to a model in the box: on that kind, and on all the music of before.

    python paper/fine_tuning.py cre_irish data/melody-90 melody-2 --out paper/results/fine-tuning.json

The tunes are drawn from those of the corpus whose windows validate or test in DATA, which the model has not seen:
`--tunes` of them train; the others, and the test windows of all other corpora, are measured before and after.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from musicvae.composer import Composer, load
from musicvae.evaluation.command import KINDS, fitting_dataset
from musicvae.evaluation.reconstruction import draw_windows, evaluate_reconstruction
from musicvae.files import replacing
from musicvae.model.config import RunConfig
from musicvae.model.training import train
from musicvae.music.dataset import Dataset
from musicvae.presets import preset
from musicvae.train import fine_tuning as settings_of

WAYS = ("sampled", "greedy_mu", "teacher_forced")


def unseen(dataset: Dataset, corpus: str) -> dict[str, list[tuple[str, int]]]:
    """The files of a corpus that the training did not see, each with the split and the rows of its windows."""
    found: dict[str, list[tuple[str, int]]] = {}
    for split in ("validation", "test"):
        for row, file in enumerate(dataset.rows(split, ["file"])["file"].to_pylist()):
            if file.split("/")[0] == corpus:
                found.setdefault(file, []).append((split, row))
    return found


def measure(composer: Composer, tokens: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Accuracy and onset F1 of windows (N, T, 1), and the KL."""
    report = evaluate_reconstruction(composer.model, tokens, groups, kinds=KINDS[composer.representation.name])
    stream = report.streams[0]
    figures = {
        way: {"accuracy": vars(getattr(stream, way).accuracy), "onset_f1": vars(getattr(stream, way).onset_f1)}
        for way in WAYS
    }
    return {"windows": report.windows, "groups": report.groups, "kl_bits": report.kl_bits, **figures}


def fine_tuning(
    corpus: Path, data: Path, model: str, tunes: int, steps: int, windows: int, seed: int
) -> dict[str, Any]:
    """Trains on `tunes` files and measures. Raises ValueError where there are not that many unseen ones."""
    before = load(model)
    dataset = fitting_dataset(before, data)
    files = unseen(dataset, corpus)
    if len(files) <= tunes:
        raise ValueError(f"{data} has {len(files)} files of {corpus} that did not train; it takes more than {tunes}")
    order = [sorted(files)[i] for i in np.random.default_rng(seed).permutation(len(files))]
    rows = [row for file in order[tunes:] for row in files[file]]
    splits = {split: dataset.tokens(split) for split in ("validation", "test")}
    alike = np.stack([splits[split][row] for split, row in rows])
    groups = {split: dataset.rows(split, ["group"])["group"].to_numpy() for split in splits}
    alike_groups = np.array([groups[split][row] for split, row in rows])
    names = dataset.rows("test", ["file"])["file"].to_pylist()
    others = np.array([i for i, file in enumerate(names) if file.split("/")[0] != corpus])
    others = others[draw_windows(len(others), windows, seed)]
    held = {corpus: (alike, alike_groups), "all others": (splits["test"][others], groups["test"][others])}
    tuned = np.stack([splits[split][row] for file in order[:tunes] for split, row in files[file]])
    config = replace(settings_of(preset(before.config.preset), before.config), steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            RunConfig(model=before.model.config),
            replace(config, prior_share=0.0),
            tuned,
            None,
            folder,
            augment=before.representation.augment,
            initial=before.model,
        )
    after = dataclasses.replace(before, model=result.model)
    return {
        "model": model,
        "tunes": tunes,
        "windows": len(tuned),
        "steps": result.step,
        "seconds": round(result.seconds),
        "measured": {
            name: {"before": measure(before, *some), "after": measure(after, *some)} for name, some in held.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="its name in the data set: the first folder of its files")
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("--tunes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--windows", type=int, default=3000, help="at most so many test windows of other corpora")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = fine_tuning(given.corpus, given.data, given.model, given.tunes, given.steps, given.windows, given.seed)
    with replacing(given.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    for name, figures in found["measured"].items():
        for when, values in figures.items():
            accuracies = ", ".join(f"{way} {values[way]['accuracy']['value']:.3f}" for way in WAYS)
            print(f"{name:14} {when:6} {accuracies}, onset F1 {values['sampled']['onset_f1']['value']:.3f}, "
                  f"KL {values['kl_bits']:.1f} bits, {values['windows']} windows")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"fine_tuning.py: {error}")
