"""Forms rearrange whole bars of one window: nothing in a bar changes, and bars return."""

import numpy as np
import pytest

from musicvae.music.forms import PERIODS, form, formed, section


def numbered(n: int, bars: int, streams: int = 3) -> np.ndarray:
    """Windows whose tokens say window, bar, step and stream."""
    shape = (n, bars, 16, streams)
    return np.arange(np.prod(shape)).reshape(n, bars * 16, streams)


@pytest.mark.parametrize("bars", [1, 2, 3, 4, 8, 16, 32])
def test_every_bar_is_one_of_the_window_with_all_its_streams(bars: int) -> None:
    tokens = numbered(50, bars)
    made = formed(bars, 1.0, tokens, np.random.default_rng(0))
    assert made.shape == tokens.shape
    for before, after in zip(tokens.reshape(50, bars, -1), made.reshape(50, bars, -1)):
        assert {tuple(bar) for bar in after} <= {tuple(bar) for bar in before}


def test_the_share_is_that_of_windows_that_change() -> None:
    tokens = numbered(400, 16)
    changed = (formed(16, 0.3, tokens, np.random.default_rng(0)) != tokens).any((1, 2)).mean()
    assert 0.22 < changed < 0.38
    assert (formed(16, 0.0, tokens, np.random.default_rng(0)) == tokens).all()


def test_a_section_repeats_neighbouring_bars() -> None:
    rng = np.random.default_rng(0)
    for period in PERIODS:
        order = section(16, period, rng)
        assert (order[period:] == order[:-period]).all() and (np.diff(order[:period]) == 1).all()


def test_bars_return_after_a_period_but_for_the_end_of_each_four() -> None:
    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        order = form(16, rng)[:8]  # the first section
        inner = {p: [i for i in range(p, 8) if i % 4 != 3 and (i - p) % 4 != 3] for p in (1, 2, 4)}
        found += any(all(order[i] == order[i - p] for i in places) for p, places in inner.items())
    assert 0.65 < found / 200 < 0.85, "three of four periods are shorter than the section"
