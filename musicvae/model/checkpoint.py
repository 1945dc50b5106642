"""A run folder <-> a model of torch: config.json, readable by eye, and model.safetensors beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from musicvae.model.config import ModelConfig, RunConfig, load_config
from musicvae.model.vae import MusicVAE
from musicvae.model.weights import load_weights, save_weights


class Run(NamedTuple):
    model: MusicVAE
    config: RunConfig


def save_run(folder: str | Path, model: MusicVAE, config: RunConfig, half: bool = False) -> None:
    """Writes model.safetensors, then config.json, as `save_weights` does; half stores the weights in fp16."""
    save_weights(folder, arrays(model), config, half)


def arrays(model: MusicVAE) -> dict[str, np.ndarray]:
    """The weights of a model by name, as arrays that share its memory where it is on the CPU."""
    return {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}


def load_run(folder: str | Path, device: str | torch.device = "cpu") -> Run:
    """The model of a run folder, in fp32 and eval mode; ValueError says what is wrong with the folder or the device."""
    config, device = load_config(folder), find_device(device)
    weights = load_weights(folder, config.model)
    return Run(to_model(config.model, weights, device), config)


def to_model(config: ModelConfig, weights: Mapping[str, np.ndarray], device: str | torch.device = "cpu") -> MusicVAE:
    """The model of these weights, in fp32 and eval mode."""
    with torch.device("meta"):  # shapes only: no time is spent on weights that are replaced at once
        model = MusicVAE(config)
    tensors = {name: torch.from_numpy(value).to(device, torch.float32) for name, value in weights.items()}
    model.load_state_dict(tensors, assign=True)
    for module in model.modules():
        if isinstance(module, torch.nn.LSTM):
            module.flatten_parameters()  # cuDNN wants the weights of a layer in one piece
    return model.eval()


def find_device(device: str | torch.device) -> torch.device:
    """The device of that name; auto is cuda where there is one. ValueError for one that cannot be used here."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
        if torch.device(device).type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("it computes nothing")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise ValueError(f"the device {str(device)!r} cannot be used here ({why}); use cpu, or auto") from None
    return torch.device(device)
