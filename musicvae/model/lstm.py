"""LSTM layers in NumPy, a step at a time: the arithmetic of the player.

    N columns side by side   D inputs   H units   gates (4H, N) in the order i, f, o, g

Columns, as the product of a large matrix with few columns is twice as fast as that of few rows with a large matrix.
The weights of i, f and o are halved: as sigmoid(x) is (1 + tanh(x / 2)) / 2, one call of tanh serves all gates.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np


class Layer:
    """The weights of one direction of one layer, from those of torch's nn.LSTM by name."""

    def __init__(self, weights: Mapping[str, np.ndarray], name: str, layer: int, dtype: np.dtype, way: str = ""):
        inputs, state, *biases = (
            arranged(weights[f"{name}.{part}_l{layer}{way}"], dtype)
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        self.inputs, self.state = inputs, state  # (4H, D), (4H, H)
        self.bias = (biases[0] + biases[1])[:, None]  # (4H, 1)

    def projected(self, below: np.ndarray) -> Iterator[np.ndarray]:
        """below (S, D, N) -> what each step adds to the gates (4H, N), bias included."""
        for step in below:
            yield self.inputs @ step + self.bias

    def tables(self, vocab: tuple[int, ...]) -> list[np.ndarray]:
        """What each token of each stream adds to the gates: (V, 4H) a stream."""
        return np.split(np.ascontiguousarray(self.inputs[:, : sum(vocab)].T), np.cumsum(vocab)[:-1])


def arranged(weight: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """(4H, ...), gates i, f, g, o -> the same in the order i, f, o, g, all but g halved."""
    hidden = len(weight) // 4
    found = np.empty(weight.shape, dtype)
    found[: 2 * hidden], found[2 * hidden : 3 * hidden] = weight[: 2 * hidden], weight[3 * hidden :]
    found[: 3 * hidden] *= 0.5
    found[3 * hidden :] = weight[2 * hidden : 3 * hidden]
    return found


class Cells:
    """The cells (H, N) of a layer, and room for its gates."""

    def __init__(self, c: np.ndarray):
        self.c = c
        hidden, columns = c.shape
        self.gates = np.empty((4 * hidden, columns), c.dtype)
        self.sigmoids = self.gates[: 3 * hidden]
        self.i, self.f, self.o, self.g = self.gates.reshape(4, hidden, columns)

    def step(self, weight: np.ndarray, heard: np.ndarray, rest: np.ndarray, h: np.ndarray) -> None:
        """weight (4H, D) times heard (D, N) plus the rest of the gates (4H, N or 1) -> the state h (H, N)."""
        np.matmul(weight, heard, out=self.gates)
        self.gates += rest
        np.tanh(self.gates, out=self.gates)
        self.sigmoids *= 0.5
        self.sigmoids += 0.5
        self.c *= self.f
        self.i *= self.g
        self.c += self.i
        np.tanh(self.c, out=h)
        h *= self.o


def states(layer: Layer, heard: Iterable[np.ndarray], h: np.ndarray, c: np.ndarray) -> Iterator[np.ndarray]:
    """The states (H, N), one after another; `heard` is what the inputs of each step add to the gates, bias included."""
    h, cells = h.copy(), Cells(c.copy())
    for part in heard:
        cells.step(layer.state, h, part, h)
        yield h  # the same array at every step


def last(layer: Layer, heard: Iterable[np.ndarray], columns: int) -> np.ndarray:
    """The last of the `states`, from zeros."""
    zeros = np.zeros((layer.state.shape[1], columns), layer.state.dtype)
    *_, end = states(layer, heard, zeros, zeros)
    return end


class Dense:
    """A linear layer."""

    def __init__(self, weights: Mapping[str, np.ndarray], name: str, dtype: np.dtype):
        self.weight, self.bias = (np.asarray(weights[f"{name}.{part}"], dtype) for part in ("weight", "bias"))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(D, N) -> (H, N)."""
        found: np.ndarray = self.weight @ x
        found += self.bias[:, None]
        return found

    def start(self, x: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
        """(D, N) -> the initial h and c (layers, H, N) of an LSTM, as `vae.Start`: c comes before h."""
        found = np.tanh(self(x)).reshape(layers, 2, -1, x.shape[1])
        return found[:, 1], found[:, 0]
