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
from torch import Tensor

from musicvae.evaluation.reconstruction import draw_windows
from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.objective import kl_from_prior
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import Dataset

WINDOWS, BATCH = 16384, 256
LEAST_SIGMA = 1e-6  # of which softplus can be undone
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


def dense_layer(inputs: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """inputs (N, 2H), wanted (N, D) -> weight (D, 2H) and bias (D) of the layer nearest to it by least squares."""
    before = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1)
    ridge = RIDGE * len(before) * inputs.square().mean() * torch.eye(before.shape[1], dtype=before.dtype)
    layer = torch.linalg.solve(before.t() @ before + ridge, before.t() @ wanted)
    return layer[:-1].t(), layer[-1]


@torch.no_grad()
def whiten(model: MusicVAE, found: Read, keep: int | None = None) -> MusicVAE:
    """A model whose z is turned and scaled, and is as long as `keep` says, without what carries least.

    Raises ValueError for fewer windows than numbers in z, and where there are not as many numbers to keep.
    """
    size = found.mu.shape[1]
    keep = size if keep is None else keep
    if len(found.mu) <= size:
        raise ValueError(f"{len(found.mu)} windows say too little of {size} numbers; more are needed")
    if not 1 <= keep <= size:
        raise ValueError(f"{keep} numbers to keep; z has {size}")
    mean, noise = found.mu.mean(0), found.sigma.square().mean(0)
    scale = noise.sqrt()
    aggregate = torch.cov((found.mu / scale).t()) + torch.eye(size, dtype=noise.dtype)
    lengths, axes = (part.flip(-1)[..., :keep] for part in torch.linalg.eigh(aggregate))
    there = (axes / lengths.sqrt()).t() / scale  # (keep, Z): z' = there @ (z - mean)
    back = scale.unsqueeze(1) * axes * lengths.sqrt()

    sigma = (found.sigma.square() @ there.square().t()).sqrt().clamp(min=LEAST_SIGMA)
    to_sigma, sigma_bias = dense_layer(found.summary, sigma.expm1().log())  # undoes softplus
    tensors = {name: value.double() for name, value in model.state_dict().items()}
    tensors["to_sigma.weight"], tensors["to_sigma.bias"] = to_sigma, sigma_bias
    tensors["to_mu.bias"] = there @ (tensors["to_mu.bias"] - mean)
    tensors["to_mu.weight"] = there @ tensors["to_mu.weight"]
    takers = [("conductor_start.dense.weight", "conductor_start.dense.bias")]
    if model.config.bars == 1:
        takers = [("start.dense.weight", "start.dense.bias"), ("lstm.weight_ih_l0", "lstm.bias_ih_l0")]
        takers = [(f"decoders.{n}.{w}", f"decoders.{n}.{b}") for n in range(len(model.decoders)) for w, b in takers]
    for weight, bias in takers:  # what took z takes z', where z = mean + back @ z'; tokens come before z
        others, taking = tensors[weight].tensor_split([-size], dim=1)
        tensors[weight] = torch.cat([others, taking @ back], dim=1)
        tensors[bias] = tensors[bias] + taking @ mean
    smaller = MusicVAE(replace(model.config, latent_size=keep)).eval()
    smaller.load_state_dict({name: value.to(torch.float32) for name, value in tensors.items()})
    return smaller


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("data", type=Path, help="its data set: training windows are encoded")
    parser.add_argument("out", type=Path)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--keep", type=int, help="numbers of z to keep: those that carry most; by default all")
    given = parser.parse_args()
    if given.out.exists():
        raise ValueError(f"{given.out} is there already. Move it away, or give another folder")
    model, config = load_run(given.run)
    tokens = Dataset(given.data).seen_as(config.representation).tokens("train")
    windows = np.asarray(tokens[draw_windows(len(tokens), given.windows, 0)])
    before = read(model, windows)
    model = whiten(model, before, given.keep)
    after = read(model, windows)
    kept, size = after.mu.shape[1], before.mu.shape[1]
    trained = {k: v for k, v in config.trained.items() if k != "prior"} | {"whitened": len(windows)}
    if kept < size:
        trained |= {"cut_from": size}
    save_run(given.out, model, replace(config, model=model.config, trained=trained))
    sizes = f"{kept} numbers, before {size}; {len(windows):,} windows"
    print(f"{given.out}: {after.kl:.1f} bits a window, before {before.kl:.1f}; {sizes}")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"whiten.py: {error}")
