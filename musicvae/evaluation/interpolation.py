"""What lies between two windows (section 5.4, figure 3): is every point music, and is the way even?

P pairs   F points on the way from A to B   T steps a window   Z latent
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from musicvae.composer import Composer
from musicvae.evaluation.estimates import estimate_means
from musicvae.evaluation.ngram import NgramModel, train_ngrams
from musicvae.evaluation.reconstruction import Estimate
from musicvae.model.latent import slerp

POINTS = 11  # the ends are two of them


class Pairs(NamedTuple):
    """Indices of windows, (P,) each; A and B are never of one group of songs."""

    a: np.ndarray
    b: np.ndarray


@dataclass(frozen=True)
class Curve:
    """One way of interpolation, each figure a mean over pairs; `dataclasses.asdict` makes it ready for JSON.

    A distance is a share of the tokens (Hamming). The 95 % intervals are over the groups of songs of A.
    """

    name: str
    points: tuple[float, ...]
    to_a: tuple[Estimate, ...]  # distance of each point from the original A
    to_b: tuple[Estimate, ...]
    cost: tuple[Estimate, ...]  # under the language models, in units of the originals' (see `relative_cost`)
    jump: tuple[Estimate, ...]  # distance of each point from the one before (F - 1)
    largest_jump: Estimate  # of the largest in each pair: section 2.1.2 asks for none that is sudden
    asymmetry: float  # the largest gap between the way from A to B and that from B to A
    hump: float  # how far the highest cost of a point between lies above the dearer end


def draw_pairs(groups: np.ndarray, n: int, seed: int) -> Pairs:
    """groups (N,) of windows -> n pairs, A and B drawn evenly from the windows, of two groups.

    No window is A twice before all were. Raises ValueError for n < 1, and for windows of one group only.
    """
    if n < 1:
        raise ValueError(f"{n} pairs; must be at least 1")
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise ValueError(f"all {len(group)} windows are of one group of songs; pairs need two. Choose another split")
    rng = np.random.default_rng(seed)
    a = np.concatenate([rng.permutation(len(group)) for _ in range(-(-n // len(group)))])[:n]
    by_group, start = np.argsort(group, kind="stable"), np.cumsum(sizes) - sizes
    mine = group[a]
    place = rng.integers(len(group) - sizes[mine])  # among the windows of all other groups
    return Pairs(a, by_group[place + np.where(place >= start[mine], sizes[mine], 0)])


def latent_paths(
    composer: Composer, a: np.ndarray, b: np.ndarray, points: np.ndarray, temperature: float = 0.5, seed: int = 0
) -> np.ndarray:
    """a, b (P, T, streams) -> tokens (F, P, T, streams) decoded from the points (F,) between their means, by slerp.

    All points of a pair hear the same random numbers: what differs between them is z.
    """
    mu_a, mu_b = composer.encode_tokens(a).mu, composer.encode_tokens(b).mu
    return np.stack([composer.decode_tokens(slerp(mu_a, mu_b, point), temperature, seed) for point in points])


def mixed_paths(a: np.ndarray, b: np.ndarray, points: np.ndarray, seed: int = 0) -> np.ndarray:
    """The baseline: a, b (P, T, streams) -> (F, P, T, streams), each step that of B with the point's probability.

    All points of a pair share their random numbers, so that along the way a step changes from A to B once.
    """
    chance = np.random.default_rng(seed).random((*a.shape[:2], 1))
    return np.stack([np.where(chance < point, b, a) for point in points])


def train_language_models(tokens: np.ndarray, order: int = 5) -> tuple[NgramModel, ...]:
    """Training windows (N, T, streams) -> a language model for each stream."""
    return tuple(train_ngrams(stream, order) for stream in np.moveaxis(np.asarray(tokens), -1, 0))


def cost(models: Sequence[NgramModel], tokens: np.ndarray) -> np.ndarray:
    """tokens (N, T, streams) -> -log10 p of each window, ends of sentences included, summed over streams (N,)."""
    return np.sum([m.cost(stream) for m, stream in zip(models, np.moveaxis(tokens, -1, 0))], axis=0)


def relative_cost(cost_a: np.ndarray, cost_b: np.ndarray, between: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Costs of the originals (P,) and of the points between them (F, P) -> (F, P), 1 for what costs as they do.

    The measure is that of section 5.4: C / ((1 - alpha) C_A + alpha C_B).
    """
    alpha = points[:, None]
    return between / ((1 - alpha) * cost_a + alpha * cost_b)


def measure_paths(
    name: str,
    paths: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    models: Sequence[NgramModel],
    points: np.ndarray,
    groups: np.ndarray,
    seed: int = 0,
) -> Curve:
    """Paths (F, P, T, streams) between a and b (P, T, streams), with the groups (P,) of A -> their figures."""
    between = np.stack([cost(models, tokens) for tokens in paths])
    relative = relative_cost(cost(models, a), cost(models, b), between, points)
    jump = hamming(paths[1:], paths[:-1])
    to_a, to_b = hamming(paths, a), hamming(paths, b)
    figures = [to_a, to_b, relative, jump, jump.max(axis=0, keepdims=True)]
    means = estimate_means(np.concatenate(figures).T, groups, seed)
    f, middle = len(points), relative.mean(axis=1)
    return Curve(
        name=name,
        points=tuple(float(p) for p in points),
        to_a=tuple(means[:f]),
        to_b=tuple(means[f : 2 * f]),
        cost=tuple(means[2 * f : 3 * f]),
        jump=tuple(means[3 * f : -1]),
        largest_jump=means[-1],
        asymmetry=float(np.abs(to_a.mean(axis=1) - to_b.mean(axis=1)[::-1]).max()),
        hump=float(middle[1:-1].max(initial=-np.inf) - max(middle[0], middle[-1])),
    )


def hamming(tokens: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(..., T, streams) twice -> the share of tokens that differ (...)."""
    return (tokens != others).mean(axis=(-2, -1))
