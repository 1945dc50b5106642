"""A trained 16-bar model made ready for the lessons of `levels.py` once more.

    python paper/refit.py melody-16 data/melody-16 runs/refit-melody-16 --latent 256
    python paper/levels.py bars runs/refit-melody-16 data/melody-16 runs/bars-melody-16

Equation 4 does not ask a bar's summary to be the condition that its decoders hear: both levels drift apart, and the
lesson of bars would begin with decoders that do not understand the summaries. What the encoder ends with after a bar
says the condition all the same, through one dense layer: here `to_summary` becomes the one that says it best (least
squares, over training windows), and bars are read back better than through z at once. Reader and conductor stay, for
the lesson of windows to go on from; `--latent` gives z further numbers, which say nothing yet.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from levels import check_levels
from torch import Tensor
from whiten import dense_layer

from musicvae.box import find_model
from musicvae.evaluation.reconstruction import draw_windows
from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.config import RunConfig
from musicvae.model.feed import draw_noise
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import Dataset

WINDOWS, BATCH = 1024, 128


@torch.no_grad()
def refit(model: MusicVAE, windows: np.ndarray) -> float:
    """Changes `to_summary`; returns the share of the variance of conditions that it explains.

    windows (N, T, streams).
    """
    ends: list[Tensor] = []
    conditions: list[Tensor] = []
    for i in range(0, len(windows), BATCH):
        read = model.read(torch.from_numpy(np.asarray(windows[i : i + BATCH], np.int64)))
        ends.append(read.double())
        conditions.append(model.conduct(model.posterior(read).mean).flatten(0, 1).double())
    wanted, inputs = torch.cat(conditions), torch.cat(ends)
    weight, bias = dense_layer(inputs, wanted)
    model.to_summary.weight.copy_(weight)
    model.to_summary.bias.copy_(bias)
    wrong = (inputs @ weight.t() + bias - wanted).square().sum()
    return 1 - float(wrong / (wanted - wanted.mean(0)).square().sum())


@torch.no_grad()
def lengthened(model: MusicVAE, size: int) -> MusicVAE:
    """The same model with `size` numbers in z; those added have the posterior N(0, 1) for all music.

    Raises ValueError for fewer numbers than there are.
    """
    more = size - model.config.latent_size
    if more < 0:
        raise ValueError(
            f"{size} numbers in z; the model has {model.config.latent_size}. `whiten.py --keep` takes some"
        )
    weights = dict(model.state_dict())
    for layer, bias in (("to_mu", 0.0), ("to_sigma", math.log(math.e - 1))):  # softplus of it is 1
        matrix = weights[f"{layer}.weight"]
        weights[f"{layer}.weight"] = torch.cat([matrix, matrix.new_zeros(more, matrix.shape[1])])
        weights[f"{layer}.bias"] = torch.cat([weights[f"{layer}.bias"], matrix.new_full((more,), bias)])
    start = weights["conductor_start.dense.weight"]
    columns = draw_noise((len(start), more), 0, 9) / size  # not zero: nothing would be learnt through them
    weights["conductor_start.dense.weight"] = torch.cat([start, columns], dim=1)
    longer = MusicVAE(replace(model.config, latent_size=size)).eval()
    longer.load_state_dict(weights)
    return longer


def history(run: RunConfig) -> dict[str, Any]:
    """What is kept of the lessons before this: those of the run's own start, and equation 4."""
    given = (run.trained.get("from") or {}).get("source", "nothing")
    before = given if isinstance(given, dict) else {"began_with": given, "lessons": []}
    done = {key: run.trained[key] for key in ("steps", "seconds")} | {"batch_size": run.training["batch_size"]}
    return {**before, "lessons": [*before["lessons"], {"lesson": "equation 4", **done}]}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder, or name of a model in the box")
    parser.add_argument("data", type=Path, help="its data set")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--latent", type=int, metavar="NUMBERS", help="in z; by default as many as it has")
    given = parser.parse_args(arguments)
    if given.out.exists():
        raise ValueError(f"{given.out} is there already. Move it away, or give another folder")
    start = load_run(find_model(given.run))
    model, sizes = start.model, start.config.model
    check_levels(given.run, sizes)
    if not {"steps", "seconds"} <= start.config.trained.keys() or "batch_size" not in start.config.training:
        raise ValueError(f"{given.run} was not trained by equation 4. Give a finished training")
    tokens = Dataset(given.data).seen_as(start.config.representation).tokens("train")
    rows = draw_windows(len(tokens), WINDOWS, 0)
    explained = refit(model, np.asarray(tokens[rows]))
    model = lengthened(model, sizes.latent_size if given.latent is None else given.latent)
    source = history(start.config)
    save_run(given.out, model, replace(start.config, name="refit", model=model.config, trained={"source": source}))
    print(f"{given.out}: summaries explain {explained:.1%} of the conditions of {len(rows):,} windows")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"refit.py: {error}")
