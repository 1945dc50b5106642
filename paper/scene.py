"""What the figures are drawn from: models, test windows as originals, attribute vectors; and what of it is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from data import recipe_of

from musicvae.box import models
from musicvae.composer import Composer, load
from musicvae.evaluation.command import fitting_dataset
from musicvae.evaluation.interpolation import draw_pairs
from musicvae.music.midi import STEPS_PER_BAR, Song
from musicvae.music.representation import FIRST_PITCH, NOTHING

MELODIES = ("melody-2", "melody-90", "melody-16")  # in the order in which the box is asked
EVENTS = (3, 10)  # a bar, of all streams together: originals are neither near silence nor crowded


class Missing(Exception):
    """A figure cannot be drawn; the message says what is not there."""


@dataclass(frozen=True)
class Scene:
    """What the figures are drawn from."""

    data: Path | None
    given: tuple[str, ...]  # run folders and names, tried first
    seed: int

    @cached_property
    def known(self) -> dict[str, Composer]:
        """The models by name: those given, and those in the box."""
        return {**self.own, **{name: load(name) for name in models() if name not in self.own}}

    @cached_property
    def own(self) -> dict[str, Composer]:
        """Those that were given, by name."""
        composers = [load(name) for name in self.given]
        return {composer.name: composer for composer in composers}

    def composer(self, *names: str) -> Composer:
        """The first of these models that there is and that can encode, first of all among those given."""
        for name in sorted(names, key=lambda name: name not in self.own):
            composer = self.known.get(name)
            if composer and composer.config.encodes:
                return composer
        raise Missing(f"there is no model {' or '.join(names)} (see --models)")

    def windows(self, composer: Composer) -> tuple[np.ndarray, np.ndarray]:
        """Test windows of a model's kind (N, T, streams), and the group of songs of each."""
        if self.data is None:
            raise Missing(f"it needs test windows for {composer.name} (see --data)")
        try:
            dataset = fitting_dataset(composer, self.data / recipe_of(composer.representation.name, composer.bars))
        except ValueError as error:
            raise Missing(str(error)) from None
        return np.asarray(dataset.tokens("test")), dataset.rows("test", ["group"])["group"].to_numpy()

    def originals(self, composer: Composer, n: int, fits: Callable[[np.ndarray], np.ndarray] | None = None) -> list:
        """n test windows of different groups of songs as songs: the first that fit, in an order drawn by the seed."""
        tokens, groups = self.windows(composer)
        good = eventful(tokens)
        good &= fits(tokens) if fits else True
        order = np.random.default_rng(self.seed).permutation(len(tokens))
        chosen = []
        for i in order[good[order]].tolist():
            if groups[i] not in groups[chosen]:
                chosen.append(i)
            if len(chosen) == n:
                return [composer.representation.to_song(tokens[k]) for k in chosen]
        raise Missing(f"the test windows of {composer.name} hold fewer than {n} that fit")

    def ends(self, composer: Composer) -> np.ndarray:
        """Two test windows (2, T, streams) of different groups of songs: the first pair that the seed draws."""
        tokens, groups = self.windows(composer)
        good = np.flatnonzero(eventful(tokens))
        if len(set(groups[good])) < 2:
            raise Missing(f"the test windows of {composer.name} hold no two songs that fit")
        pair = draw_pairs(groups[good], 1, self.seed)
        return tokens[good[[pair.a[0], pair.b[0]]]]


class Bending(NamedTuple):
    """A model, an original song, its mu (Z,), and the attribute vector (Z,) to bend it with."""

    composer: Composer
    original: Song
    mu: np.ndarray
    vector: np.ndarray


def attributes(composer: Composer) -> dict[str, np.ndarray]:
    vectors = composer.attributes()
    if not vectors:
        raise Missing(f"{composer.name} has no attribute vectors (see: musicvae attribute learn)")
    return vectors


def bending(scene: Scene, name: str, low: float, high: float) -> Bending:
    """A melody model with that vector, and a test window of `low` to `high` notes a bar."""

    def fits(tokens: np.ndarray) -> np.ndarray:
        notes = (tokens[..., 0] >= FIRST_PITCH).sum(axis=1) / tokens.shape[1] * STEPS_PER_BAR
        return (notes >= low) & (notes <= high)

    composer = scene.composer(*MELODIES)
    vectors = attributes(composer)
    if name not in vectors:
        raise Missing(f"{composer.name} has no vector {name!r}; it has {', '.join(vectors)}")
    (original,) = scene.originals(composer, 1, fits)
    return Bending(composer, original, composer.phrase(original).mu, vectors[name])


def eventful(tokens: np.ndarray) -> np.ndarray:
    """tokens (N, T, streams) -> (N,) whether a window has as many EVENTS as an original should."""
    events = (tokens != NOTHING).any(axis=2).sum(axis=1) / tokens.shape[1] * STEPS_PER_BAR
    return (events >= EVENTS[0]) & (events <= EVENTS[1])
