"""Encoding and decoding in NumPy, without torch: the posterior and the tokens of `MusicVAE`, the reference, but faster.

Bars that do not hear each other are written side by side: 16 steps for 16 bars instead of 256. Sums are rounded in
another order than torch's, so a token may differ, and those after it, where its uniform number (or at temperature 0 the
lead of the most likely token) is within rounding of a border.

Shapes as in vae.py, and
    N columns side by side: all bars of all windows if bars start silent, else the same bar of each window
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from musicvae.model.config import ModelConfig, check_constraints, check_decoding, check_range, check_tokens
from musicvae.model.lstm import Dense, Layer, last, states
from musicvae.model.table_decoder import TableDecoder
from musicvae.model.threads import few_threads
from musicvae.model.weights import groups, load_weights


class Posterior(NamedTuple):
    """q(z|x) of each window of a song (eq. 6, 7): normal, with mean mu and deviation sigma, each (windows, Z)."""

    mu: np.ndarray
    sigma: np.ndarray


class Way(NamedTuple):
    """One direction of a layer that reads both ways."""

    order: int  # 1 from the first step on, -1 from the last
    layer: Layer
    tables: list[np.ndarray]  # of tokens, for the lowest layer of the encoder


class Player:
    """A model that encodes and decodes, from its weights by name; each part is prepared at its first use."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, np.ndarray]):
        """Computes in double precision if the weights are, else in single."""
        self.config, self.weights = config, weights
        self.dtype = np.dtype("f8" if weights["to_mu.weight"].dtype == np.float64 else "f4")

    @classmethod
    def load(cls, folder: str | Path, config: ModelConfig) -> "Player":
        """The model of a run folder; ValueError says what is wrong with its weights."""
        return cls(config, load_weights(folder, config))

    def encode(self, tokens: np.ndarray) -> Posterior:
        """tokens (B, T, streams) -> q(z|x), as `MusicVAE.encode`; the same errors."""
        config = self.config
        check_tokens(config, tokens)
        check_range(config, [(int(s.min()), int(s.max())) for s in np.moveaxis(tokens, -1, 0) if s.size])
        with few_threads(config.encoder_units):
            ends = self._read(tokens.reshape(-1, config.steps // config.encoder_bars, tokens.shape[-1]))  # (2H, N)
            if config.encoder_bars == 1:
                return self._normal(ends)
            return self.posterior_of_bars(self._to_summary(ends).T.reshape(len(tokens), config.encoder_bars, -1))

    def posterior_of_bars(self, summaries: np.ndarray) -> Posterior:
        """Summaries of the bars of each window (B, encoder_bars, C) -> q(z|x), as `MusicVAE.posterior_of_bars`."""
        summaries = np.asarray(summaries, self.dtype)
        steps = summaries.transpose(1, 2, 0)  # (encoder_bars, C, B)
        with few_threads(self.config.conductor_units):
            ends = [last(way.layer, way.layer.projected(steps[:: way.order]), len(summaries)) for way in self._reader]
            mu, sigma = self._normal(np.concatenate(ends))
            if self.config.linear:
                mu += summaries.reshape(len(summaries), -1) @ self._linear_mu.T
            return Posterior(mu, sigma)

    def conduct(self, z: np.ndarray) -> np.ndarray:
        """z (B, Z) -> what each bar is told (B, U, C), as `MusicVAE.conduct`."""
        config, z = self.config, np.asarray(z, self.dtype)
        if config.bars == 1:
            return z[:, None]
        with few_threads(config.conductor_units):
            h, c = self._conductor_start.start(z.T, config.conductor_layers)
            hidden: np.ndarray | None = None  # (U, H, B)
            for n, layer in enumerate(self._conductor):  # it has no input but its state
                heard = [layer.bias] * config.bars if hidden is None else layer.projected(hidden)
                hidden = np.stack([state.copy() for state in states(layer, heard, h[n], c[n])])
            assert hidden is not None, "a conductor has a layer"
            columns = hidden.transpose(1, 2, 0).reshape(hidden.shape[1], -1)  # (H, B*U)
            conditions = self._to_condition(columns).T.reshape(len(z), config.bars, -1)
            return conditions + self._linear_condition(z.T).T.reshape(conditions.shape) if config.linear else conditions

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
        if not len(z):
            return np.zeros(numbers.shape, np.int64)
        conditions, bars, size = self.conduct(z), config.bars, config.steps // config.bars
        with few_threads(config.decoder_units):
            if config.bar_start == "silent":
                conditions = conditions.reshape(len(z) * bars, -1)
                numbers = numbers.reshape(len(conditions), size, streams)
                choices = None if choices is None else choices.reshape(len(conditions), size, -1)
                return self._write(conditions, temperature, numbers, choices).reshape(len(z), config.steps, streams)
            window, heard = np.empty(numbers.shape, np.int64), None
            for n in range(bars):
                bar = slice(n * size, (n + 1) * size)
                possible = None if choices is None else choices[:, bar]
                window[:, bar] = self._write(conditions[:, n], temperature, numbers[:, bar], possible, heard)
                heard = window[:, bar.stop - 1]
            return window

    # --- parts: columns of vectors side by side ------------------------------------------------------------------

    def _read(self, tokens: np.ndarray) -> np.ndarray:
        """tokens (N, S, streams) -> the last states of the encoder's top layer, both ways (2H, N)."""
        steps, zeros = tokens.transpose(1, 2, 0), np.zeros((self.config.encoder_units, len(tokens)), self.dtype)
        below: np.ndarray | None = None  # (S, 2H, N)

        def heard(way: Way) -> Iterator[np.ndarray]:
            if below is not None:
                return way.layer.projected(below[:: way.order])
            return embedded(way, steps[:: way.order])

        *lower, top = self._encoder
        for pair in lower:
            found = [np.stack([h.copy() for h in states(way.layer, heard(way), zeros, zeros)]) for way in pair]
            below = np.concatenate([found[0], found[1][::-1]], axis=1)
        return np.concatenate([last(way.layer, heard(way), len(tokens)) for way in top])

    def _write(
        self,
        conditions: np.ndarray,
        temperature: float,
        numbers: np.ndarray,
        choices: np.ndarray | None = None,
        heard: np.ndarray | None = None,
    ) -> np.ndarray:
        """conditions (N, C), numbers (N, S, streams) -> tokens (N, S, streams); heard (N, streams) was before."""
        columns, parts, stream, entry = np.ascontiguousarray(conditions.T), [], 0, 0
        for decoder in self.decoders:
            own, tokens = slice(stream, stream + len(decoder.vocab)), slice(entry, entry + sum(decoder.vocab))
            part, before = (None if x is None else x[..., at] for x, at in ((choices, tokens), (heard, own)))
            parts.append(decoder.write(columns, numbers[..., own], temperature, part, before))
            stream, entry = own.stop, tokens.stop
        return np.concatenate(parts, axis=-1)

    def _normal(self, ends: np.ndarray) -> Posterior:
        """What was read last (2H, B) -> q(z|x)."""
        mu, sigma = self._to_mu(ends), np.logaddexp(self._to_sigma(ends), 0)  # softplus
        return Posterior(np.ascontiguousarray(mu.T), np.ascontiguousarray(sigma.T))

    def _ways(self, name: str, layer: int, vocab: tuple[int, ...] = ()) -> list[Way]:
        layers = [Layer(self.weights, name, layer, self.dtype, way) for way in ("", "_reverse")]
        return [Way(order, each, each.tables(vocab) if vocab else []) for order, each in zip((1, -1), layers)]

    @cached_property
    def _encoder(self) -> list[list[Way]]:
        vocab, layers = self.config.vocab_sizes, range(self.config.encoder_layers)
        return [self._ways("encoder", n, () if n else vocab) for n in layers]

    @cached_property
    def _reader(self) -> list[Way]:
        return self._ways("reader", 0)

    @cached_property
    def _conductor(self) -> list[Layer]:
        return [Layer(self.weights, "conductor", n, self.dtype) for n in range(self.config.conductor_layers)]

    @cached_property
    def decoders(self) -> list[TableDecoder]:
        layers = self.config.decoder_layers
        return [
            TableDecoder(self.weights, f"decoders.{n}", vocab, layers, self.dtype)
            for n, vocab in enumerate(groups(self.config))
        ]

    @cached_property
    def _to_summary(self) -> Dense:
        return Dense(self.weights, "to_summary", self.dtype)

    @cached_property
    def _to_mu(self) -> Dense:
        return Dense(self.weights, "to_mu", self.dtype)

    @cached_property
    def _to_sigma(self) -> Dense:
        return Dense(self.weights, "to_sigma", self.dtype)

    @cached_property
    def _conductor_start(self) -> Dense:
        return Dense(self.weights, "conductor_start.dense", self.dtype)

    @cached_property
    def _linear_mu(self) -> np.ndarray:
        return self.weights["linear_mu.weight"].astype(self.dtype)

    @cached_property
    def _linear_condition(self) -> Dense:
        return Dense(self.weights, "linear_condition", self.dtype)

    @cached_property
    def _to_condition(self) -> Dense:
        return Dense(self.weights, "to_condition", self.dtype)


def embedded(way: Way, steps: np.ndarray) -> Iterator[np.ndarray]:
    """steps (S, streams, N) of tokens -> what each adds to the gates (4H, N), bias included."""
    for tokens in steps:
        total = way.layer.bias
        for table, stream in zip(way.tables, tokens):
            total = total + table[stream].T
        yield total


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
