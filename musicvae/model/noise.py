"""The random numbers of torch's generator on a CPU, without torch: the same seed gives the same numbers, bit for bit.

Uniform numbers are 24 bits of a Mersenne twister. Normal ones are made in pairs from uniform ones (Box and Muller
1958), 16 at a time with the approximations of Cephes (Moshier) for log, sin and cos as a vector unit computes them: in
single precision, sums of products rounded once. `a * b + c` in double precision gives that result, as the product of
two singles is exact there.
"""

from typing import Any

import numpy as np

LOG = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
LOG_2 = (-2.12194440e-4, 0.693359375)  # in two parts, the small one first
QUARTER = (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)  # minus pi / 4 in three parts
BLOCK = 16  # normal numbers that are made at once
HALF_ROOT = np.float32(0.5**0.5)


class Generator:
    """`torch.Generator().manual_seed(seed)`: only the lower 32 bits of the seed count."""

    def __init__(self, seed: int):
        self._twister = np.random.RandomState(seed & 0xFFFFFFFF)
        self._kept: float | None = None  # the second of a pair of normal numbers

    def uniform(self, *shape: int) -> np.ndarray:
        """`torch.rand`: float32 in [0, 1)."""
        bits = self._bits(int(np.prod(shape))) & np.uint32(2**24 - 1)
        return (bits.astype(np.float32) * np.float32(2**-24)).reshape(shape)

    def normal(self, size: int) -> np.ndarray:
        """`torch.randn`: float32 (size,)."""
        if size < BLOCK:
            return np.array([self._one() for _ in range(size)], np.float32)
        numbers = self.uniform(size)
        found = np.empty(size, np.float32)
        whole = size - size % BLOCK
        found[:whole] = _normal(numbers[:whole])
        if whole < size:  # the last 16 are drawn again
            found[-BLOCK:] = _normal(self.uniform(BLOCK))
        return found

    def _bits(self, size: int) -> np.ndarray:
        return np.frombuffer(self._twister.bytes(4 * size), "<u4")

    def _one(self) -> float:
        """A normal number in double precision, made in pairs of which the second is kept."""
        if self._kept is not None:
            value, self._kept = self._kept, None
            return value
        bits = self._bits(4).astype(np.uint64)
        u, v = ((bits[::2] << np.uint64(32) | bits[1::2]) & np.uint64(2**53 - 1)) * 2.0**-53
        length, angle = np.sqrt(-2 * np.log1p(-v)), 2 * np.pi * u
        self._kept = float(length * np.sin(angle))
        return float(length * np.cos(angle))


def draw_uniforms(n: int, steps: int, streams: int, seed: int) -> np.ndarray:
    """(n, T, streams) uniform numbers in [0, 1); example i is the same whatever n."""
    return Generator(seed ^ 0x5DEECE66D).uniform(n, steps, streams)  # never the numbers that draw_prior turns into z


def draw_prior(n: int, latent_size: int, seed: int) -> np.ndarray:
    """z (n, Z) from the standard normal prior; example i is the same whatever n."""
    generator = Generator(seed)
    return np.stack([generator.normal(latent_size) for _ in range(n)])


def _normal(uniform: np.ndarray) -> np.ndarray:
    """Uniform numbers, a multiple of 16 -> as many normal ones; of each 16, 8 give lengths and 8 give angles."""
    u, v = uniform.reshape(-1, 2, BLOCK // 2).swapaxes(0, 1)
    length = np.sqrt(np.float32(-2) * _log(np.float32(1) - u))
    sin, cos = _sin_cos(np.float32(2 * np.pi) * v)
    return np.stack([length * cos, length * sin], axis=1).ravel()


def _log(x: np.ndarray) -> np.ndarray:
    """Of float32 in (0, 1]."""
    x, exponent = np.frexp(x)
    low = x < HALF_ROOT
    exponent = (exponent - low).astype(np.float32)
    x = x - np.float32(1) + np.where(low, x, np.float32(0))
    square = x * x
    y = _fused(_polynomial(LOG, x) * x, square, exponent * np.float32(LOG_2[0]))
    return _fused(exponent, LOG_2[1], x + _fused(square, -0.5, y))


def _sin_cos(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of float32 in [0, 2 pi)."""
    octant = (x * np.float32(4 / np.pi)).astype(np.int32) + 1 & ~1
    y = octant.astype(np.float32)
    for part in QUARTER:
        x = _fused(y, part, x)
    square, swapped = x * x, octant & 2 != 0
    cos = _fused(_polynomial(COS, square) * square, square, square * np.float32(-0.5)) + np.float32(1)
    sin = _fused(_polynomial(SIN, square) * square, x, x)
    one = np.float32(1)
    of_sin, of_cos = np.where(octant & 4, -one, one), np.where(octant - 2 & 4, one, -one)
    return of_sin * np.where(swapped, cos, sin), of_cos * np.where(swapped, sin, cos)


def _polynomial(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    y = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = _fused(y, x, coefficient)
    return y


def _fused(a: np.ndarray, b: Any, c: Any) -> np.ndarray:
    """a * b + c, rounded once."""
    a, b, c = (np.asarray(part, np.float32).astype(np.float64) for part in (a, b, c))
    return (a * b + c).astype(np.float32)
