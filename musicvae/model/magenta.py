"""The original's weights <-> ours.

Their LSTM has one kernel [inputs + H, 4H] over the input and h side by side, its columns in the order i, j (candidate),
f, o, and adds 1 to the forget gate; ours has two matrices with rows i, f, g, o. That 1 is kept in `bias_hh`, so that
`bias_ih` holds their bias to the bit and gives it back. Their conductor speaks to the bars without a projection:
`to_condition` is the identity. Their drum encoder hears nine bits and one for none: each of our 512 rows is the sum of
the rows of its bits.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from musicvae.model.config import ModelConfig
from musicvae.model.magenta_names import DRUM_BITS, DRUM_TOKENS, Cell, Original, check_variables, layout
from musicvae.model.vae import MusicVAE

GATES = (0, 2, 1, 3)  # i, j, f, o of i, f, g, o, and the other way round


class Weights(Protocol):
    """The variables of a checkpoint: a tensor bundle or a magenta.js folder."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """The array of a variable in float32. Raises ValueError where its file is damaged."""


class Imported(NamedTuple):
    model: MusicVAE
    encodes: bool  # False where the encoder is absent or all zero


def import_weights(weights: Weights, original: Original, steps: int, bars: int) -> Imported:
    """The model of a checkpoint, its variables read one after another, so that memory holds them about once.

    Raises ValueError, naming the variable, where one is missing, of another shape, not finite or damaged.
    """
    config = original.model_config(steps, bars)
    parts = list(layout(config, original.encoder_inputs))
    check_variables(weights.shapes, parts, original.absent)
    state: dict[str, Tensor] = {}
    encodes = False
    for part in parts:
        if part.theirs.startswith(original.absent):
            kernel, bias = np.zeros(part.shape, np.float32), np.zeros(part.shape[1], np.float32)
        else:
            kernel, bias = (_read_finite(weights, f"{part.theirs}/{name}") for name in ("kernel", "bias"))
        if isinstance(part, Cell):
            encodes |= part.theirs.startswith("encoder/") and bool(kernel.any())
            state |= cell_to_ours(part, kernel, bias)
        else:
            state |= {f"{part.ours}.weight": _tensor(kernel.T), f"{part.ours}.bias": _tensor(bias)}
    if config.bars > 1:
        size = config.condition_size
        state |= {"to_condition.weight": torch.eye(size), "to_condition.bias": torch.zeros(size)}
    return Imported(_model(config, state), encodes)


def export_weights(model: MusicVAE, encoder_inputs: int) -> Iterator[tuple[str, np.ndarray]]:
    """The variables of a model by their names in the original, in the order of the names, one at a time.

    encoder_inputs is 10 for a drum encoder that `hears_bits`, else the tokens of all streams.
    """
    state = model.state_dict()
    for part in sorted(layout(model.config, encoder_inputs), key=lambda part: part.theirs):
        if isinstance(part, Cell):
            kernel, bias = cell_to_theirs(part, state)
        else:
            kernel, bias = _array(state[f"{part.ours}.weight"]).T, _array(state[f"{part.ours}.bias"])
        yield f"{part.theirs}/bias", bias
        yield f"{part.theirs}/kernel", kernel


# --- LSTMs ---------------------------------------------------------------------------------------------------------


def cell_to_ours(cell: Cell, kernel: np.ndarray, bias: np.ndarray) -> dict[str, Tensor]:
    """kernel [inputs + H, 4H], bias [4H] -> our four tensors of this layer."""
    inputs, hidden = kernel[: cell.inputs], kernel[cell.inputs :]
    if hears_drum_bits(cell):
        inputs = spread_bits(inputs)
    forget = np.zeros(4 * cell.units, np.float32)
    forget[cell.units : 2 * cell.units] = 1
    return {
        cell.ours.format("weight_ih"): _tensor(swap_gates(inputs.T)),
        cell.ours.format("weight_hh"): _tensor(swap_gates(hidden.T)),
        cell.ours.format("bias_ih"): _tensor(swap_gates(bias)),
        cell.ours.format("bias_hh"): _tensor(forget),
    }


def cell_to_theirs(cell: Cell, state: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Our four tensors -> kernel and bias; what came from `cell_to_ours` goes back to the bit."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    inputs, hidden, bias, more = (_array(state[cell.ours.format(name)]) for name in names)
    rows = inputs.T[drum_rows()] if hears_drum_bits(cell) else inputs.T
    rest = more.astype(np.float64)
    rest[cell.units : 2 * cell.units] -= 1
    bias = np.where(rest == 0, bias, bias + rest).astype(np.float32)  # adding 0 would turn -0 into 0
    return np.concatenate([swap_gates(rows.T).T, swap_gates(hidden).T]), swap_gates(bias)


def swap_gates(rows: np.ndarray) -> np.ndarray:
    """rows (4H, ...) in one order of the gates -> the same in the other."""
    result = np.empty(rows.shape, rows.dtype)
    for to, gate in zip(np.split(result, 4), GATES):
        to[...] = np.split(rows, 4)[gate]
    return result


# --- drums ---------------------------------------------------------------------------------------------------------


def hears_drum_bits(cell: Cell) -> bool:
    """Whether a layer is the first of a drum encoder with ten inputs, which stand for 512 of ours."""
    return cell.theirs.startswith("encoder/cell_0/") and cell.inputs == DRUM_BITS


def spread_bits(rows: np.ndarray) -> np.ndarray:
    """rows (10, N) of nine bits and "nothing hit" -> rows (512, N): for each token the sum over its bits."""
    spread = np.empty((DRUM_TOKENS, rows.shape[1]), rows.dtype)
    spread[drum_rows()] = rows  # these ten to the bit
    for token in range(DRUM_TOKENS):
        highest = 1 << token.bit_length() >> 1
        if token != highest:
            spread[token] = spread[token - highest] + spread[highest]
    return spread


def drum_rows() -> np.ndarray:
    """(10,) the tokens of one class alone, and that of none."""
    return np.append(1 << np.arange(DRUM_BITS - 1), 0)


def hears_bits(model: MusicVAE, tolerance: float = 1e-6) -> bool:
    """Whether the encoder of a drum model hears a token as the sum of its bits, up to a share of its largest weight."""
    if model.config.vocab_sizes != (DRUM_TOKENS,):
        return False
    for name in ("weight_ih_l0", "weight_ih_l0_reverse"):
        rows = _array(getattr(model.encoder, name)).T
        if np.abs(spread_bits(rows[drum_rows()]) - rows).max() > tolerance * np.abs(rows).max():
            return False
    return True


# --- arrays and tensors --------------------------------------------------------------------------------------------


def _read_finite(weights: Weights, name: str) -> np.ndarray:
    array = weights.read(name)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that are not finite, so the file was damaged or its training diverged")
    return array


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy()


def _model(config: ModelConfig, state: dict[str, Tensor]) -> MusicVAE:
    with torch.device("meta"):  # shapes only: no time and memory for weights that are replaced at once
        model = MusicVAE(config)
    model.load_state_dict(state, assign=True)
    for module in model.modules():
        if isinstance(module, nn.LSTM):
            module.flatten_parameters()
    return model.eval()
