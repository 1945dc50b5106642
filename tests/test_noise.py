"""The random numbers of a seed are torch's own, bit for bit: music written with torch stays the same without it."""

import numpy as np
import pytest
import torch

from musicvae.model import noise
from musicvae.model.vae import draw_prior, draw_uniforms

SEEDS = (*range(60), 2**31, 2**32 - 1, 2**32 + 5, 2**63 - 1)


def test_uniform_numbers_are_torchs() -> None:
    for seed in SEEDS:
        assert draw_uniforms(3, 12, 3, seed).numpy().tobytes() == noise.draw_uniforms(3, 12, 3, seed).tobytes()


@pytest.mark.parametrize("size", [1, 2, 5, 15, 16, 17, 31, 32, 96, 224])
def test_normal_numbers_are_torchs(size: int) -> None:
    """Below 16 torch makes them in double precision, in pairs that may straddle two calls; from 16 on by vectors."""
    if size >= 16 and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch computes without AVX2 here, and then rounds otherwise")
    for seed in SEEDS:
        assert draw_prior(3, size, seed).numpy().tobytes() == noise.draw_prior(3, size, seed).tobytes()


def test_many_normal_numbers_are_torchs() -> None:
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch computes without AVX2 here, and then rounds otherwise")
    expected = torch.randn(2**19, generator=torch.Generator().manual_seed(7)).numpy()
    assert expected.tobytes() == noise.Generator(7).normal(2**19).tobytes()


def test_they_are_normal() -> None:
    found = noise.Generator(3).normal(2**18)
    assert abs(found.mean()) < 0.01 and abs(found.std() - 1) < 0.01 and abs((np.abs(found) < 1).mean() - 0.6827) < 0.01
