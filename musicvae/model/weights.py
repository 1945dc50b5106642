"""model.safetensors <-> arrays by name, without torch: which tensors a model has, reading and writing them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from musicvae.files import replacing
from musicvae.model.config import CONFIG, PRIOR, WEIGHTS, ModelConfig, RunConfig, save_config
from musicvae.model.tensors import packed, read_tensors

Shapes = dict[str, tuple[int, ...]]


def shapes(config: ModelConfig) -> Shapes:
    """The names and shapes of all tensors of a model: those of `MusicVAE(config).state_dict()`."""
    inputs, summary = sum(config.vocab_sizes), 2 * config.encoder_units
    found = _lstm("encoder", inputs, config.encoder_units, config.encoder_layers, ("", "_reverse"))
    if config.encoder_bars > 1:
        found |= _dense("to_summary", summary, config.condition_size)
        found |= _lstm("reader", config.condition_size, config.conductor_units, 1, ("", "_reverse"))
        summary = 2 * config.conductor_units
    found |= _dense("to_mu", summary, config.latent_size) | _dense("to_sigma", summary, config.latent_size)
    told = config.latent_size
    if config.bars > 1:
        units, layers, told = config.conductor_units, config.conductor_layers, config.condition_size
        found |= _lstm("conductor", 1, units, layers)
        found |= _dense("conductor_start.dense", config.latent_size, 2 * layers * units)
        found |= _dense("to_condition", units, told)
        if config.linear:
            summaries = config.bars * config.condition_size
            found["linear_mu.weight"] = (config.latent_size, summaries)
            found |= _dense("linear_condition", config.latent_size, summaries)
    for n, group in enumerate(groups(config)):
        name, units, layers = f"decoders.{n}", config.decoder_units, config.decoder_layers
        found |= _lstm(f"{name}.lstm", sum(group) + told, units, layers)
        found |= _dense(f"{name}.start.dense", told, 2 * layers * units)
        found |= _dense(f"{name}.to_logits", units, sum(group))
    return found


def groups(config: ModelConfig) -> list[tuple[int, ...]]:
    """The vocabularies of each decoder: one decoder a stream, or if flat one for all."""
    return [(size,) for size in config.vocab_sizes] if config.bars > 1 else [config.vocab_sizes]


def load_weights(folder: str | Path, config: ModelConfig) -> dict[str, np.ndarray]:
    """The weights of a run folder, in the precision of the file; ValueError says what is wrong with it."""
    path = Path(folder) / WEIGHTS
    try:
        tensors = read_tensors(path)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {WEIGHTS}, so it is no complete run folder") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}). It may have been cut short: copy it again") from None
    _check(path, shapes(config), {name: value.shape for name, value in tensors.items()})
    for name, value in sorted(tensors.items()):
        if value.dtype.kind != "f":
            raise ValueError(f"{path}: the tensor {name} is of {value.dtype}; weights are floating point numbers")
        if not np.isfinite(value).all():
            raise ValueError(
                f"{path}: the tensor {name} has numbers that are not finite. Copy it again, or train again"
            )
    return tensors


def save_weights(folder: str | Path, weights: Mapping[str, np.ndarray], config: RunConfig, half: bool = False) -> None:
    """Writes model.safetensors, then config.json, each whole at every moment; half stores the weights in fp16.

    A prior that lies there goes away: it was learnt for the weights before.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.float16 if half else np.float32
    content = packed({name: value.astype(dtype, copy=False) for name, value in weights.items()})
    with replacing(folder / WEIGHTS) as temporary:
        temporary.write_bytes(content)
        (folder / PRIOR).unlink(missing_ok=True)  # only now that the new weights are on the disk
    save_config(folder, config)


def _lstm(name: str, inputs: int, hidden: int, layers: int, ways: tuple[str, ...] = ("",)) -> Shapes:
    found: Shapes = {}
    for layer in range(layers):
        heard = inputs if layer == 0 else len(ways) * hidden
        for way in ways:
            found[f"{name}.weight_ih_l{layer}{way}"] = (4 * hidden, heard)
            found[f"{name}.weight_hh_l{layer}{way}"] = (4 * hidden, hidden)
            found |= {f"{name}.bias_{part}_l{layer}{way}": (4 * hidden,) for part in ("ih", "hh")}
    return found


def _dense(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _check(path: Path, wanted: Shapes, found: Shapes) -> None:
    """ValueError that names the first tensor which is missing, unknown or of another shape than config.json says."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"{path} lacks the tensor {name}, which {CONFIG} asks for")
        if name not in wanted:
            raise ValueError(f"{path} has a tensor {name}, of which {CONFIG} knows nothing")
        if found[name] != wanted[name]:
            raise ValueError(f"{path}: the tensor {name} has shape {found[name]}; {CONFIG} asks for {wanted[name]}")
