"""The geometry of the latent space (sections 2.1.2, 5.4, 5.5): ways from vector to vector, means, directions.

Z latent   N vectors. Arrays are NumPy's; every function works on the last axis, in float64.
"""

import numpy as np

NEARLY = 1e-9  # shorter than this, what is left of a unit vector points nowhere


def linear(a: np.ndarray, b: np.ndarray, fraction: float | np.ndarray) -> np.ndarray:
    """a, b (..., Z), fraction (...) -> (..., Z) on the straight line; 0 is exactly a, 1 exactly b, beyond goes on."""
    a, b, f = _checked(a, b, fraction)
    return _with_exact_ends(a, b, f, (1 - f) * a + f * b)


def slerp(a: np.ndarray, b: np.ndarray, fraction: float | np.ndarray) -> np.ndarray:
    """The direction turns from a to b at constant speed (Shoemake 1985), the length goes from a's to b's in a line.

    a, b (..., Z), fraction (...) -> (..., Z); 0 is exactly a, 1 exactly b, beyond goes on. Between vectors of one
    direction only the length changes; between opposite ones, which no single arc joins, the way is a half turn through
    the axis of which they have least; where one is zero, and so has no direction, it is the straight line.
    """
    a, b, f = _checked(a, b, fraction)
    length_a, length_b = _length(a), _length(b)
    u, v = _divided(a, length_a), _divided(b, length_b)
    # Half the angle from a sum and a difference: arccos of a dot product is blind to small angles (Kahan 2006).
    angle = 2 * np.arctan2(_length(u - v), _length(u + v))
    side = v - (u * v).sum(-1, keepdims=True) * u  # what of b stands upright on a: the other axis of the turn
    is_clear = _length(side) > NEARLY
    side = np.where(is_clear, _divided(side, _length(side)), np.where(angle > 1, _across(u), 0.0))
    direction = np.cos(f * angle) * u + np.sin(f * angle) * side
    length = np.maximum((1 - f) * length_a + f * length_b, 0)
    has_direction = (length_a > 0) & (length_b > 0)
    return _with_exact_ends(a, b, f, np.where(has_direction, length * direction, (1 - f) * a + f * b))


def path(a: np.ndarray, b: np.ndarray, steps: int, straight: bool = False) -> np.ndarray:
    """a, b (Z,) -> (steps, Z), evenly from a to b; both ends count. Raises ValueError for less than two steps."""
    if steps < 2:
        raise ValueError(f"{steps} steps; an interpolation needs at least 2, as its ends count")
    return (linear if straight else slerp)(a, b, np.linspace(0, 1, steps))


def grid(corners: np.ndarray, size: int, straight: bool = False) -> np.ndarray:
    """corners (4, Z), two above and two below -> (size, size, Z): each row runs from the left edge to the right one.

    All four edges are paths between their corners. Raises ValueError for less than two a side, or not four corners.
    """
    if np.shape(corners)[:-1] != (4,):
        raise ValueError(f"corners of shape {np.shape(corners)}; a grid has (4, Z)")
    if size < 2:
        raise ValueError(f"a grid of size {size}; it needs at least 2, as its corners count")
    top_left, top_right, bottom_left, bottom_right = corners
    way = linear if straight else slerp
    left, right = path(top_left, bottom_left, size, straight), path(top_right, bottom_right, size, straight)
    return way(left[:, None], right[:, None], np.linspace(0, 1, size))


def mix(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """vectors (N, Z), weights (..., N) -> (..., Z): the weighted mean, brought to the weighted mean of the lengths.

    Weights count by their shares of their sum (barycentric coordinates); all on one vector give that vector. A mean of
    length zero has no direction and stays zero. Raises ValueError for weights that are negative or all zero.
    """
    vectors, weights = np.asarray(vectors, np.float64), np.asarray(weights, np.float64)
    if vectors.ndim != 2 or not len(vectors) or weights.shape[-1:] != vectors.shape[:1]:
        raise ValueError(f"weights of shape {weights.shape} for vectors of shape {vectors.shape}; one each is needed")
    with np.errstate(over="ignore"):
        total = weights.sum(-1, keepdims=True)
    if not np.isfinite(total).all() or not np.isfinite(weights).all() or (weights < 0).any() or (total <= 0).any():
        raise ValueError(f"weights {weights.tolist()}; they must be 0 or more, and not all 0")
    weights = weights / total
    mean = weights @ vectors
    length, wanted = _length(mean), weights @ _length(vectors)
    return np.where(length > NEARLY * wanted, mean * _divided(wanted, length), 0.0)


def average(vectors: np.ndarray) -> np.ndarray:
    """vectors (N, Z) -> (Z,): their mean, brought to their mean length (a plain mean is too short, and sounds dull)."""
    return mix(vectors, np.ones(len(vectors)))


def attribute_vector(having: np.ndarray, lacking: np.ndarray) -> np.ndarray:
    """having (N, Z), lacking (M, Z) -> (Z,): from the mean of those without an attribute to the mean of those with it.

    Adding it once moves a window as far as the groups lie apart (section 5.5). Raises ValueError for an empty group.
    """
    if not len(having) or not len(lacking):
        raise ValueError(f"groups of {len(having)} and {len(lacking)} vectors; each needs at least one")
    return np.asarray(having, np.float64).mean(0) - np.asarray(lacking, np.float64).mean(0)


def _checked(a: np.ndarray, b: np.ndarray, fraction: float | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both vectors in float64 and the fraction with a last axis of one. Raises ValueError if they do not fit."""
    a, b, f = np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(fraction, np.float64)[..., None]
    if not a.ndim or a.shape[-1:] != b.shape[-1:]:
        raise ValueError(f"vectors of shape {a.shape} and {b.shape}; they must be of one length")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.isfinite(f).all()):
        raise ValueError("vectors or fractions hold values that are not finite")
    return a, b, f


def _with_exact_ends(a: np.ndarray, b: np.ndarray, f: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Rounding must not turn a reconstruction into its neighbour."""
    return np.where(f == 0, a, np.where(f == 1, b, between))


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1, keepdims=True)


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 where the divisor is 0."""
    return above / np.where(below > 0, below, 1) * (below > 0)


def _across(u: np.ndarray) -> np.ndarray:
    """A unit vector at right angles to u, the same for -u, so that a half turn back is the way there."""
    axis = np.eye(u.shape[-1])[np.abs(u).argmin(-1)]
    upright = axis - (u * axis).sum(-1, keepdims=True) * u
    return _divided(upright, _length(upright))
