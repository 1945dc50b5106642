"""Samples beside real music: each figure against a value worked out by hand, or known from a library."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from musicvae.evaluation.quality import (
    copied_runs,
    longest_runs,
    measure_quality,
    overlapped_area,
    repetition,
    wasserstein,
)

C4, D4, E4 = 62, 64, 66
KICK, SNARE = 1, 2
TRIO = ("melody", "melody", "drums")


def melodies(n: int, bars: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice([0, 0, 0, 1, C4, D4, E4], size=(n, 16 * bars, 1)).astype(np.uint16)


# --- distances ---------------------------------------------------------------------------------------------------


def test_overlapped_area_of_histograms():
    assert overlapped_area(np.array([1, 1, 2, 2]), np.array([1, 1, 2, 2, 1, 2]), 1) == 1
    assert overlapped_area(np.array([1, 1, 2, 2]), np.array([2, 2, 3, 3]), 1) == 0.5
    assert overlapped_area(np.array([1.0]), np.array([2.0]), 1) == 0
    assert overlapped_area(np.array([0.9]), np.array([1.1]), 0.5) == 1  # one bin around 1


def test_wasserstein_moves_every_value_as_far_as_needed():
    assert wasserstein(np.array([0.0, 1.0]), np.array([3.0, 4.0])) == 3
    assert wasserstein(np.array([0.0, 10.0]), np.array([10.0, 0.0, 0.0, 10.0])) == 0
    assert wasserstein(np.array([0.0, 4.0]), np.array([0.0])) == 2


def test_wasserstein_is_that_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 9, rng.integers(1, 30)), rng.normal(size=rng.integers(1, 30))
        assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b))


def test_equal_sets_are_at_no_distance_and_a_shifted_rhythm_at_that_of_the_shift():
    real = melodies(50)
    same = measure_quality(real, real, ("melody",)).streams[0].distances
    assert {name: (d.overlap, d.wasserstein) for name, d in same.items()} == dict.fromkeys(same, (pytest.approx(1), 0))
    assert list(same) == ["notes a bar", "pitch range", "pitch-class entropy", "interval", "inter-onset"]
    one, two = np.zeros((2, 1, 32, 1), int)
    one[0, [0, 4], 0], two[0, [0, 8], 0] = (C4, D4), (C4, C4)
    found = measure_quality(one, two, ("melody",)).streams[0].distances
    assert (found["inter-onset"].wasserstein, found["inter-onset"].unit) == (4, "steps")
    assert (found["interval"].wasserstein, found["pitch range"].wasserstein) == (2, 2)
    assert found["pitch-class entropy"].wasserstein == 1  # bits
    assert found["notes a bar"].wasserstein == 0


def test_an_interval_up_is_not_one_down():
    up, down = np.zeros((2, 1, 16, 1), int)
    up[0, :2, 0], down[0, :2, 0] = (C4, E4), (E4, C4)
    assert measure_quality(up, down, ("melody",)).streams[0].distances["interval"].wasserstein == 8


def test_the_hit_rate_of_each_drum_class():
    ours, real = np.zeros((2, 2, 32, 1), int)
    ours[:, ::4] = KICK
    real[:, ::4], real[:, ::8] = KICK, KICK + SNARE
    found = measure_quality(ours, real, ("drums",)).streams[0].distances
    assert {name: d.wasserstein for name, d in found.items() if d.wasserstein} == {"snare": 2, "hits": 2}
    assert (found["snare"].overlap, found["kick"].overlap, found["snare"].unit) == (0, 1, "a bar")


def test_what_silence_lacks_is_none_and_the_rest_is_ready_for_json():
    trio = np.zeros((3, 256, 3), np.uint16)
    trio[1:, ::16, 0] = C4
    found = measure_quality(trio, trio, TRIO, trio)
    melody, bass, drums = found.streams
    assert melody.distances["interval"].wasserstein == 0 and bass.distances["interval"] is None
    assert drums.repetition[1].similarity is None and melody.repetition[8].similarity == 1
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["streams"][1]["name"] == "bass"


# --- bars that come back -----------------------------------------------------------------------------------------


def song(*bars: tuple[int, ...]) -> np.ndarray:
    """One window (1, T) of bars, each given by its first tokens."""
    return np.concatenate([np.array([*bar, *[0] * (16 - len(bar))]) for bar in bars])[None]


def test_bars_in_the_form_abab_repeat_at_lag_2_and_not_at_lag_1():
    a, b = (C4, 0, 0, 0, D4), (0, 0, E4, 0, 0, 0, D4)
    found = repetition(song(*[a, b] * 8), "melody")
    assert list(found) == [1, 2, 4, 8]
    assert [found[lag].similarity for lag in (1, 2, 4, 8)] == [0, 1, 1, 1]
    assert [found[lag].equal for lag in (1, 2, 4, 8)] == [0, 1, 1, 1]


def test_similarity_counts_common_onsets_and_silent_bars_prove_nothing():
    half = repetition(song((C4, 0, D4), (C4, 0, E4), (), ()), "melody")
    assert half[1].similarity == 2 * 1 / (4 + 2)  # lag 1: C of two pairs of notes, then two notes and none
    assert half[1].equal == 0  # the pair of silent bars is left out
    assert repetition(song((), ()), "melody")[1].equal is None
    assert repetition(song((KICK + SNARE,), (KICK,)), "drums")[1].similarity == 2 * 1 / 3
    assert list(repetition(song((C4,), (C4,)), "melody")) == [1]  # other lags do not fit two bars


def test_chance_is_measured_with_bars_of_other_windows():
    alike = np.concatenate([song((C4,), (C4,)), song((D4,), (D4,))])
    assert repetition(alike, "melody")[1].similarity == 1
    assert repetition(alike, "melody")[1].unrelated == 0
    assert repetition(alike[:1], "melody")[1].unrelated is None


# --- copies ------------------------------------------------------------------------------------------------------


def reference(tokens: np.ndarray, training: np.ndarray) -> list[int]:
    """The longest copied run of each window in beats, found by comparing everything with everything."""
    longest = []
    for window in tokens.reshape(len(tokens), -1, 4 * tokens.shape[2]):
        best = 0
        for other in training.reshape(len(training), *window.shape):
            for i in range(len(window)):
                for j in range(len(window)):
                    n = 0
                    while max(i, j) + n < len(window) and (window[i + n] == other[j + n]).all():
                        n += 1
                    best = max(best, n)
        longest.append(best)
    return longest


def test_longest_copied_runs_are_those_of_a_plain_search():
    rng = np.random.default_rng(0)
    training, tokens = (rng.choice([0, 0, C4, D4], size=(n, 32, 1)) * rng.integers(0, 2, (n, 32, 1)) for n in (40, 12))
    tokens[0] = training[7]
    tokens[1, 8:24], tokens[1, [4, 24]] = training[9, 12:28], 99  # 4 beats, from another place
    tokens[2, 2:18] = training[9, 3:19]  # off the beat of the other
    runs = longest_runs(tokens, training).tolist()
    assert runs == reference(tokens, training)
    assert runs[:2] == [8, 4]


def test_copied_runs_of_a_trio_are_of_all_streams_together():
    training = np.concatenate([melodies(3), melodies(3, seed=1), melodies(3, seed=2) % 4], axis=-1)
    tokens = training[:2].copy()
    tokens[1, 16:, 2] += 1  # other drums in the second bar
    assert longest_runs(tokens, training).tolist() == [8, 4]
    runs = copied_runs(tokens, training)
    assert (runs.mean, runs.longest, runs.whole) == (6, 8, 0.5)
    assert longest_runs(tokens.astype(np.int64), training.astype(np.uint8)).tolist() == [8, 4]


def test_quality_counts_copies_only_if_there_is_training():
    real = melodies(5)
    assert measure_quality(real, real, ("melody",)).runs is None
    copied = measure_quality(real, real, ("melody",), training=real[:2])
    assert copied.runs.whole == copied.statistics.copies == 0.4


def test_windows_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="the real ones are"):
        measure_quality(melodies(2), melodies(2, bars=4), ("melody",))
