"""Forms: the bars of a window rearranged so that they return, as an augmentation of training.

N windows   T steps   U bars   S steps a bar
"""

import numpy as np

PERIODS = (1, 2, 4, 8)  # bars
SECOND, FILLS = 0.5, 0.5  # shares of the windows with a second section, and with another bar at the end of each four
FOUR = 4


def formed(bars: int, share: float, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """tokens (N, T, streams) -> the same, a share of the windows made of a few of their own bars.

    A section of 1, 2, 4 or 8 bars is repeated to the end, from the middle on a second one in half of them, and in half
    of them every fourth bar is another. All streams keep together, and the key is that of the window.
    """
    order = np.tile(np.arange(bars), (len(tokens), 1))
    for row in np.flatnonzero(rng.random(len(tokens)) < share):
        order[row] = form(bars, rng)
    bar_by_bar = tokens.reshape(len(tokens), bars, -1, tokens.shape[2])
    return np.take_along_axis(bar_by_bar, order[:, :, None, None], axis=1).reshape(tokens.shape)


def form(bars: int, rng: np.random.Generator) -> np.ndarray:
    """Which bar of a window stands at each place (U,)."""
    period = int(rng.choice([p for p in PERIODS if p < bars] or [bars]))
    places = np.arange(bars)
    order = section(bars, period, rng)
    if rng.random() < SECOND:
        order = np.where(places < bars // 2, order, section(bars, period, rng))
    if rng.random() < FILLS:
        order[FOUR - 1 :: FOUR] = rng.integers(bars)
    return order


def section(bars: int, period: int, rng: np.random.Generator) -> np.ndarray:
    """`period` neighbouring bars repeated to the end (U,)."""
    return int(rng.integers(bars - period + 1)) + np.arange(bars) % period
