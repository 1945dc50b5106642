"""One decoder in NumPy, a step at a time: the tokens of `StepDecoder`, from weights laid out for a step.

The product of a one-hot token with its weights is a row of a table, what the condition adds to the gates holds for all
steps of a bar, and the two matrices of a layer are one.

    N bars side by side   S steps   K streams of this decoder   C condition   H units   V vocabulary
"""

from collections.abc import Mapping

import numpy as np

from musicvae.model.lstm import Cells, Dense, Layer


class TableDecoder:
    """The decoder `name` of a model, from the weights of the model by name."""

    def __init__(
        self, weights: Mapping[str, np.ndarray], name: str, vocab: tuple[int, ...], layers: int, dtype: np.dtype
    ):
        first, *higher = (Layer(weights, f"{name}.lstm", n, dtype) for n in range(layers))
        self.vocab, self.layers = vocab, layers
        self.tables = first.tables(vocab)
        self.condition = np.ascontiguousarray(first.inputs[:, sum(vocab) :])  # (4H, C)
        self.weights = [first.state, *(np.concatenate([layer.inputs, layer.state], axis=1) for layer in higher)]
        self.biases = [first.bias, *(layer.bias for layer in higher)]
        self.start, self.to_logits = (Dense(weights, f"{name}.{part}", dtype) for part in ("start.dense", "to_logits"))

    def write(
        self,
        conditions: np.ndarray,
        numbers: np.ndarray,
        temperature: float,
        choices: np.ndarray | None = None,
        heard: np.ndarray | None = None,
    ) -> np.ndarray:
        """conditions (C, N), uniform numbers (N, S, K) -> tokens (N, S, K).

        choices (N, S, V) are the tokens that may be written, by default all; heard (N, K) those of the step before the
        first, by default none.
        """
        h, c = self.start.start(conditions, self.layers)
        hidden, h = h.shape[1], np.concatenate(list(h))  # the layers one below the other
        below = [h[max(n - 1, 0) * hidden : (n + 1) * hidden] for n in range(self.layers)]  # what each layer hears
        cells, own = [Cells(np.ascontiguousarray(part)) for part in c], h.reshape(self.layers, hidden, -1)
        base = self.condition @ conditions + self.biases[0]  # (4H, N): the same at every step
        tokens = np.empty(numbers.shape, np.int64)
        for step in range(numbers.shape[1]):
            rest = [base if heard is None else self._embed(base, heard), *self.biases[1:]]
            for n, weight in enumerate(self.weights):
                cells[n].step(weight, below[n], rest[n], own[n])
            logits = self.to_logits(own[-1])  # (V, N)
            if choices is not None:
                logits[~choices[:, step].T] = -np.inf
            for k, head in enumerate(np.split(logits, np.cumsum(self.vocab)[:-1])):
                tokens[:, step, k] = draw(head, numbers[:, step, k], temperature)
            heard = tokens[:, step]
        return tokens

    def _embed(self, base: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """base (4H, N) and what the tokens (N, K) add to it."""
        total = base
        for table, stream in zip(self.tables, tokens.T):
            total = total + table[stream].T
        return total


def draw(logits: np.ndarray, uniforms: np.ndarray, temperature: float) -> np.ndarray:
    """logits (V, N), uniforms (N) in [0, 1) -> tokens (N), by the inverse of the cumulative distribution."""
    if temperature == 0:
        return logits.argmax(axis=0)
    odds = logits.astype(np.float64)
    odds -= odds.max(axis=0)  # a tiny temperature must not overflow
    odds /= temperature
    cumulative = np.exp(odds, out=odds).cumsum(axis=0)
    return (cumulative <= uniforms * cumulative[-1]).sum(axis=0)
