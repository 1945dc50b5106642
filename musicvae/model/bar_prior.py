"""A prior of 16-bar models, bar by bar: what each bar may be, after the bars before it.

The encoder sums up each bar by itself, and a reader makes z of the summaries. Where z as a whole is too much to learn
(a flow of all of it finds few of the bonds between bars), summaries one after another are not: here each comes from a
flow (`flow.py`) that hears what a recurrent network remembers of the bars before, and those 1, 2, 4 and 8 bars before
themselves. A window that is drawn so goes through the reader, as an encoded one does.

    N windows   U bars   C numbers of a summary   H units of the recurrent network   G numbers of a condition
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from musicvae.model.drawing import LAGS, WIDEST
from musicvae.model.flow import Flow


class BarPrior(nn.Module):
    """Summaries (N, U, C) <-> noise (N, U, C). New, it draws each number by itself, with the mean and scale given."""

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int, units: int, layers: int, hidden: int, given: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.memory = nn.GRU(size, hidden, batch_first=True)
        self.to_given = nn.Linear(hidden + len(LAGS) * size, given)
        self.to_normal = nn.Linear(given, 2 * size)
        self.flow = Flow(size, units, layers, given)
        nn.init.zeros_(self.to_normal.weight)
        nn.init.zeros_(self.to_normal.bias)

    def conditions(self, remembered: Tensor, before: list[Tensor]) -> Tensor:
        """What was remembered (N, H) and the bars LAGS before (N, C) each, zeros for none -> (N, G)."""
        return F.silu(self.to_given(torch.cat([remembered, *before], dim=-1)))

    def normal(self, given: Tensor) -> tuple[Tensor, Tensor]:
        """Conditions (N, G) -> mean and logarithm of the scale (N, C) of the noise of the flow."""
        mean, scale = self.to_normal(given).chunk(2, dim=-1)
        return mean, WIDEST * torch.tanh(scale / WIDEST)

    def bits(self, summaries: Tensor) -> Tensor:
        """By how many bits a window (N, U, C) is likelier than if all its numbers were normal, each by itself; mean."""
        bars = (summaries - self.mean) / self.scale
        remembered = F.pad(self.memory(bars)[0][:, :-1], (0, 0, 1, 0))
        before = [F.pad(bars[:, :-lag], (0, 0, min(lag, bars.shape[1]), 0)) for lag in LAGS]
        given = self.conditions(remembered, before).flatten(0, 1)
        noise, determinant = self.flow(bars.flatten(0, 1), given)
        mean, scale = self.normal(given)
        apart = (noise - mean) * torch.exp(-scale)
        gain = (bars.flatten(0, 1).square() - apart.square()).sum(1) / 2 + determinant - scale.sum(1)
        return gain.sum() / len(summaries) / math.log(2)

    def inverse(self, noise: Tensor) -> Tensor:
        """noise (N, U, C) -> summaries (N, U, C), one bar after another."""
        bars: list[Tensor] = []
        nothing, remembered = torch.zeros_like(noise[:, 0]), noise.new_zeros(len(noise), self.memory.hidden_size)
        state = None
        for part in noise.unbind(1):
            given = self.conditions(remembered, [bars[-lag] if lag <= len(bars) else nothing for lag in LAGS])
            mean, scale = self.normal(given)
            bars.append(self.flow.inverse(mean + part * torch.exp(scale), given))
            heard, state = self.memory(bars[-1].unsqueeze(1), state)
            remembered = heard[:, 0]
        return torch.stack(bars, dim=1) * self.scale + self.mean
