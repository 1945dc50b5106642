"""What N(0, I) has to become to be like encoded music: a flow beside the weights of a run, which samples go through.

    python paper/prior.py runs/melody-16-white data/melody-16

Training windows are encoded (melodies and trios also transposed, where more are asked for than there are), and the
flow learns from draws of their posteriors (`musicvae/model/prior.py`). Validation windows tell by how many bits encoded
music of other songs is likelier under it than under N(0, I): the flow that is best there is kept, and none where that
is not above 0.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from musicvae.composer import Composer, load
from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.prior import PRIOR, Cloud, fit, save_prior
from musicvae.model.training import wants_bf16
from musicvae.music.dataset import Dataset

CPU, BATCH = torch.device("cpu"), 4096  # windows in memory at once


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, of a model that is whitened")
    parser.add_argument("data", type=Path, help="its data set")
    parser.add_argument("--windows", type=int, default=65_536, help="to learn from, and at most so many of validation")
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--decay", type=float, default=0.01, help="of the weights; more for fewer windows")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    composer, began = load(given.run), time.monotonic()
    dataset = Dataset(given.data).seen_as(composer.config.representation)
    train, validation = (posteriors(composer, dataset, split, given.windows) for split in ("train", "validation"))
    best = None
    for found in fit(train, validation, given.units, given.layers, given.steps, decay=given.decay):
        bits = f"{found.training:.1f} bits in training, {found.held_back:.1f} on validation windows"
        print(f"step {found.step:,}: {bits}, {time.monotonic() - began:.0f} s", flush=True)
        best = found if best is None or found.held_back > best.held_back else best
    if best is None or best.held_back <= 0:
        raise ValueError(
            f"{given.run}: no better than N(0, I) for other songs, so no prior is kept. Give more --windows"
        )
    model, config = load_run(given.run)
    prior = {"windows": len(train.mu), "steps": best.step, "bits": round(best.held_back, 1)}
    save_run(given.run, model, replace(config, trained=config.trained | {"prior": prior}))
    save_prior(given.run / PRIOR, best.flow)


def posteriors(composer: Composer, dataset: Dataset, split: str, most: int) -> Cloud:
    """Those of windows of a split, drawn by a seed; training windows are read again, transposed, until it is `most`."""
    tokens, rng = dataset.tokens(split), np.random.default_rng(0)
    if not len(tokens):
        raise ValueError(f"{dataset.folder}: no {split} windows (too few songs). Build it from more music")
    transpose = getattr(composer.representation, "transpose", None) if split == "train" else None
    parts, first, left = [], True, most
    while left > 0 and (first or transpose):
        chosen = np.sort(rng.permutation(len(tokens))[:left])
        for at in range(0, len(chosen), BATCH):
            windows = np.asarray(tokens[chosen[at : at + BATCH]], np.int64)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=wants_bf16("auto", CPU)):
                parts.append(composer.encode_tokens(windows if first else transpose(windows, rng)))
        first, left = False, left - len(chosen)
    return Cloud(*(torch.from_numpy(np.concatenate(column)) for column in zip(*parts)))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"prior.py: {error}")
