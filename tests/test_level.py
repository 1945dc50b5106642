"""The level of the window in closed form is the linear VAE of least rate."""

import math
from dataclasses import replace

import pytest
import torch

from musicvae.model.config import ModelConfig
from musicvae.model.level import install, solve
from musicvae.model.objective import kl_from_prior
from musicvae.model.vae import MusicVAE

torch.set_num_threads(1)  # models this small are slower on two

SIZES = {"latent_size": 8, "encoder_units": 12, "conductor_units": 10, "condition_size": 4, "decoder_units": 12}
LINEAR = ModelConfig((20, 6), 16, 4, encoder_bars=4, linear=True, **SIZES)
FLAT = ModelConfig((20, 6), 16, **SIZES)


def gaussian(variances: list[float], n: int = 4000) -> torch.Tensor:
    """Codes (n, D) of exactly these variances along orthogonal axes that are not those of the numbers."""
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(n, len(variances), generator=generator, dtype=torch.float64)
    white = (white - white.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.t(), correction=0))).t()
    axes = torch.linalg.qr(torch.randn(len(variances), len(variances), generator=generator, dtype=torch.float64)).Q
    return (white * torch.tensor(variances, dtype=torch.float64).sqrt()) @ axes.t() + 3


def test_rate_and_distortion_are_those_of_reverse_water_filling() -> None:
    codes = gaussian([4.0, 1.0, 0.25, 0.05])
    found = solve(codes, 4, distortion=0.1)
    assert found.bits == pytest.approx(0.5 * (math.log2(40) + math.log2(10) + math.log2(2.5)), rel=1e-6)
    mu = (codes - found.mean) @ found.encode.t()
    z = mu + found.sigma * torch.randn(mu.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    error = (z @ found.decode.t() + found.mean - codes).square().sum(1).mean()
    assert error.item() == pytest.approx(3 * 0.1 + 0.05, rel=0.02), "0.1 of each kept component, all of the other"
    kept = mu.var(0, correction=0)[:3] + found.sigma[:3].square()
    assert torch.allclose(kept, torch.ones_like(kept), atol=1e-6), "all windows together fill N(0, 1)"


def test_what_z_has_no_room_for_is_what_varies_least() -> None:
    codes = gaussian([4.0, 1.0, 0.25, 0.05])
    found = solve(codes, 2, distortion=1e-6)
    back = (codes - found.mean) @ found.encode.t() @ found.decode.t() + found.mean
    assert (back - codes).square().sum(1).mean().item() == pytest.approx(0.3, rel=1e-3)
    assert found.explained == pytest.approx(5 / 5.3, rel=1e-3)
    with pytest.raises(ValueError, match="5 numbers in z; the codes of a window have only 4"):
        solve(codes, 5, 0.1)


def test_installed_beside_lstms_it_is_all_that_a_hierarchical_model_says_at_first() -> None:
    torch.manual_seed(0)
    model = MusicVAE(LINEAR)
    tokens = torch.stack([torch.randint(v, (64, 16)) for v in (20, 6)], -1)
    with torch.no_grad():
        codes = model.to_summary(model.read(tokens)).reshape(64, -1)
    found = solve(codes, 8, distortion=float(codes.var(0).max()) / 50)
    install(model, found)
    posterior = model.encode(tokens)
    mu = ((codes.double() - found.mean) @ found.encode.t()).float()
    assert torch.allclose(posterior.mean, mu, atol=1e-4)
    assert torch.allclose(posterior.stddev, found.sigma.float().expand(64, -1), atol=1e-6)
    wanted = (mu.double() @ found.decode.t() + found.mean).float().unflatten(1, (4, 4))
    assert torch.allclose(model.conduct(mu), wanted, atol=1e-4)
    assert kl_from_prior(posterior).mean().item() / math.log(2) == pytest.approx(found.bits, abs=0.2)
    model.predict_steps(tokens, posterior.rsample())[0].square().sum().backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in (model.to_mu, model.to_sigma, model.to_condition))


def test_installed_in_a_flat_model_it_changes_z_and_not_the_music() -> None:
    torch.manual_seed(0)
    model = MusicVAE(FLAT)
    tokens = torch.stack([torch.randint(v, (64, 16)) for v in (20, 6)], -1)
    with torch.no_grad():
        mu = model.encode(tokens).mean
        before = model.predict_steps(tokens, mu)
        install(model, solve(mu, 8, distortion=1e-9))
        posterior = model.encode(tokens)
        after = model.predict_steps(tokens, posterior.mean)
    assert all(torch.allclose(one, two, atol=1e-3) for one, two in zip(before, after))
    assert torch.allclose(torch.cov(posterior.mean.t(), correction=0), torch.eye(8), atol=1e-3)


def test_a_linear_path_needs_an_encoder_of_as_many_bars() -> None:
    for changes in ({"bars": 1}, {"encoder_bars": 1}, {"encoder_bars": 2}):
        with pytest.raises(ValueError, match="linear needs as many encoder_bars as bars"):
            replace(LINEAR, **changes)
