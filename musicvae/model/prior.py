"""A prior that is like encoded music, and its file: N(0, I) turned into q(z), the mean of q(z|x) over windows x.

The paper draws z from N(0, I). As long as the KL is large q(z) is something else, and what is drawn lies where no music
was ever encoded. A prior is learnt after the model, which it leaves as it is (a second stage, as in Dai and Wipf,
*Diagnosing and enhancing VAE models*, 2019): a flow of all of z (`flow.py`), or for models whose encoder sums up bars a
prior of one bar after another (`bar_prior.py`).

    N windows   Z latent   U bars   C numbers of a summary
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from musicvae.files import replacing
from musicvae.model.bar_prior import BarPrior
from musicvae.model.flow import Flow

PRIOR = "prior.safetensors"
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


def load_prior(path: str | Path, latent_size: int, summary_size: int = 0) -> Prior:
    """The prior of a file, in double precision; summary_size is C, or 0 for a model that does not sum up bars.

    Raises ValueError for what is none, or of other sizes.
    """
    path = Path(path)
    try:
        prior = _like(safetensors.torch.load_file(path), latent_size, summary_size)
    except (SafetensorError, OSError, ValueError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise ValueError(f"{path}: cannot be used ({why}). Copy it again, or delete it to draw from N(0, I)") from None
    return prior.double().eval()


def _like(tensors: dict[str, Tensor], latent_size: int, summary_size: int) -> Prior:
    """The prior whose tensors these are. Raises ValueError, before it makes anything large, where they are of none."""
    bars = "memory.weight_hh_l0" in tensors
    within = "flow." if bars else ""
    order, bias = tensors.get(f"{within}order"), tensors.get(f"{within}couplings.0.0.bias")
    if order is None or bias is None or order.ndim != 2 or bias.ndim != 1:
        raise ValueError("it holds no flow")
    (layers, size), units = order.shape, len(bias)
    if bars and not summary_size:
        raise ValueError("it is a prior of bars, which the model's encoder does not sum up")
    if size != (summary_size if bars else latent_size):
        raise ValueError(f"it is for {size} numbers, the model has {summary_size if bars else latent_size}")
    remembered, given = tensors.get("memory.bias_hh_l0"), tensors.get("to_given.bias")
    if bars and (remembered is None or given is None or remembered.ndim != 1 or given.ndim != 1):
        raise ValueError("it holds no prior of bars")
    hidden, told = (len(remembered) // 3, len(given)) if remembered is not None and given is not None else (0, 0)
    width = (size // 2 + told + units + 2 * (size - size // 2)) * units  # of the weights of one coupling
    if layers * width + hidden * hidden + told * size > sum(x.numel() for x in tensors.values()):
        raise ValueError(f"it says {layers} layers of {units} units, and is too small for these")
    with torch.random.fork_rng(devices=[]):  # which the weights that are replaced below must not use up
        prior = BarPrior(size, units, layers, hidden, told) if bars else Flow(size, units, layers)
    wanted = prior.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors or name not in wanted or tensors[name].shape != wanted[name].shape:
            raise ValueError(f"its tensor {name} is missing, unknown or of another shape")
        if tensors[name].is_floating_point() != wanted[name].is_floating_point() or tensors[name].is_complex():
            raise ValueError(f"its tensor {name} holds numbers of another kind")
        if not tensors[name].isfinite().all():
            raise ValueError(f"its tensor {name} holds numbers that are not finite")
    if not torch.equal(order.long().sort(dim=1).values, torch.arange(size).expand(layers, -1)):
        raise ValueError("its order is no order")
    prior.load_state_dict({name: x.float() if x.is_floating_point() else x for name, x in tensors.items()}, assign=True)
    return prior
