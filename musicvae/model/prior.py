"""A prior that is like encoded music, and its file: N(0, I) turned into q(z), the mean of q(z|x) over windows x.

The paper draws z from N(0, I). As long as the KL is large q(z) is something else, and what is drawn lies where no music
was ever encoded. A prior is learnt after the model, which it leaves as it is (a second stage, as in Dai and Wipf,
*Diagnosing and enhancing VAE models*, 2019): a flow of all of z (`flow.py`), or for models whose encoder sums up bars a
prior of one bar after another (`bar_prior.py`). Here priors are learnt and saved; `drawing.py` draws from them.

    N windows   Z latent   U bars   C numbers of a summary
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from musicvae.files import replacing
from musicvae.model.bar_prior import BarPrior
from musicvae.model.config import PRIOR  # noqa: F401 (where a prior is saved)
from musicvae.model.flow import Flow

LEAST_WINDOWS = 20
Prior = Flow | BarPrior


class Progress(NamedTuple):
    step: int
    prior: Prior
    training: float  # bits, of this step
    held_back: float  # bits, over windows of other songs


class Cloud(NamedTuple):
    """Posteriors of N windows: mu (N, Z) and sigma (N, Z)."""

    mu: Tensor
    sigma: Tensor

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """A vector z (rows, Z) of each of these posteriors."""
        mu = self.mu[rows]
        return mu + self.sigma[rows] * torch.randn(mu.shape, generator=generator)


class Summaries(NamedTuple):
    """What the encoder sums up the bars of N windows in (N, U, C), and the deviation of the noise that is added."""

    values: Tensor
    grain: float

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Those of these windows (rows, U, C), with noise."""
        values = self.values[rows].float()
        return values + self.grain * torch.randn(values.shape, generator=generator)


def fit(
    prior: Prior,
    windows: Cloud | Summaries,
    held_back: Cloud | Summaries,
    steps: int,
    batch_size: int = 512,
    rate: float = 2e-3,
    decay: float = 0.01,
    seed: int = 0,
    every: int = 500,
) -> Iterator[Progress]:
    """Teaches a flow posteriors of windows, or a prior of bars their summaries; reports now and then, and at the end.

    `held_back` are of other songs, which it does not learn from; the prior of each report is a copy.
    Raises ValueError for fewer than LEAST_WINDOWS of either.
    """
    count, apart = len(windows[0]), len(held_back[0])
    if min(count, apart) < LEAST_WINDOWS:
        raise ValueError(
            f"{min(count, apart)} windows are too few to learn a prior from, or to test it; needs {LEAST_WINDOWS}"
        )
    drawn = torch.Generator().manual_seed(seed)
    adam = torch.optim.AdamW(prior.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps)
    others = held_back.draw(torch.arange(apart), drawn)
    for step in range(1, steps + 1):
        bits = prior.bits(windows.draw(torch.randint(count, (batch_size,), generator=drawn), drawn))
        adam.zero_grad()
        (-bits).backward()
        nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % every == 0 or step == steps:
            with torch.no_grad():
                yield Progress(step, copy.deepcopy(prior), float(bits.detach()), float(prior.bits(others)))


def save_prior(path: str | Path, prior: Prior, half: bool = True) -> None:
    """Writes a prior, its weights in fp16 or fp32; the file is the old one or the new one at every moment."""
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for name, value in prior.state_dict().items()
    }
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors))
