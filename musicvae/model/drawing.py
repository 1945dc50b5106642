"""Drawing from a prior, without torch: the inverse of what `flow.py` and `bar_prior.py` learn, from its file.

N windows   Z latent   U bars   C numbers of a summary   H units of the recurrent network   G numbers of a condition
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from musicvae.model.tensors import read_tensors

LAGS = (1, 2, 4, 8)  # bars before that a prior of bars hears
WIDEST = 2.0  # the logarithm of a scale stays within this
Tensors = Mapping[str, np.ndarray]


class FlowDraw:
    """noise (N, Z) -> z (N, Z), as `Flow.inverse`."""

    def __init__(self, tensors: Tensors, prefix: str = ""):
        self.order = tensors[f"{prefix}order"].astype(np.int64)  # (layers, Z)
        names = [f"{prefix}couplings.{layer}" for layer in range(len(self.order))]
        self.couplings = [[_dense(tensors, f"{name}.{part}") for part in (0, 2, 4)] for name in names]

    def inverse(self, noise: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
        """In the precision of noise; given (N, G) is what every coupling hears besides, if it was learnt so."""
        z = noise
        for order, coupling in zip(self.order[::-1], self.couplings[::-1]):
            known, rest = np.split(z, [z.shape[1] // 2], axis=1)
            x = known if given is None else np.concatenate([known, given], axis=1)
            for weight, bias in coupling[:-1]:
                x = silu(x @ weight + bias)
            scale, shift = np.split(x @ coupling[-1][0] + coupling[-1][1], [rest.shape[1]], axis=1)
            z = np.concatenate([known, rest * np.exp(WIDEST * np.tanh(scale / WIDEST)) + shift], axis=1)
            z = z[:, order.argsort()]
        return z


class BarDraw:
    """noise (N, U, C) -> summaries of bars (N, U, C), one bar after another, as `BarPrior.inverse`."""

    def __init__(self, tensors: Tensors):
        self.mean, self.scale = (tensors[name].astype(np.float64) for name in ("mean", "scale"))
        self.memory = [
            (tensors[f"memory.weight_{part}_l0"].astype(np.float64).T, tensors[f"memory.bias_{part}_l0"])
            for part in ("ih", "hh")
        ]
        self.to_given, self.to_normal = (_dense(tensors, name) for name in ("to_given", "to_normal"))
        self.flow = FlowDraw(tensors, "flow.")

    def inverse(self, noise: np.ndarray) -> np.ndarray:
        bars: list[np.ndarray] = []
        nothing, remembered = np.zeros_like(noise[:, 0]), np.zeros((len(noise), len(self.memory[1][0])))
        for part in noise.swapaxes(0, 1):
            before = [bars[-lag] if lag <= len(bars) else nothing for lag in LAGS]
            weight, bias = self.to_given
            given = silu(np.concatenate([remembered, *before], axis=1) @ weight + bias)
            mean, scale = np.split(given @ self.to_normal[0] + self.to_normal[1], 2, axis=1)
            scale = WIDEST * np.tanh(scale / WIDEST)
            bars.append(self.flow.inverse(mean + part * np.exp(scale), given))
            remembered = self._remember(bars[-1], remembered)
        return np.stack(bars, axis=1) * self.scale + self.mean

    def _remember(self, bar: np.ndarray, state: np.ndarray) -> np.ndarray:
        """One step of a GRU: bar (N, C), state (N, H) -> state (N, H)."""
        heard, kept = (np.split(x @ w + b, 3, axis=1) for x, (w, b) in zip((bar, state), self.memory))
        reset, update = (sigmoid(heard[n] + kept[n]) for n in (0, 1))
        return (1 - update) * np.tanh(heard[2] + reset * kept[2]) + update * state


Draw = FlowDraw | BarDraw


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _dense(tensors: Tensors, name: str) -> tuple[np.ndarray, np.ndarray]:
    return tensors[f"{name}.weight"].astype(np.float64).T, tensors[f"{name}.bias"].astype(np.float64)


def load_prior(path: str | Path, latent_size: int, summary_size: int = 0) -> Draw:
    """The prior of a file, in double precision; summary_size is C, or 0 for a model that does not sum up bars.

    Raises ValueError for what is none, or of other sizes.
    """
    path = Path(path)
    try:
        tensors = read_tensors(path)
        _check(tensors, latent_size, summary_size)
    except (OSError, ValueError) as error:
        why = (str(error).splitlines() or ["unknown"])[0]
        raise ValueError(f"{path}: cannot be used ({why}). Copy it again, or delete it to draw from N(0, I)") from None
    return BarDraw(tensors) if "memory.weight_hh_l0" in tensors else FlowDraw(tensors)


def _check(tensors: Tensors, latent_size: int, summary_size: int) -> None:
    """ValueError for tensors that are those of no prior."""
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
    if layers * width + hidden * hidden + told * size > sum(x.size for x in tensors.values()):
        raise ValueError(f"it says {layers} layers of {units} units, and is too small for these")
    wanted = _shapes(size, units, layers, hidden, told) if bars else _flow_shapes("", size, units, layers)
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors or name not in wanted or tensors[name].shape != wanted[name]:
            raise ValueError(f"its tensor {name} is missing, unknown or of another shape")
        if tensors[name].dtype.kind != ("i" if name.endswith("order") else "f"):
            raise ValueError(f"its tensor {name} holds numbers of another kind")
        if not np.isfinite(tensors[name]).all():
            raise ValueError(f"its tensor {name} holds numbers that are not finite")
    if not np.array_equal(np.sort(order, axis=1), np.broadcast_to(np.arange(size), order.shape)):
        raise ValueError("its order is no order")


def _flow_shapes(prefix: str, size: int, units: int, layers: int, given: int = 0) -> dict[str, tuple[int, ...]]:
    """The tensors of `Flow(size, units, layers, given)`."""
    found: dict[str, tuple[int, ...]] = {f"{prefix}order": (layers, size)}
    known = size // 2
    widths = {0: (known + given, units), 2: (units, units), 4: (units, 2 * (size - known))}
    for layer in range(layers):
        for part, (inputs, outputs) in widths.items():
            name = f"{prefix}couplings.{layer}.{part}"
            found |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    return found


def _shapes(size: int, units: int, layers: int, hidden: int, given: int) -> dict[str, tuple[int, ...]]:
    """The tensors of `BarPrior(size, units, layers, hidden, given)`."""
    found: dict[str, tuple[int, ...]] = {"mean": (size,), "scale": (size,)}
    found |= {f"memory.weight_{part}_l0": (3 * hidden, inputs) for part, inputs in (("ih", size), ("hh", hidden))}
    found |= {f"memory.bias_{part}_l0": (3 * hidden,) for part in ("ih", "hh")}
    found |= {"to_given.weight": (given, hidden + len(LAGS) * size), "to_given.bias": (given,)}
    found |= {"to_normal.weight": (2 * size, given), "to_normal.bias": (2 * size,)}
    return found | _flow_shapes("flow.", size, units, layers, given)
