"""How much samples are like real music: distances of distributions, bars that come back, and what is copied.

N windows   M training windows   T steps a window   U bars   K beats of 4 steps
"""

from dataclasses import dataclass

import numpy as np

from musicvae.evaluation.statistics import SampleStatistics, pitch_class_entropy, sample_statistics
from musicvae.evaluation.streams import checked_windows, count_common_onsets, count_onsets, stream_names
from musicvae.music.attributes import DRUM_UNITS, measure
from musicvae.music.midi import STEPS_PER_BAR
from musicvae.music.representation import FIRST_PITCH, Drums, Melody

LAGS = (1, 2, 4, 8)  # bars
BEAT = 4  # steps
_AT_ONCE = 2**22  # tokens of training windows looked at in one go
_BINS = {  # width of a bin of the overlapped area, and the unit
    "notes a bar": (0.5, "notes"),
    "pitch range": (1.0, "semitones"),
    "pitch-class entropy": (0.25, "bits"),
    "interval": (1.0, "semitones"),  # from a note to the next, up or down
    "inter-onset": (1.0, "steps"),  # from an onset to the next
    "hits a bar": (0.5, "a bar"),  # of all classes, and of each
}


@dataclass(frozen=True)
class Distance:
    """Between the distributions of one figure over two sets of windows."""

    overlap: float  # overlapped area of the two histograms: 1 if alike, 0 if nothing is in common
    wasserstein: float  # how far the one must be moved to become the other, in the figure's unit
    unit: str


@dataclass(frozen=True)
class Repetition:
    """How much a bar is like the one some bars before it, all windows together."""

    similarity: float | None  # share of their onsets that both have, F1: exact step and pitch (class); None if silent
    unrelated: float | None  # the same with the bar of another window: what chance gives
    equal: float | None  # share of pairs that are equal step for step, of those in which something begins


@dataclass(frozen=True)
class StreamQuality:
    name: str
    distances: dict[str, Distance | None]  # None where one of the sets has no such figure
    repetition: dict[int, Repetition]  # by lag in bars; of those that fit the window


@dataclass(frozen=True)
class CopiedRuns:
    """The longest run of whole beats of each window that stands, token for token, on beats of a training window."""

    mean: float  # beats
    longest: int  # beats
    whole: float  # share of windows that are copied from end to end


@dataclass(frozen=True)
class Quality:
    """`dataclasses.asdict` makes it ready for JSON."""

    windows: int
    statistics: SampleStatistics
    streams: tuple[StreamQuality, ...]
    runs: CopiedRuns | None  # None without training windows


def measure_quality(
    tokens: np.ndarray,
    real: np.ndarray,
    kinds: tuple[str, ...],
    training: np.ndarray | None = None,
    seed: int = 0,
) -> Quality:
    """Windows (N, T, streams) beside real ones (any number of them); training (M, T, streams) is searched for copies.

    Raises ValueError for no windows and for shapes that do not fit.
    """
    tokens, real = checked_windows(tokens, kinds), checked_windows(real, kinds)
    if tokens.shape[1:] != real.shape[1:]:
        raise ValueError(f"windows of shape {tokens.shape[1:]}; the real ones are {real.shape[1:]}")
    streams = []
    for i, (name, kind) in enumerate(zip(stream_names(kinds), kinds)):
        ours, theirs = (figures(windows[..., i], kind) for windows in (tokens, real))
        distances = {figure: distance(ours[figure], theirs[figure], figure) for figure in ours}
        streams.append(StreamQuality(name, distances, repetition(tokens[..., i], kind, seed)))
    return Quality(
        windows=len(tokens),
        statistics=sample_statistics(tokens, kinds, training),
        streams=tuple(streams),
        runs=None if training is None else copied_runs(tokens, training),
    )


# --- distances -------------------------------------------------------------------------------------------------


def figures(stream: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    """Windows (N, T) of one stream -> the values of each figure: one a window, or one for each pair of onsets."""
    stream = stream.astype(np.int64)
    gap = dict(zip(("interval", "inter-onset"), _between_onsets(stream, kind)))
    if kind == "drums":
        rates = measure(stream[..., None], Drums())
        return {"inter-onset": gap["inter-onset"], **{name: rates[name] for name in DRUM_UNITS}}
    rates = measure(stream[..., None], Melody())  # a shift of all pitches changes nothing here
    entropy = pitch_class_entropy(stream)
    return {
        "notes a bar": rates["note-density"],
        "pitch range": rates["pitch-range"][~np.isnan(rates["pitch-range"])],
        "pitch-class entropy": entropy[entropy >= 0],  # of windows with a note
        **gap,
    }


def distance(values: np.ndarray, real: np.ndarray, figure: str) -> Distance | None:
    """Two samples of a figure -> the distance of their distributions; None if one of them is empty."""
    if not len(values) or not len(real):
        return None
    width, unit = _BINS.get(figure, _BINS["hits a bar"])
    return Distance(overlapped_area(values, real, width), wasserstein(values, real), unit)


def overlapped_area(a: np.ndarray, b: np.ndarray, width: float) -> float:
    """What the histograms of two samples have in common, each of area 1, with bins of `width` around its multiples."""
    bins, places = np.unique(np.round(np.concatenate([a, b]) / width), return_inverse=True)
    shares = [np.bincount(part, minlength=len(bins)) / len(part) for part in np.split(places, [len(a)])]
    return float(np.minimum(*shares).sum())


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """The earth mover's distance of two samples: the area between their cumulative distributions."""
    at = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(sample), at[:-1], side="right") / len(sample) for sample in (a, b)]
    return float((np.abs(below[0] - below[1]) * np.diff(at)).sum())


def _between_onsets(stream: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, T) -> semitones and steps from each onset to the next of its window."""
    window, step = np.nonzero(stream if kind == "drums" else stream >= FIRST_PITCH)
    follows = window[1:] == window[:-1]
    return np.diff(stream[window, step])[follows], np.diff(step)[follows]


# --- bars that come back ---------------------------------------------------------------------------------------


def repetition(stream: np.ndarray, kind: str, seed: int = 0) -> dict[int, Repetition]:
    """Windows (N, T) of one stream -> how much their bars are like those before, by lag in bars."""
    bars = stream.astype(np.int64).reshape(len(stream), -1, STEPS_PER_BAR)  # (N, U, 16)
    order = np.random.default_rng(seed).permutation(len(bars))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)  # another window for each, unless there is but one
    found = {}
    for lag in (lag for lag in LAGS if lag < bars.shape[1]):
        early, late = bars[:, :-lag], bars[:, lag:]
        unrelated = similarity(early[other], late, kind) if len(bars) > 1 else None
        found[lag] = Repetition(similarity(early, late, kind), unrelated, _equal(early, late, kind))
    return found


def similarity(a: np.ndarray, b: np.ndarray, kind: str) -> float | None:
    """Pairs of bars (..., 16) -> share of their onsets that both have, over all pairs; None if nothing begins."""
    onsets = int(count_onsets(a, kind).sum() + count_onsets(b, kind).sum())
    return 2 * int(count_common_onsets(a, b, kind).sum()) / onsets if onsets else None


def _equal(a: np.ndarray, b: np.ndarray, kind: str) -> float | None:
    sounding = (count_onsets(a, kind) + count_onsets(b, kind)).any(-1)
    return float((a == b).all(-1)[sounding].mean()) if sounding.any() else None


# --- copies ----------------------------------------------------------------------------------------------------


def copied_runs(tokens: np.ndarray, training: np.ndarray) -> CopiedRuns:
    """Windows (N, T, streams) -> how much of them stands in training (M, T, streams). A 64-bit hash decides."""
    longest = longest_runs(tokens, training)
    return CopiedRuns(float(longest.mean()), int(longest.max()), float((longest == tokens.shape[1] // BEAT).mean()))


def longest_runs(tokens: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Windows (N, T, streams) -> beats in the longest run of each that stands on beats of a training window (N,)."""
    beats = _beats(tokens)  # (N, K)
    count = beats.shape[1]
    sums = [np.zeros_like(beats)]
    for n, factor in enumerate(_odd(count, seed=1)):  # runs of n + 1 beats from each beat on
        sums.append(sums[-1][:, : count - n] + beats[:, n:] * factor)
        sums[-2] = sums[-2][:, : count - n + 1]
    grams = [np.unique(runs) for runs in sums[1:]]
    found = [np.zeros(len(runs), bool) for runs in grams]
    at_once = max(1, _AT_ONCE // training[0].size)
    for start in range(0, len(training), at_once):
        _mark(_beats(training[start : start + at_once]), grams, found)
    longest = np.zeros(len(beats), np.int64)
    for n, (runs, known, there) in enumerate(zip(sums[1:], grams, found), 1):
        longest[there[np.searchsorted(known, runs)].any(axis=1)] = n
    return longest


def _mark(beats: np.ndarray, grams: list[np.ndarray], found: list[np.ndarray]) -> None:
    """Notes in `found` which runs of each length stand in the beats (M, K) of some training windows."""
    window, beat = (index.ravel() for index in np.indices(beats.shape))
    total = np.zeros(len(window), np.uint64)
    for n, factor in enumerate(_odd(beats.shape[1], seed=1)):
        inside = beat + n < beats.shape[1]
        window, beat, total = window[inside], beat[inside], total[inside]
        total = total + beats[window, beat + n] * factor
        place = np.minimum(np.searchsorted(grams[n], total), len(grams[n]) - 1)
        hit = grams[n][place] == total
        found[n][place[hit]] = True
        window, beat, total = window[hit], beat[hit], total[hit]  # a longer run begins as a shorter one does
        if not len(window):
            return


def _beats(tokens: np.ndarray) -> np.ndarray:
    """Windows (N, T, streams) -> a hash of each beat (N, K)."""
    parts = tokens.reshape(len(tokens), tokens.shape[1] // BEAT, -1).astype(np.uint64) + np.uint64(1)
    return parts @ _odd(parts.shape[2], seed=0)


def _odd(n: int, seed: int) -> np.ndarray:
    """n odd numbers of 64 bits, always the same."""
    return np.random.default_rng(seed).integers(2**63, size=n, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
