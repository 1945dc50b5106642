"""A prior that is like encoded music: a flow from N(0, I) to q(z), the mean of q(z|x) over windows x.

The paper draws z from N(0, I). As long as the KL is large q(z) is something else, and what is drawn lies where no music
was ever encoded. The flow is learnt after the model, which it leaves as it is (a second stage, as in Dai and Wipf,
*Diagnosing and enhancing VAE models*, 2019), and is made of affine couplings (Dinh, Sohl-Dickstein and Bengio, *Density
estimation using Real NVP*, 2017): in each layer one half of the numbers says how the other is scaled and shifted.

    N vectors   Z latent
"""

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
HELD_BACK = 10  # one window in so many is not learnt from


class Flow(nn.Module):
    """z (N, Z) <-> noise (N, Z) that is N(0, I) where z is like encoded music. New, it changes only the order."""

    order: Tensor

    def __init__(self, size: int, units: int, layers: int):
        super().__init__()
        if size < 2 or units < 1 or layers < 1:
            raise ValueError(
                f"a flow of {layers} layers of {units} units over {size} numbers; needs 1, 1 and 2 or more"
            )
        generator = torch.Generator().manual_seed(0)
        order = [torch.randperm(size, generator=generator) for _ in range(layers)]
        self.register_buffer("order", torch.stack(order).int())  # (layers, Z)
        known = size // 2
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
    held_back: float  # bits, over windows that are not learnt from


def fit(
    mu: Tensor,
    sigma: Tensor,
    units: int,
    layers: int,
    steps: int,
    batch_size: int = 512,
    rate: float = 2e-3,
    seed: int = 0,
    every: int = 500,
) -> Iterator[Progress]:
    """Learns a flow from the posteriors of windows, mu and sigma (N, Z), and tells of it now and then, and at the end.

    Raises ValueError for fewer than twice HELD_BACK windows.
    """
    held = len(mu) // HELD_BACK
    if held < 2:
        raise ValueError(f"{len(mu)} windows are too few to learn a prior from; needs {2 * HELD_BACK}")
    torch.manual_seed(seed)
    flow = Flow(mu.shape[1], units, layers)
    adam = torch.optim.AdamW(flow.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps)
    for step in range(1, steps + 1):
        rows = torch.randint(held, len(mu), (batch_size,))
        bits = flow.bits(mu[rows] + sigma[rows] * torch.randn(batch_size, mu.shape[1]))
        adam.zero_grad()
        (-bits).backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % every == 0 or step == steps:
            with torch.no_grad():
                apart = flow.bits(mu[:held] + sigma[:held] * torch.randn(held, mu.shape[1]))
            yield Progress(step, flow, float(bits.detach()), float(apart))


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
        layers, size = tensors["order"].shape
        flow = Flow(size, len(tensors["couplings.0.0.bias"]), layers)
        flow.load_state_dict(tensors)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise ValueError(f"{path}: cannot be read ({why}). Copy it again, or delete it to draw from N(0, I)") from None
    if size != latent_size or not all(x.isfinite().all() for x in flow.state_dict().values()):
        found = f"is for {size} numbers" if size != latent_size else "holds numbers that are not finite"
        raise ValueError(f"{path}: {found}; the model has {latent_size}. Delete it to draw from N(0, I)")
    if not torch.equal(flow.order.sort(dim=1).values, torch.arange(size).int().expand(layers, -1)):
        raise ValueError(f"{path}: its order is no order. Delete it to draw from N(0, I)")
    return flow.double().eval()
