"""What N(0, I) has to become to be like encoded music: a flow beside the weights of a run, which samples go through.

    python paper/prior.py runs/melody-16-white data/melody-16

Training windows are encoded once, and the flow learns from draws of their posteriors (`musicvae/model/prior.py`). One
window in ten is held back, to tell by how many bits encoded music is likelier under it than under N(0, I).
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from musicvae.composer import load
from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.prior import PRIOR, fit, save_prior
from musicvae.music.dataset import Dataset


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, of a model that is whitened")
    parser.add_argument("data", type=Path, help="its data set")
    parser.add_argument("--windows", type=int, default=65_536, help="at most so many")
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    composer, began = load(given.run), time.monotonic()
    tokens = Dataset(given.data).seen_as(composer.config.representation).tokens("train")
    chosen = np.random.default_rng(0).permutation(len(tokens))[: given.windows]
    q = composer.encode_tokens(np.asarray(tokens[np.sort(chosen)]))
    shuffled = np.random.default_rng(1).permutation(len(chosen))  # windows of one song lie side by side
    posterior = (torch.from_numpy(part[shuffled]) for part in q)
    for found in fit(*posterior, given.units, given.layers, given.steps):
        bits = f"{found.training:.1f} bits in training, {found.held_back:.1f} held back"
        print(f"step {found.step:,}: {bits}, {time.monotonic() - began:.0f} s", flush=True)
    model, config = load_run(given.run)
    prior = {"windows": len(chosen), "steps": given.steps, "bits": round(found.held_back, 1)}
    save_run(given.run, model, replace(config, trained=config.trained | {"prior": prior}))
    save_prior(given.run / PRIOR, found.flow)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"prior.py: {error}")
