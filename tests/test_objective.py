"""The objective is that of the paper (equation 4), and so are its schedules."""

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from musicvae.model.config import ModelConfig
from musicvae.model.objective import (
    TrainingConfig,
    figures,
    kl_from_prior,
    kl_weight,
    learning_rate,
    objective,
    sums,
)
from musicvae.model.vae import MusicVAE, Output

torch.set_num_threads(1)  # models this small are slower on two


def some_output(scale: float = 1.0, n: int = 3) -> tuple[Output, torch.Tensor]:
    torch.manual_seed(0)
    mu, raw = (torch.randn(n, 8).mul(scale).requires_grad_() for _ in range(2))
    logits = [torch.randn(n, 5, v, requires_grad=True) for v in (4, 6)]
    tokens = torch.stack([torch.randint(v, (n, 5)) for v in (4, 6)], dim=-1)
    return Output(Normal(mu, torch.nn.functional.softplus(raw)), logits), tokens


def test_reconstruction_is_summed_over_steps_and_streams() -> None:
    output, tokens = some_output()
    result = objective(output, tokens, beta=0.0, free_bits=0.0)
    for i in range(3):
        chosen = [
            logits.log_softmax(-1)[i, t, tokens[i, t, s]] for s, logits in enumerate(output.logits) for t in range(5)
        ]
        assert math.isclose(result.reconstruction[i].item(), -sum(c.item() for c in chosen), rel_tol=1e-5)
    assert torch.allclose(result.loss, result.reconstruction.mean())


def test_loss_is_reconstruction_and_beta_times_the_kl_above_the_free_bits() -> None:
    output, tokens = some_output()
    kl = kl_divergence(output.posterior, Normal(0.0, 1.0)).sum(-1)
    budget = kl.sort().values[1].item()  # in nats: one example below, one above
    result = objective(output, tokens, beta=0.3, free_bits=budget / math.log(2))
    wanted = (result.reconstruction + 0.3 * (kl - budget).clamp(min=0)).mean()
    assert torch.allclose(result.loss, wanted) and torch.allclose(result.kl, kl)


def test_kl_is_that_of_the_sigma_that_is_sampled() -> None:
    """E[log q(z|x) - log p(z)] over the z that the model itself draws from its noise."""
    torch.manual_seed(0)
    sizes = {"latent_size": 8, "encoder_units": 16, "conductor_units": 16, "condition_size": 8, "decoder_units": 16}
    model, heard = MusicVAE(ModelConfig((20,), 16, 4, **sizes)), []
    with torch.no_grad():
        model.to_sigma.bias.fill_(-2.0)
        model.to_mu.weight.mul_(5)
    model.predict_steps = lambda tokens, z, unheard: heard.append(z) or []  # type: ignore[assignment, func-returns-value]
    tokens = torch.randint(20, (1, 16, 1)).repeat(20000, 1, 1)
    with torch.no_grad():
        output = model(tokens)
    (z,), q = heard, output.posterior
    estimate = (Normal(q.mean, q.stddev).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(-1)
    kl = kl_from_prior(q)[0].item()
    assert abs(estimate.mean().item() - kl) < 5 * estimate.std().item() / math.sqrt(20000) and kl > 5
    assert math.isclose(z.std(0).mean().item(), q.stddev[0].mean().item(), rel_tol=0.02)
    assert math.isclose(kl, kl_divergence(q, Normal(0.0, 1.0)).sum(-1)[0].item(), rel_tol=1e-5)


@pytest.mark.parametrize(("free_bits", "flows"), [(0.0, True), (1000.0, False)])
def test_below_the_free_bits_the_kl_has_no_gradient(free_bits: float, flows: bool) -> None:
    output, tokens = some_output()
    objective(output, tokens, beta=1.0, free_bits=free_bits).loss.backward()
    gradient = output.posterior.mean.grad
    assert gradient is not None and bool(gradient.any()) == flows


def test_accuracy_is_the_share_of_right_steps_a_stream_and_of_all_streams() -> None:
    output, tokens = some_output()
    tokens[:2] = torch.stack([logits.argmax(-1) for logits in output.logits], -1)[:2]
    tokens[0, 0, 0] = (tokens[0, 0, 0] + 1) % 4
    right = torch.stack([logits.argmax(-1) for logits in output.logits], -1) == tokens
    line = figures(sums(objective(output, tokens, 0.0, 0.0)), steps=5)
    assert line["accuracy_streams"] == pytest.approx(right.float().mean((0, 1)).tolist())
    assert line["accuracy"] == pytest.approx(right.all(-1).float().mean().item())
    assert 0 < line["accuracy"] < min(line["accuracy_streams"])


# --- schedules -------------------------------------------------------------------------------------------------


def test_the_exponential_schedules_are_those_of_the_paper() -> None:
    config = TrainingConfig(steps=50_000, beta=0.2, beta_schedule="exponential", learning_rate_schedule="exponential")
    assert learning_rate(config, 0) == 1e-3 and kl_weight(config, 0) == 0.0
    assert learning_rate(config, 10_000) == pytest.approx(1e-5 + 9.9e-4 * 0.36786104643)
    assert kl_weight(config, 5_000) == pytest.approx(0.2 * 0.04877081297)
    assert kl_weight(config, 100_000) == pytest.approx(0.2 * 0.63212239806)
    assert learning_rate(replace(config, steps=7), 10_000) == learning_rate(config, 10_000)


def test_the_other_schedules_scale_with_the_steps() -> None:
    for steps in (100, 1000):
        config = TrainingConfig(steps=steps, warmup=0.1, beta=0.4, beta_from=0.2, beta_until=0.6)
        rates = [learning_rate(config, step) for step in range(steps)]
        assert max(rates) == rates[steps // 10] == rates[steps // 10 - 1] == 1e-3 and rates[0] == 1e-2 / steps
        assert rates[steps * 11 // 20] == pytest.approx((1e-3 + 1e-5) / 2) and 1e-5 < rates[-1] < 1.4e-5
        assert rates[steps // 10 :] == sorted(rates[steps // 10 :], reverse=True)
        betas = [kl_weight(config, steps * percent // 100) for percent in (0, 20, 40, 60, 99)]
        assert betas == pytest.approx([0, 0, 0.2, 0.4, 0.4])
    assert kl_weight(TrainingConfig(beta=0.2, beta_schedule="constant"), 0) == 0.2
    assert learning_rate(TrainingConfig(warmup=0.0), 0) == 1e-3
