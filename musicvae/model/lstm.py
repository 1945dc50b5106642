"""LSTM layers in NumPy, a step at a time: the arithmetic of the player.

    N rows side by side   D inputs   H units   gates (N, 4H) in the order i, f, o, g

The weights of i, f and o are halved: as sigmoid(x) is (1 + tanh(x / 2)) / 2, one call of tanh serves all gates.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np


class Layer:
    """One direction of one layer, its weights by the names of torch's nn.LSTM."""

    def __init__(self, weights: Mapping[str, np.ndarray], name: str, layer: int, dtype: np.dtype, way: str = ""):
        inputs, state = (weights[f"{name}.weight_{part}_l{layer}{way}"] for part in ("ih", "hh"))
        self.hidden = state.shape[1]
        self.joined = np.empty((inputs.shape[1] + self.hidden, 4 * self.hidden), dtype)
        self.inputs, self.state = np.split(self.joined, [inputs.shape[1]])  # views (D, 4H) and (H, 4H)
        self.bias = np.empty(4 * self.hidden, dtype)
        _arrange(inputs, self.inputs)
        _arrange(state, self.state)
        parts = (weights[f"{name}.bias_{part}_l{layer}{way}"].astype(dtype) for part in ("ih", "hh"))
        _arrange(sum(parts), self.bias)  # type: ignore[arg-type]


def _arrange(weight: np.ndarray, target: np.ndarray) -> None:
    """weight (4H, D) or (4H), gates i, f, g, o -> target (D, 4H) or (4H)."""
    hidden = len(weight) // 4
    for place, gate in enumerate((0, 1, 3, 2)):
        target[..., place * hidden : (place + 1) * hidden] = weight[gate * hidden : (gate + 1) * hidden].T
    target[..., : 3 * hidden] *= 0.5


def activate(gates: np.ndarray, c: np.ndarray, h: np.ndarray) -> None:
    """The gates before their nonlinearities, and the cells c (N, H), which change -> the state h (N, H)."""
    np.tanh(gates, out=gates)
    sigmoids = gates[:, : 3 * h.shape[1]]
    sigmoids *= 0.5
    sigmoids += 0.5
    i, f, o, g = np.split(gates, 4, axis=1)
    c *= f
    i *= g
    c += i
    np.tanh(c, out=h)
    h *= o


def states(layer: Layer, heard: Iterable[np.ndarray], h: np.ndarray, c: np.ndarray) -> Iterator[np.ndarray]:
    """The states (N, H), one after another; `heard` is what the inputs of each step add to the gates, bias included."""
    h, c, gates = h.copy(), c.copy(), np.empty((len(h), 4 * layer.hidden), h.dtype)
    for part in heard:
        np.matmul(h, layer.state, out=gates)
        gates += part
        activate(gates, c, h)
        yield h  # the same array at every step


def last(layer: Layer, heard: Iterable[np.ndarray], rows: int) -> np.ndarray:
    """The last of the `states`, from zeros."""
    h = start = np.zeros((rows, layer.hidden), layer.joined.dtype)
    for h in states(layer, heard, start, start):
        pass
    return h


class Stack:
    """The state of N rows in layers that run in step, each on the state of the one below."""

    def __init__(self, layers: list[Layer], h: np.ndarray, c: np.ndarray):
        """h, c (layers, N, H) at first."""
        count, rows, hidden = h.shape
        self.layers, self.c = layers, c
        self.h = np.concatenate(list(h), axis=1)  # the layers side by side
        self.gates = np.empty((rows, 4 * hidden), h.dtype)
        self.states = np.split(self.h, count, axis=1)
        self.heard = [self.h[:, max(n - 1, 0) * hidden : (n + 1) * hidden] for n in range(count)]

    def step(self, first: np.ndarray) -> np.ndarray:
        """What the inputs of the lowest layer add to its gates, bias included -> the state of the highest (N, H)."""
        for n, layer in enumerate(self.layers):
            np.matmul(self.heard[n], layer.joined if n else layer.state, out=self.gates)
            self.gates += layer.bias if n else first
            activate(self.gates, self.c[n], self.states[n])
        return self.states[-1]
