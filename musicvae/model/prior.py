"""A prior that is like encoded music: a flow from N(0, I) to q(z), the mean of q(z|x) over windows x.

The paper draws z from N(0, I). As long as the KL is large q(z) is something else, and what is drawn lies where no music
was ever encoded. The flow is learnt after the model, which it leaves as it is (a second stage, as in Dai and Wipf,
*Diagnosing and enhancing VAE models*, 2019), and is made of affine couplings (Dinh, Sohl-Dickstein and Bengio, *Density
estimation using Real NVP*, 2017): in each layer one half of the numbers says how the other is scaled and shifted.

    N vectors   Z latent
"""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from musicvae.files import replacing

PRIOR = "prior.safetensors"
WIDEST = 2.0  # the logarithm of a scale stays within this
LEAST_WINDOWS = 20


class Flow(nn.Module):
    """z (N, Z) <-> noise (N, Z) that is N(0, I) where z is like encoded music. New, it changes only the order."""

    order: Tensor

    def __init__(self, size: int, units: int, layers: int):
        super().__init__()
        if size < 2 or units < 1 or layers < 1:
            raise ValueError(
                f"a flow of {layers} layers of {units} units over {size} numbers; needs 1, 1 and 2 or more"
            )
        generator, known = torch.Generator().manual_seed(0), size // 2
        order = [
            torch.arange(size).roll(-known) if layer % 2 else torch.randperm(size, generator=generator)
            for layer in range(layers)
        ]  # every second layer changes the half that the one before left as it was
        self.register_buffer("order", torch.stack(order).int())  # (layers, Z)
        self.couplings = nn.ModuleList(
            nn.Sequential(
                *(nn.Linear(known, units), nn.SiLU(), nn.Linear(units, units), nn.SiLU()),
                nn.Linear(units, 2 * (size - known)),
            )
            for _ in range(layers)
        )
        for coupling in self.couplings:
            nn.init.zeros_(coupling[-1].weight)  # type: ignore[index, arg-type]
            nn.init.zeros_(coupling[-1].bias)  # type: ignore[index, arg-type]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (N, Z) -> noise (N, Z), and the logarithm of the determinant of the change (N)."""
        determinant = z.new_zeros(len(z))
        for order, coupling in zip(self.order.long(), self.couplings):
            known, rest, scale, shift = self.halves(z[:, order], coupling)
            z = torch.cat([known, (rest - shift) * torch.exp(-scale)], dim=1)
            determinant = determinant - scale.sum(1)
        return z, determinant

    def inverse(self, noise: Tensor) -> Tensor:
        """noise (N, Z) -> z (N, Z)."""
        z = noise
        for order, coupling in reversed(list(zip(self.order.long(), self.couplings))):
            known, rest, scale, shift = self.halves(z, coupling)
            z = torch.cat([known, rest * torch.exp(scale) + shift], dim=1)[:, order.argsort()]
        return z

    def halves(self, z: Tensor, coupling: nn.Module) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The half that stays, the other, and how that is scaled (a logarithm) and shifted."""
        known, rest = z.split([z.shape[1] // 2, z.shape[1] - z.shape[1] // 2], dim=1)
        scale, shift = coupling(known).chunk(2, dim=1)
        return known, rest, WIDEST * torch.tanh(scale / WIDEST), shift

    def bits(self, z: Tensor) -> Tensor:
        """z (N, Z) -> by how many bits a vector is likelier under the flow than under N(0, I), mean of all."""
        noise, determinant = self(z)
        return ((z.square() - noise.square()).sum(1) / 2 + determinant).mean() / math.log(2)


class Progress(NamedTuple):
    step: int
    flow: Flow
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


def fit(
    posteriors: Cloud,
    held_back: Cloud,
    units: int,
    layers: int,
    steps: int,
    batch_size: int = 512,
    rate: float = 2e-3,
    decay: float = 0.01,
    seed: int = 0,
    every: int = 500,
) -> Iterator[Progress]:
    """Learns a flow from the posteriors of windows, and tells of it now and then, and at the end.

    `held_back` are posteriors of other songs, which it does not learn from; the flow of each report is a copy.
    Raises ValueError for fewer than LEAST_WINDOWS of either.
    """
    fewest = min(len(posteriors.mu), len(held_back.mu))
    if fewest < LEAST_WINDOWS:
        raise ValueError(f"{fewest} windows are too few to learn a prior from, or to test it; needs {LEAST_WINDOWS}")
    size, drawn = posteriors.mu.shape[1], torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    flow = Flow(size, units, layers)
    adam = torch.optim.AdamW(flow.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps)
    apart = held_back.draw(torch.arange(len(held_back.mu)), drawn)
    for step in range(1, steps + 1):
        bits = flow.bits(posteriors.draw(torch.randint(len(posteriors.mu), (batch_size,), generator=drawn), drawn))
        adam.zero_grad()
        (-bits).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % every == 0 or step == steps:
            with torch.no_grad():
                yield Progress(step, copy.deepcopy(flow), float(bits.detach()), float(flow.bits(apart)))


def save_prior(path: str | Path, flow: Flow, half: bool = True) -> None:
    """Writes the flow, its weights in fp16 or fp32; the file is the old one or the new one at every moment."""
    dtype = torch.float16 if half else torch.float32
    tensors = {k: v.detach().cpu().to(v.dtype if k == "order" else dtype) for k, v in flow.state_dict().items()}
    with replacing(Path(path)) as temporary:
        safetensors.torch.save_file(tensors, temporary)


def load_prior(path: str | Path, latent_size: int) -> Flow:
    """The flow of a file, in double precision. Raises ValueError for what is none, or of another latent size."""
    path = Path(path)
    try:
        tensors = safetensors.torch.load_file(path)
        flow = _flow_like(tensors, latent_size)
    except (SafetensorError, OSError, ValueError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise ValueError(f"{path}: cannot be used ({why}). Copy it again, or delete it to draw from N(0, I)") from None
    return flow.double().eval()


def _flow_like(tensors: dict[str, Tensor], latent_size: int) -> Flow:
    """The flow whose tensors these are. Raises ValueError, before it makes anything large, where they are of none."""
    order, bias = tensors.get("order"), tensors.get("couplings.0.0.bias")
    if order is None or bias is None or order.ndim != 2 or bias.ndim != 1:
        raise ValueError("it holds no flow")
    (layers, size), units = order.shape, len(bias)
    if size != latent_size:
        raise ValueError(f"it is for {size} numbers, the model has {latent_size}")
    width = (size // 2 + units + 2 * (size - size // 2)) * units  # of the weights of one coupling
    if layers * width > sum(x.numel() for x in tensors.values()):
        raise ValueError(f"it says {layers} layers of {units} units, and is too small for these")
    flow = Flow(size, units, layers)
    wanted = flow.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors or name not in wanted or tensors[name].shape != wanted[name].shape:
            raise ValueError(f"its tensor {name} is missing, unknown or of another shape")
        if tensors[name].is_floating_point() != wanted[name].is_floating_point() or tensors[name].is_complex():
            raise ValueError(f"its tensor {name} holds numbers of another kind")
        if not tensors[name].isfinite().all():
            raise ValueError(f"its tensor {name} holds numbers that are not finite")
    if not torch.equal(order.long().sort(dim=1).values, torch.arange(size).expand(layers, -1)):
        raise ValueError("its order is no order")
    flow.load_state_dict({name: x if name == "order" else x.float() for name, x in tensors.items()}, assign=True)
    return flow
