"""What training minimises and how its weights change over time: the settings, equation 4, the schedules."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional as F

from musicvae.model.vae import Output

REPORTING = ("log_every", "validate_every", "listen_every", "checkpoint_every", "validation_windows")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; the defaults scale with `steps`. Raises ValueError where a value makes no sense."""

    steps: int = 10_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    learning_rate_schedule: str = "cosine"  # or exponential, the paper's: x 0.9999 a step, whatever `steps`
    warmup: float = 0.02  # share of the steps in which the cosine schedule climbs from 0
    beta: float = 0.2  # weight of the KL term in the end
    beta_schedule: str = "ramp"  # linear between beta_from and beta_until; constant; exponential, the paper's
    beta_from: float = 0.0  # share of the steps
    beta_until: float = 0.5  # share of the steps
    free_bits: float = 48.0  # a window may carry so many bits in z free of charge
    token_dropout: float = 0.0  # share of the steps that the decoder does not hear, at first; falls to 0 in the end
    scheduled_sampling: float = 0.0  # share of the steps that the decoder hears as it would write them, in the end
    bars_share: float = 0.0  # share of the steps in which bars are learnt by themselves, before whole windows
    prior_share: float = 0.0  # share of the steps in which a prior of samples is learnt, after whole windows
    forms: float = 0.0  # share of whole windows in training whose bars are rearranged so that they return
    distortion: float = 0.06  # mean squared error of each number of a code at which whole windows begin
    hidden_streams: float = 0.0  # share of whole windows of which the encoder sees only some of the streams
    clip_norm: float = 1.0  # longest gradient, over all weights together
    seed: int = 0
    precision: str = "auto"  # fp32; bf16; auto: bf16 where the machine is fast at it
    log_every: int = 50  # this and the following in steps; 0 is never
    validate_every: int = 500
    listen_every: int = 1000
    checkpoint_every: int = 500
    validation_windows: int = 1024  # at most so many, drawn once from the seed

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("seed", 0), *((name, 0) for name in REPORTING)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)!r}; must be an integer of at least {least}")
        for name in ("learning_rate", "final_learning_rate", "beta", "free_bits", "distortion", "clip_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}; must not be negative")
        if self.seed >= 2**63:
            raise ValueError(f"seed is {self.seed}; must be below 2^63")
        for name in ("token_dropout", "scheduled_sampling", "bars_share", "prior_share", "forms", "hidden_streams"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; must be a share from 0 to 1")
        if self.bars_share and not self.distortion:
            raise ValueError("distortion is 0, which takes bits without end; must be more")
        if self.bars_share + self.prior_share >= 1:
            raise ValueError("bars_share and prior_share leave no steps for whole windows; their sum must be below 1")
        if not 0 <= self.beta_from <= self.beta_until <= 1 or not 0 <= self.warmup <= 1:
            raise ValueError("warmup, beta_from and beta_until are shares of the steps, from 0 to 1, in this order")
        choices = {
            "learning_rate_schedule": ("cosine", "exponential"),
            "beta_schedule": ("ramp", "constant", "exponential"),
            "precision": ("auto", "fp32", "bf16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; must be one of {', '.join(allowed)}")


class Objective(NamedTuple):
    loss: Tensor  # scalar: what is minimised
    reconstruction: Tensor  # (B,) cross entropy in nats, summed over steps and streams
    kl: Tensor  # (B,) in nats, summed over z
    right: Tensor  # (B, T, streams) whether the most likely token is the true one


def objective(output: Output, tokens: Tensor, beta: float, free_bits: float) -> Objective:
    """Equation 4 with beta and free bits (section 4.1): mean of [cross entropy + beta * max(KL - tau, 0)]."""
    reconstruction, right = torch.zeros(len(tokens), device=tokens.device), []
    for logits, stream in zip(output.logits, tokens.unbind(-1)):  # (B, T, V), (B, T)
        nats = F.cross_entropy(logits.float().flatten(0, 1), stream.flatten(), reduction="none")
        reconstruction = reconstruction + nats.unflatten(0, stream.shape).sum(-1)
        right.append(logits.detach().argmax(-1) == stream)
    kl = kl_from_prior(output.posterior)
    above = F.relu(kl - free_bits * math.log(2))  # below the free bits the KL has no gradient
    return Objective((reconstruction + beta * above).mean(), reconstruction, kl, torch.stack(right, -1))


def kl_from_prior(posterior: Normal) -> Tensor:
    """KL(q(z|x) || N(0, 1)) of each example (B,), in nats, in float32."""
    mu, sigma = posterior.mean.float(), posterior.stddev.float()
    return ((mu.square() + sigma.square() - 1) / 2 - sigma.log()).sum(-1)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of the update after `step` updates."""
    high, low = config.learning_rate, config.final_learning_rate
    if config.learning_rate_schedule == "exponential":
        return low + (high - low) * 0.9999**step
    warmup = round(config.warmup * config.steps)
    if step < warmup:
        return high * (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    return low + (high - low) * (1 + math.cos(math.pi * done)) / 2


def kl_weight(config: TrainingConfig, step: int) -> float:
    """Beta of the update after `step` updates."""
    if config.beta_schedule == "constant":
        return config.beta
    if config.beta_schedule == "exponential":
        return config.beta * (1 - 0.99999**step)
    start, end = config.beta_from * config.steps, config.beta_until * config.steps
    return (
        config.beta * min(1.0, max(0.0, (step - start) / (end - start))) if end > start else config.beta * (step >= end)
    )


def dropout(config: TrainingConfig, step: int) -> float:
    """Share of the steps that the decoder does not hear after `step` updates (Bowman et al. 2016, section 3.1)."""
    return config.token_dropout * (1 - step / config.steps)


def own_share(config: TrainingConfig, step: int) -> float:
    """Share of the steps that the decoder hears as it would write them after `step` updates (Bengio et al. 2015)."""
    return config.scheduled_sampling * step / config.steps


def sums(result: Objective) -> Tensor:
    """Examples, then sums over them: loss, reconstruction, KL, steps all right, steps right in each stream."""
    right = result.right.float().mean(1)  # (B, streams)
    whole = result.right.all(-1).float().mean(1)
    size = len(right)
    rows = [result.loss.new_tensor(float(size)), result.loss * size, result.reconstruction.sum(), result.kl.sum()]
    return torch.cat([torch.stack([*rows, whole.sum()]), right.sum(0)]).detach()


def figures(tally: Tensor, steps: int) -> dict[str, Any]:
    """Means by name from the `sums` of some batches; reconstruction in nats a step, KL in bits a window."""
    count, loss, reconstruction, kl, whole, *streams = tally.tolist()
    return {
        "loss": loss / count,
        "reconstruction": reconstruction / count / steps,
        "accuracy": whole / count,
        "accuracy_streams": [stream / count for stream in streams],
        "kl_bits": kl / count / math.log(2),
    }
