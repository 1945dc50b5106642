"""Models of torch as players: on the CPU in NumPy, elsewhere by the plain decoder where the model is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.backends import cudnn

from musicvae.model.checkpoint import arrays
from musicvae.model.player import Player, Posterior
from musicvae.model.vae import MusicVAE


def player_of(model: MusicVAE) -> "Player | TorchPlayer":
    """What encodes and decodes arrays by the weights that a model has now."""
    device = next(model.parameters()).device
    return Player(model.config, arrays(model)) if device.type == "cpu" else TorchPlayer(model)


class TorchPlayer:
    """A `MusicVAE` with the methods of `Player`, in true float32 (cuDNN would round an LSTM to TF32)."""

    def __init__(self, model: MusicVAE):
        self.model, self.config = model, model.config

    def encode(self, tokens: np.ndarray) -> Posterior:
        return self._call(self.model.encode, np.asarray(tokens, np.int64))

    def posterior_of_bars(self, summaries: np.ndarray) -> Posterior:
        return self._call(self.model.posterior_of_bars, summaries)

    def decode(
        self,
        z: np.ndarray,
        uniforms: np.ndarray | None = None,
        temperature: float = 1.0,
        given: np.ndarray | None = None,
        allowed: np.ndarray | None = None,
    ) -> np.ndarray:
        written: np.ndarray = self._call(self.model.decode, z, uniforms, temperature, given, allowed)
        return written

    @torch.no_grad()
    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        device = next(self.model.parameters()).device
        tensors = [torch.from_numpy(np.array(x)).to(device) if isinstance(x, np.ndarray) else x for x in arguments]
        with cudnn.flags(enabled=cudnn.enabled, benchmark=False, allow_tf32=False):
            found = method(*tensors)
        if isinstance(found, Tensor):
            return found.cpu().numpy()
        return Posterior(found.mean.float().cpu().numpy(), found.stddev.float().cpu().numpy())
