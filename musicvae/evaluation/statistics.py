"""What windows of music are like, in figures: samples of a model beside the windows of a test set.

N windows   T steps a window
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from musicvae.evaluation.streams import checked_windows, count_onsets, stream_names
from musicvae.music.midi import STEPS_PER_BAR
from musicvae.music.representation import DRUM_CLASSES, FIRST_PITCH

_AT_ONCE = 2**22  # tokens of training windows looked at in one go


@dataclass(frozen=True)
class StreamStatistics:
    """Of one stream; None where its kind has no such thing, or where nothing was there to measure."""

    name: str
    onsets_a_bar: float  # notes; in drums hits, each class for itself
    silence: float  # share of steps in which nothing sounds; drums: nothing is hit
    one_note: float  # share of windows that are empty or one note (drums: one class) repeated
    distinct: float  # share of windows left when repeats are taken out
    pitch_range: float | None  # semitones between lowest and highest note, mean over windows with a note
    pitch_class_entropy: float | None  # bits, of a window's onsets, mean over windows with a note
    hits_a_bar: dict[str, float] | None  # of each drum class
    copies: float | None  # share of windows that are a training window
    copies_transposed: float | None  # the same up to transposition


@dataclass(frozen=True)
class SampleStatistics:
    """`dataclasses.asdict` makes it ready for JSON. Of whole windows, then of each of their streams."""

    windows: int
    distinct: float
    copies: float | None
    copies_transposed: float | None  # melody and bass by one shift
    streams: tuple[StreamStatistics, ...]


def sample_statistics(
    tokens: np.ndarray, kinds: tuple[str, ...], training_tokens: np.ndarray | None = None
) -> SampleStatistics:
    """Statistics of tokens (N, T, streams); copies are looked for in training_tokens (M, T, streams), if given.

    Raises ValueError for no windows and for shapes that do not fit.
    """
    tokens = checked_windows(tokens, kinds)
    if training_tokens is not None and training_tokens.shape[1:] != tokens.shape[1:]:
        raise ValueError(f"training windows of shape {training_tokens.shape[1:]}; the others are {tokens.shape[1:]}")
    streams = []
    for i, (name, kind) in enumerate(zip(stream_names(kinds), kinds)):
        training = None if training_tokens is None else training_tokens[..., i : i + 1]
        streams.append(_stream(name, tokens[..., i : i + 1], kind, training))
    exact, transposed = _copies(tokens, kinds, training_tokens)
    return SampleStatistics(len(tokens), _distinct(tokens), exact, transposed, tuple(streams))


def compare(real: SampleStatistics, samples: Mapping[str, SampleStatistics], label: str = "test windows") -> Table:
    """Real windows, then each named set of samples, side by side: one column a set, one line a figure."""
    sets = {label: real, **samples}
    table = Table(caption="Copies: windows that stand in the training set, note for note.", caption_justify="left")
    for heading in ("stream", "figure", *sets):
        table.add_column(heading, justify="left" if heading in ("stream", "figure") else "right")
    table.add_row("all", "windows", *(f"{s.windows:,}" for s in sets.values()), end_section=len(real.streams) < 2)
    if len(real.streams) > 1:
        _add_figures(table, [_whole(s) for s in sets.values()])
    for i, stream in enumerate(real.streams):
        _add_figures(table, [_figures(s.streams[i]) for s in sets.values()], stream.name)
    return table


# --- one stream ------------------------------------------------------------------------------------------------


def _stream(name: str, tokens: np.ndarray, kind: str, training: np.ndarray | None) -> StreamStatistics:
    stream = tokens[..., 0].astype(np.int64)  # (N, T)
    bars = stream.size / STEPS_PER_BAR
    is_drums = kind == "drums"
    exact, transposed = _copies(tokens, (kind,), training)
    hits = [(stream >> i & 1).sum() / bars for i in range(len(DRUM_CLASSES))]
    return StreamStatistics(
        name=name,
        onsets_a_bar=float(count_onsets(stream, kind).sum() / bars),
        silence=float((stream == 0).mean() if is_drums else 1 - sounding(stream).mean()),
        one_note=float((_classes_used(stream) <= 1).mean() if is_drums else (_pitch_range(stream) < 1).mean()),
        distinct=_distinct(tokens),
        pitch_range=None if is_drums else _mean(_pitch_range(stream)),
        pitch_class_entropy=None if is_drums else _mean(pitch_class_entropy(stream)),
        hits_a_bar={c: float(h) for c, h in zip(DRUM_CLASSES, hits)} if is_drums else None,
        copies=exact,
        copies_transposed=None if is_drums else transposed,
    )


def sounding(stream: np.ndarray) -> np.ndarray:
    """Melodies (N, T) -> whether a note sounds in each step: the last event was an onset, not an off."""
    last_event = np.maximum.accumulate(np.where(stream > 0, np.arange(stream.shape[1]), 0), axis=1)
    return np.take_along_axis(stream, last_event, axis=1) >= FIRST_PITCH


def _pitch_range(stream: np.ndarray) -> np.ndarray:
    """Melodies (N, T) -> semitones from the lowest to the highest note (N,); -1 without a note."""
    lowest = np.where(stream >= FIRST_PITCH, stream, np.iinfo(np.int64).max).min(1)
    highest = stream.max(1)
    return np.where(highest >= FIRST_PITCH, highest - lowest, -1)


def pitch_class_entropy(stream: np.ndarray) -> np.ndarray:
    """Melodies (N, T) -> entropy of the pitch classes of each one's onsets (N,), in bits; -1 without a note."""
    window, step = np.nonzero(stream >= FIRST_PITCH)
    classes = (stream[window, step] - FIRST_PITCH) % 12
    counts = np.bincount(12 * window + classes, minlength=12 * len(stream)).reshape(-1, 12)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    bits = -(share * np.log2(np.where(share > 0, share, 1))).sum(1)
    return np.where(counts.any(1), bits, -1.0)


def _classes_used(stream: np.ndarray) -> np.ndarray:
    """Drums (N, T) -> how many classes each window hits at all (N,)."""
    return count_onsets(np.bitwise_or.reduce(stream, axis=1), "drums")


def _mean(values: np.ndarray) -> float | None:
    """The mean of those that are not negative; None without one."""
    there = values[values >= 0]
    return float(there.mean()) if len(there) else None


# --- repeats and copies ----------------------------------------------------------------------------------------


def _distinct(tokens: np.ndarray) -> float:
    return len({row.tobytes() for row in _rows(tokens)}) / len(tokens)


def _copies(
    tokens: np.ndarray, kinds: tuple[str, ...], training: np.ndarray | None
) -> tuple[float | None, float | None]:
    """Share of windows (N, T, streams) that stand in training (M, T, streams): exactly, and up to transposition."""
    if training is None:
        return None, None
    at_once = max(1, _AT_ONCE // tokens[0].size)
    chunks = [slice(i, i + at_once) for i in range(0, len(training), at_once)]
    exact = _share_found(_rows(tokens), (_rows(training[c]) for c in chunks))
    if "melody" not in kinds:
        return exact, None
    level = (_rows(_to_lowest(training[c], kinds)) for c in chunks)
    return exact, _share_found(_rows(_to_lowest(tokens, kinds)), level)


def _share_found(rows: np.ndarray, chunks: Iterator[np.ndarray]) -> float:
    """Share of rows (N, L) that are equal to a row of any chunk. A hash finds candidates, their bytes decide."""
    odd = np.random.default_rng(0).integers(2**63, size=rows.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    wanted, found = rows @ odd, set()
    for chunk in chunks:
        found |= {row.tobytes() for row in chunk[np.isin(chunk @ odd, wanted)]}
    return sum(row.tobytes() in found for row in rows) / len(rows)


def _rows(tokens: np.ndarray) -> np.ndarray:
    """tokens (N, T, streams) -> (N, T * streams) in one type, so that equal windows have equal bytes."""
    return np.ascontiguousarray(tokens, dtype=np.uint16).reshape(len(tokens), -1)


def _to_lowest(tokens: np.ndarray, kinds: tuple[str, ...]) -> np.ndarray:
    """tokens (N, T, streams) -> the same, the pitched streams shifted together until their lowest note is pitch 0."""
    tokens, pitched = tokens.astype(np.int64), np.array([kind == "melody" for kind in kinds])
    is_note = (tokens >= FIRST_PITCH) & pitched
    lowest = np.where(is_note, tokens, np.iinfo(np.int64).max).min(axis=(1, 2), keepdims=True)
    return np.where(is_note, tokens - lowest + FIRST_PITCH, tokens)


# --- the table -------------------------------------------------------------------------------------------------


def _whole(statistics: SampleStatistics) -> dict[str, str]:
    return {
        "distinct windows": _percent(statistics.distinct),
        "copies": _percent(statistics.copies),
        "copies, up to transposition": _percent(statistics.copies_transposed),
    }


def _figures(stream: StreamStatistics) -> dict[str, str]:
    is_drums = stream.hits_a_bar is not None
    figures = {
        "hits a bar" if is_drums else "notes a bar": _number(stream.onsets_a_bar),
        "steps without a hit" if is_drums else "silent steps": _percent(stream.silence),
        "windows of one class or none" if is_drums else "windows of one note or none": _percent(stream.one_note),
        "distinct windows": _percent(stream.distinct),
    }
    if not is_drums:
        figures["pitch range, semitones"] = _number(stream.pitch_range)
        figures["pitch-class entropy, bits"] = _number(stream.pitch_class_entropy)
    for drum, hits in (stream.hits_a_bar or {}).items():
        figures[f"  {drum}, hits a bar"] = _number(hits)
    figures["copies"] = _percent(stream.copies)
    if not is_drums:
        figures["copies, up to transposition"] = _percent(stream.copies_transposed)
    return figures


def _add_figures(table: Table, columns: list[dict[str, str]], name: str = "") -> None:
    for n, figure in enumerate(columns[0]):
        cells = (column[figure] for column in columns)
        table.add_row("" if n else name, figure, *cells, end_section=n == len(columns[0]) - 1)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
