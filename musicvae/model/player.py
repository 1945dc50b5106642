"""Encoding and decoding in NumPy, without torch: the posterior and the tokens of `MusicVAE`, the reference, but faster.

The product of a one-hot token with its weights is a row of them, what a condition adds to the gates holds for a whole
bar, and the two matrices of a layer are one. Bars that do not hear each other are written side by side: 16 steps for
16 bars instead of 256. Sums are rounded in another order than torch's, so a token may differ, and those after it, where
its uniform number (or at temperature 0 the lead of the most likely token) is within rounding of a border.

Shapes as in vae.py, and
    N rows written side by side: all bars of all windows if bars start silent, else the same bar of each window
    K streams that one decoder writes: 1, or all of them if flat
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from musicvae.model.config import ModelConfig, check_constraints, check_decoding, check_range, check_tokens
from musicvae.model.lstm import Layer, Stack, last, states
from musicvae.model.weights import groups, load_weights

WAYS = ("", "_reverse")  # of the encoder, by the names of its weights


class Posterior(NamedTuple):
    """q(z|x) of each window of a song (eq. 6, 7): normal, with mean mu and deviation sigma, each (windows, Z)."""

    mu: np.ndarray
    sigma: np.ndarray


class Player:
    """A model that encodes and decodes, from its weights by name; each part is prepared at its first use."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, np.ndarray]):
        """Computes in double precision if the weights are, else in single."""
        self.config, self.weights = config, weights
        self.dtype = np.dtype("f8" if weights["to_mu.weight"].dtype == np.float64 else "f4")
        self._denses: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @classmethod
    def load(cls, folder: str | Path, config: ModelConfig) -> "Player":
        """The model of a run folder; ValueError says what is wrong with its weights."""
        return cls(config, load_weights(folder, config))

    def encode(self, tokens: np.ndarray) -> Posterior:
        """tokens (B, T, streams) -> q(z|x), as `MusicVAE.encode`; the same errors."""
        config = self.config
        check_tokens(config, tokens)
        check_range(config, [(int(s.min()), int(s.max())) for s in np.moveaxis(tokens, -1, 0) if s.size])
        summary = self._read(tokens.reshape(len(tokens) * config.encoder_bars, -1, tokens.shape[-1]))  # (N, 2H)
        if config.encoder_bars == 1:
            return self._normal(summary)
        summaries = self._dense("to_summary", summary)
        return self.posterior_of_bars(summaries.reshape(len(tokens), config.encoder_bars, -1))

    def posterior_of_bars(self, summaries: np.ndarray) -> Posterior:
        """Summaries of the bars of each window (B, encoder_bars, C) -> q(z|x), as `MusicVAE.posterior_of_bars`."""
        steps = np.ascontiguousarray(summaries.swapaxes(0, 1), self.dtype)
        ends = [
            last(layer, steps[::way] @ layer.inputs + layer.bias, len(summaries))
            for way, layer in zip((1, -1), self._reader)
        ]
        return self._normal(np.concatenate(ends, axis=1))

    def conduct(self, z: np.ndarray) -> np.ndarray:
        """z (B, Z) -> what each bar is told (B, U, C), as `MusicVAE.conduct`."""
        config, z = self.config, np.asarray(z, self.dtype)
        if config.bars == 1:
            return z[:, None]
        count, heard = len(z), [self._conductor[0].bias] * config.bars  # the conductor has no input but its state
        h, c = self._start("conductor_start", z, config.conductor_layers)
        for n, layer in enumerate(self._conductor):
            if n:
                heard = list(below @ layer.inputs + layer.bias)
            below = np.stack([state.copy() for state in states(layer, heard, h[n], c[n])])  # (U, B, H)
        flat = below.swapaxes(0, 1).reshape(count * config.bars, -1)
        return self._dense("to_condition", flat).reshape(count, config.bars, -1)

    def decode(
        self,
        z: np.ndarray,
        uniforms: np.ndarray | None = None,
        temperature: float = 1.0,
        given: np.ndarray | None = None,
        allowed: np.ndarray | None = None,
    ) -> np.ndarray:
        """z (B, Z) -> tokens (B, T, streams), as `MusicVAE.decode`, whose arguments and errors these are."""
        config, streams = self.config, len(self.config.vocab_sizes)
        check_decoding(config, z, uniforms, temperature)
        numbers = np.zeros((len(z), config.steps, streams)) if uniforms is None else uniforms
        choices = constrained(config, len(z), given, allowed)
        conditions, bar = self.conduct(z), config.steps // config.bars
        if config.bar_start == "silent":
            rows = len(z) * config.bars
            numbers, conditions = numbers.reshape(rows, bar, streams), conditions.reshape(rows, -1)
            choices = None if choices is None else choices.reshape(rows, bar, -1)
            return self._write(conditions, numbers, temperature, choices).reshape(len(z), config.steps, streams)
        window, heard = np.empty(numbers.shape, np.int64), None
        for n in range(config.bars):
            part = slice(n * bar, (n + 1) * bar)
            limits = None if choices is None else choices[:, part]
            window[:, part] = self._write(conditions[:, n], numbers[:, part], temperature, limits, heard)
            heard = window[:, part.stop - 1]
        return window

    # --- parts ---------------------------------------------------------------------------------------------------

    def _read(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (N, S, streams) -> the last states of the encoder's top layer, both ways (N, 2H)."""
        steps, vocab = np.ascontiguousarray(tokens.transpose(1, 2, 0)), self.config.vocab_sizes  # (S, streams, N)
        zeros = np.zeros((len(tokens), self.config.encoder_units), self.dtype)
        below: np.ndarray | None = None  # (S, N, 2H)
        for pair in self._encoder:
            if below is None:
                feeds = [embedded(layer, vocab, steps[::way]) for way, layer in zip((1, -1), pair)]
            else:
                feeds = [projected(layer, below[::way]) for way, layer in zip((1, -1), pair)]
            if pair is self._encoder[-1]:
                return np.concatenate([last(layer, feed, len(tokens)) for layer, feed in zip(pair, feeds)], axis=1)
            ways = [
                np.stack([h.copy() for h in states(layer, feed, zeros, zeros)]) for layer, feed in zip(pair, feeds)
            ]
            below = np.concatenate([ways[0], ways[1][::-1]], axis=2)
        raise AssertionError("an encoder has a layer")

    def _write(
        self,
        conditions: np.ndarray,
        numbers: np.ndarray,
        temperature: float,
        choices: np.ndarray | None,
        heard: np.ndarray | None = None,
    ) -> np.ndarray:
        """conditions (N, C), numbers (N, S, streams) -> tokens (N, S, streams); heard (N, streams) is the step before."""
        tokens = np.empty(numbers.shape, np.int64)
        stream = entry = 0
        for decoder in self._decoders:
            own = slice(stream, stream + len(decoder.vocab))
            part = None if choices is None else choices[..., entry : entry + sum(decoder.vocab)]
            stream, entry = own.stop, entry + sum(decoder.vocab)
            before = None if heard is None else heard[:, own]
            state = self._start(f"{decoder.name}.start", conditions, self.config.decoder_layers)
            decoder.write(conditions, *state, numbers[..., own], temperature, part, before, tokens[..., own])
        return tokens

    def _start(self, name: str, vector: np.ndarray, layers: int) -> tuple[np.ndarray, np.ndarray]:
        """A vector (N, C) -> the initial h and c (layers, N, H), as `Start`: c before h."""
        found = np.tanh(self._dense(f"{name}.dense", vector)).reshape(len(vector), layers, 2, -1)
        c, h = np.ascontiguousarray(found.transpose(2, 1, 0, 3))
        return h, c

    def _normal(self, summary: np.ndarray) -> Posterior:
        mu, sigma = self._dense("to_mu", summary), np.logaddexp(self._dense("to_sigma", summary), 0)  # softplus
        return Posterior(mu, sigma)

    def _dense(self, name: str, x: np.ndarray) -> np.ndarray:
        if name not in self._denses:
            weight, bias = (self.weights[f"{name}.{part}"] for part in ("weight", "bias"))
            self._denses[name] = np.asarray(weight, self.dtype).T, np.asarray(bias, self.dtype)
        weight, bias = self._denses[name]
        return x @ weight + bias

    def _layers(self, name: str, layers: int, way: str = "") -> list[Layer]:
        return [Layer(self.weights, name, n, self.dtype, way) for n in range(layers)]

    @cached_property
    def _encoder(self) -> list[tuple[Layer, Layer]]:
        forward, backward = (self._layers("encoder", self.config.encoder_layers, way) for way in WAYS)
        return list(zip(forward, backward))

    @cached_property
    def _reader(self) -> list[Layer]:
        return [self._layers("reader", 1, way)[0] for way in WAYS]

    @cached_property
    def _conductor(self) -> list[Layer]:
        return self._layers("conductor", self.config.conductor_layers)

    @cached_property
    def _decoders(self) -> "list[TableDecoder]":
        return [
            TableDecoder(f"decoders.{n}", self._layers(f"decoders.{n}.lstm", self.config.decoder_layers), vocab, self)
            for n, vocab in enumerate(groups(self.config))
        ]


class TableDecoder:
    """One decoder, as a step needs it."""

    def __init__(self, name: str, layers: list[Layer], vocab: tuple[int, ...], player: Player):
        self.name, self.layers, self.vocab, self.player = name, layers, vocab, player
        *self.tables, self.condition = np.split(layers[0].inputs, np.cumsum(vocab))  # (V, 4H) a stream, (C, 4H)

    def write(
        self,
        conditions: np.ndarray,
        h: np.ndarray,
        c: np.ndarray,
        numbers: np.ndarray,
        temperature: float,
        choices: np.ndarray | None,
        heard: np.ndarray | None,
        tokens: np.ndarray,
    ) -> None:
        """conditions (N, C), h and c (layers, N, H), numbers (N, S, K) -> tokens (N, S, K), step by step.

        choices (N, S, V) are the tokens that may be written, by default all; heard (N, K) those of the step before,
        by default none.
        """
        base = conditions @ self.condition + self.layers[0].bias  # (N, 4H): the same at every step of a bar
        stack, first, row = Stack(self.layers, h, c), base.copy(), np.empty_like(base)
        for step in range(tokens.shape[1]):
            if heard is not None:
                np.copyto(first, base)
                for table, token in zip(self.tables, heard.T):
                    first += np.take(table, token, axis=0, out=row, mode="clip")  # clip: no copy of the output
            logits = self.player._dense(f"{self.name}.to_logits", stack.step(first))
            if choices is not None:
                logits[~choices[:, step]] = -np.inf
            for k, head in enumerate(np.split(logits, np.cumsum(self.vocab)[:-1], axis=1)):
                tokens[:, step, k] = draw(head, numbers[:, step, k], temperature)
            heard = tokens[:, step]


def embedded(layer: Layer, vocab: tuple[int, ...], steps: np.ndarray) -> Iterator[np.ndarray]:
    """steps (S, streams, N) of tokens -> what each adds to the gates (N, 4H), bias included."""
    tables = np.split(layer.inputs, np.cumsum(vocab)[:-1])
    for tokens in steps:
        total = tables[0][tokens[0]]
        for table, stream in zip(tables[1:], tokens[1:]):
            total += table[stream]
        total += layer.bias
        yield total


def projected(layer: Layer, below: np.ndarray) -> Iterator[np.ndarray]:
    """The states (S, N, D) of the layer below -> what each adds to the gates (N, 4H), bias included."""
    for state in below:
        yield state @ layer.inputs + layer.bias


def draw(logits: np.ndarray, uniforms: np.ndarray, temperature: float) -> np.ndarray:
    """logits (N, V), uniforms (N) in [0, 1) -> tokens (N), by the inverse of the cumulative distribution."""
    if temperature == 0:
        return logits.argmax(axis=1)
    odds = logits.astype(np.float64)
    odds -= odds.max(axis=1, keepdims=True)  # a tiny temperature must not overflow
    odds /= temperature
    cumulative = np.exp(odds, out=odds).cumsum(axis=1)
    return (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(axis=1)


def constrained(
    config: ModelConfig, count: int, given: np.ndarray | None, allowed: np.ndarray | None
) -> np.ndarray | None:
    """Which tokens may be written (B, T, V), the streams side by side; None if any. See `MusicVAE.decode`."""
    check_constraints(config, count, given, allowed)
    if given is None:
        return None if allowed is None else np.broadcast_to(allowed, (count, *allowed.shape[1:]))
    kept = np.repeat(given, config.vocab_sizes, axis=-1)
    tokens = np.concatenate([np.arange(size) for size in config.vocab_sizes])
    return np.where(kept >= 0, tokens == kept, True if allowed is None else allowed)
