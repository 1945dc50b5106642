"""A flow: a change of vectors that can be undone, and that says how much it stretches space.

Made of affine couplings (Dinh, Sohl-Dickstein and Bengio, *Density estimation using Real NVP*, 2017): in each layer one
half of the numbers says how the other is scaled and shifted.

    N vectors   Z numbers of each
"""

import math

import torch
from torch import Tensor, nn

from musicvae.model.drawing import WIDEST


class Flow(nn.Module):
    """z (N, Z) <-> noise (N, Z) that is N(0, I) where z is like encoded music. New, it changes only the order.

    With `given` numbers in its conditions, every coupling hears (N, given) of them too.
    """

    order: Tensor

    def __init__(self, size: int, units: int, layers: int, given: int = 0):
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
                *(nn.Linear(known + given, units), nn.SiLU(), nn.Linear(units, units), nn.SiLU()),
                nn.Linear(units, 2 * (size - known)),
            )
            for _ in range(layers)
        )
        for coupling in self.couplings:
            nn.init.zeros_(coupling[-1].weight)  # type: ignore[index, arg-type]
            nn.init.zeros_(coupling[-1].bias)  # type: ignore[index, arg-type]

    def forward(self, z: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (N, Z) -> noise (N, Z), and the logarithm of the determinant of the change (N)."""
        determinant = z.new_zeros(len(z))
        for order, coupling in zip(self.order.long(), self.couplings):
            known, rest, scale, shift = self.halves(z[:, order], coupling, given)
            z = torch.cat([known, (rest - shift) * torch.exp(-scale)], dim=1)
            determinant = determinant - scale.sum(1)
        return z, determinant

    def inverse(self, noise: Tensor, given: Tensor | None = None) -> Tensor:
        """noise (N, Z) -> z (N, Z)."""
        z = noise
        for order, coupling in reversed(list(zip(self.order.long(), self.couplings))):
            known, rest, scale, shift = self.halves(z, coupling, given)
            z = torch.cat([known, rest * torch.exp(scale) + shift], dim=1)[:, order.argsort()]
        return z

    def halves(self, z: Tensor, coupling: nn.Module, given: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The half that stays, the other, and how that is scaled (a logarithm) and shifted."""
        known, rest = z.split([z.shape[1] // 2, z.shape[1] - z.shape[1] // 2], dim=1)
        scale, shift = coupling(known if given is None else torch.cat([known, given], dim=1)).chunk(2, dim=1)
        return known, rest, WIDEST * torch.tanh(scale / WIDEST), shift

    def bits(self, z: Tensor) -> Tensor:
        """z (N, Z) -> by how many bits a vector is likelier under the flow than under N(0, I), mean of all."""
        noise, determinant = self(z)
        return ((z.square() - noise.square()).sum(1) / 2 + determinant).mean() / math.log(2)
