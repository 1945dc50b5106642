"""A run with its latent space turned and scaled until encoded music fills N(0, I), which samples are drawn from.

    python paper/whiten.py runs/melody-16 data/melody-16 runs/melody-16-white

Below the free bits nothing asks the posteriors of all windows together, q(z) = mean of q(z|x), to look like the
prior: some directions are never filled, others overflow, numbers that go together are drawn apart, and the KL pays
for all of it. With m and C the mean and covariance of q(z) and S the mean of sigma squared, z' = W (z - m) has the
covariance I where W C W' = I, and W S W' is diagonal: noise stays independent between numbers, on average. One matrix
does both (the generalised eigenvectors of C and S), and goes into the dense layers before and after z:
reconstructions are the same, the KL is less by that of the Gaussian (m, C) from N(0, I), and the numbers of z' are in
order of what they carry, most first. Sigma, softplus of a dense layer, becomes the closest of its kind by least
squares.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.objective import kl_from_prior
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import Dataset

WINDOWS, BATCH = 16384, 256
RIDGE = 1e-4  # of the mean square of what the encoder ends with


class Read(NamedTuple):
    summary: Tensor  # (N, 2H): what the layers of mu and sigma see
    mu: Tensor  # (N, Z)
    sigma: Tensor  # (N, Z)
    kl: float  # bits, mean over windows


@torch.no_grad()
def read(model: MusicVAE, tokens: np.ndarray) -> Read:
    """The posteriors of windows (N, T, streams), in double precision."""
    seen: list[Tensor] = []
    hook = model.to_mu.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batches = (torch.from_numpy(np.asarray(tokens[i : i + BATCH], np.int64)) for i in range(0, len(tokens), BATCH))
    posteriors = [model.encode(batch) for batch in batches]
    hook.remove()
    kl = torch.cat([kl_from_prior(p) for p in posteriors]).mean() / np.log(2)
    mu, sigma = torch.cat([p.mean for p in posteriors]), torch.cat([p.stddev for p in posteriors])
    return Read(torch.cat(seen).double(), mu.double(), sigma.double(), float(kl))


@torch.no_grad()
def whiten(model: MusicVAE, found: Read) -> None:
    """Changes the layers before and after z in place. ValueError for fewer windows than numbers in z."""
    if len(found.mu) <= found.mu.shape[1]:
        raise ValueError(f"{len(found.mu)} windows say too little of {found.mu.shape[1]} numbers; more are needed")
    mean, noise = found.mu.mean(0), found.sigma.square().mean(0)
    scale = noise.sqrt()
    aggregate = torch.cov((found.mu / scale).t()) + torch.eye(len(noise), dtype=noise.dtype)
    lengths, axes = (part.flip(-1) for part in torch.linalg.eigh(aggregate))
    there = (axes / lengths.sqrt()).t() / scale  # (Z, Z): z' = there @ (z - mean)
    back = scale.unsqueeze(1) * axes * lengths.sqrt()

    sigma = (found.sigma.square() @ there.square().t()).sqrt()
    before = torch.cat([found.summary, torch.ones_like(found.summary[:, :1])], dim=1)
    ridge = RIDGE * len(before) * found.summary.square().mean() * torch.eye(before.shape[1], dtype=sigma.dtype)
    to_sigma = torch.linalg.solve(before.t() @ before + ridge, before.t() @ sigma.expm1().log())  # undoes softplus
    model.to_sigma.weight.copy_(to_sigma[:-1].t())
    model.to_sigma.bias.copy_(to_sigma[-1])
    model.to_mu.bias.copy_(there @ (model.to_mu.bias.double() - mean))
    model.to_mu.weight.copy_(there @ model.to_mu.weight.double())
    if model.config.bars > 1:
        turn(model.conductor_start.dense.weight, model.conductor_start.dense.bias, back, mean)
        return
    for decoder in model.decoders:
        turn(decoder.start.dense.weight, decoder.start.dense.bias, back, mean)  # type: ignore[union-attr, arg-type]
        lstm = decoder.lstm
        assert isinstance(lstm, nn.LSTM)
        turn(lstm.weight_ih_l0[:, -len(mean) :], lstm.bias_ih_l0, back, mean)


def turn(weight: Tensor, bias: Tensor, back: Tensor, mean: Tensor) -> None:
    """A layer that took z, in place: it takes z', where z = mean + back @ z'."""
    bias += (weight.double() @ mean).to(bias.dtype)
    weight.copy_(weight.double() @ back)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("data", type=Path, help="its data set: training windows are encoded")
    parser.add_argument("out", type=Path)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    given = parser.parse_args()
    model, config = load_run(given.run)
    tokens = Dataset(given.data).seen_as(config.representation).tokens("train")
    rows = np.sort(np.random.default_rng(0).permutation(len(tokens))[: given.windows])
    windows = np.asarray(tokens[rows])
    before = read(model, windows)
    whiten(model, before)
    after = read(model, windows)
    save_run(given.out, model, replace(config, trained=config.trained | {"whitened": len(windows)}))
    print(f"{given.out}: {after.kl:.1f} bits a window, before {before.kl:.1f}; {len(windows):,} windows")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"whiten.py: {error}")
