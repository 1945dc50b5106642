"""The level of the window in closed form: the linear VAE of the codes that the stage of bars has learnt.

Shapes beyond those of vae.py:
    N windows   D numbers in the codes of a window: U*C summaries of bars, or for a flat model the Z numbers of mu

With the variances v of the principal components c of the codes, the code of least rate at a mean squared error d of
each number is reverse water-filling (Cover and Thomas, *Elements of Information Theory*, 2006, section 10.3.3):
components with v > d are kept, scaled by 1 - d/v, with noise of variance d (1 - d/v). Scaled to variance 1 that is a
posterior with mu = c sqrt(v - d) / v and sigma = sqrt(d / v); the best guess of the component is z sqrt(v - d).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from musicvae.model.vae import MusicVAE, StepDecoder

UNUSED = 0.1  # at most the deviation of mu of a number whose component is below the distortion; not 0, to learn


class Linear(NamedTuple):
    """mu = encode (codes - mean), codes = decode z + mean, sigma the same for all windows."""

    mean: Tensor  # (D,)
    encode: Tensor  # (Z, D)
    decode: Tensor  # (D, Z)
    sigma: Tensor  # (Z,)
    bits: float  # KL of a window from N(0, 1), mean
    explained: float  # share of the variance of the codes that comes back


def solve(codes: Tensor, size: int, distortion: float) -> Linear:
    """The linear VAE of codes (N, D) with `size` numbers in z, at a mean squared error `distortion` of each number.

    In double precision. Raises ValueError for fewer numbers in the codes than in z.
    """
    if codes.shape[1] < size:
        raise ValueError(f"{size} numbers in z; the codes of a window have only {codes.shape[1]}")
    mean = codes.mean(0, dtype=torch.float64)
    variances, axes = torch.linalg.eigh(covariance(codes, mean))
    variances, axes = variances.flip(0)[:size].clamp(min=1e-12), axes.flip(1)[:, :size]
    kept = variances > distortion
    signal = (variances - distortion).clamp(min=0).sqrt()
    sigma = torch.where(kept, (distortion / variances).sqrt(), math.sqrt(1 - UNUSED**2))
    scale = torch.where(kept, signal / variances, UNUSED / math.sqrt(distortion))
    bits = float(torch.where(kept, (variances / distortion).log2() / 2, 0).sum())
    back = float(signal.square().sum()) / float(codes.double().var(0, correction=0).sum())
    return Linear(mean, scale.unsqueeze(1) * axes.t(), axes * signal, sigma, bits, back)


def covariance(codes: Tensor, mean: Tensor) -> Tensor:
    """That of codes (N, D), summed in parts so that they need not be in double precision all at once."""
    total = torch.zeros(codes.shape[1], codes.shape[1], dtype=torch.float64)
    for part in codes.split(4096):
        apart = part.double() - mean
        total += apart.t() @ apart
    return total / len(codes)


@torch.no_grad()
def install(model: MusicVAE, found: Linear) -> None:
    """Makes it the level of the window: beside LSTMs that contribute nothing yet, or inside the layers around z."""
    sigma = found.sigma.expm1().log()  # softplus undone
    shift = -(found.encode @ found.mean)
    model.to_sigma.weight.zero_()
    model.to_sigma.bias.copy_(sigma)
    if model.config.linear:
        model.to_mu.weight.zero_()
        model.to_mu.bias.copy_(shift)
        model.linear_mu.weight.copy_(found.encode)
        model.linear_condition.weight.copy_(found.decode)
        model.linear_condition.bias.copy_(found.mean)
        model.to_condition.weight.zero_()
        model.to_condition.bias.zero_()
        return
    model.to_mu.bias.copy_(found.encode @ model.to_mu.bias.double() + shift)
    model.to_mu.weight.copy_(found.encode @ model.to_mu.weight.double())
    for takes, bias in takers(model):
        others, taking = takes.double().tensor_split([-model.config.latent_size], dim=1)  # tokens come before z
        bias.copy_(bias.double() + taking @ found.mean)
        takes.copy_(torch.cat([others, taking @ found.decode], dim=1))


def takers(model: MusicVAE) -> list[tuple[Tensor, Tensor]]:
    """The weights and biases of the layers that take z, of a flat model."""
    (decoder,) = model.decoders
    assert isinstance(decoder, StepDecoder)
    dense, lstm = decoder.start.dense, decoder.lstm
    return [(dense.weight, dense.bias), (lstm.weight_ih_l0, lstm.bias_ih_l0)]  # type: ignore[list-item]
