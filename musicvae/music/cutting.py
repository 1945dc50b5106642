"""A song -> the windows that a model hears, one after another, and back."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from musicvae.music.midi import STEPS_PER_BAR, Song, join
from musicvae.music.representation import FIRST_PITCH, NOTE_OFF, Representation, Trio
from musicvae.music.windows import MAX_SILENT_STEPS, cut_windows


class Span(NamedTuple):
    """A stretch of a song that one window covers; `bars` is less than the window's if the rest is padding."""

    bar: int  # index of the first, from 0
    bars: int


class Cut(NamedTuple):
    """Windows of a song, and what they were cut from."""

    tokens: np.ndarray  # (windows, T, streams)
    spans: list[Span]
    chosen: str  # which tracks, to be shown to the user


def cut(
    song: Song,
    representation: Representation,
    bars: int,
    *,
    instrument: int | None = None,
    bar: int = 0,
    whole: bool = True,
    pad: bool = False,
) -> Cut:
    """Song -> its windows of `bars` bars from `bar` on, anew in each stretch of 4/4, or only one of them: the first
    that is full and not silent.

    `instrument` is an index into song.instruments, `bar` an index of a bar, 0 for the first; messages count both from
    1. The last window of a stretch is padded with silence. Raises
    ValueError if the song has no such part, or is shorter than a window and `pad` is not set.
    """
    stream = representation.to_tokens(song, instrument)
    spans = _spans(song, representation.name, bars, bar, pad)
    windows = _windows(stream, spans, bars * STEPS_PER_BAR, representation.melodic)
    if not whole:
        full = [i for i, span in enumerate(spans) if span.bars == bars] or list(range(len(spans)))
        first = next((i for i in full if windows[i].any()), full[0])
        windows, spans = windows[first : first + 1], [spans[first]]
    return Cut(windows, spans, _describe(song, representation, instrument))


def _windows(stream: np.ndarray, spans: list[Span], steps: int, melodic: tuple[bool, ...]) -> np.ndarray:
    """A song's stream (T, streams) -> its windows (N, steps, streams) as data sets hold them, padded with silence."""
    padded = np.pad(stream, ((0, steps), (0, 0)))
    at = np.array([span.bar * STEPS_PER_BAR for span in spans], np.int64)
    windows = np.stack([cut_windows(line, at, steps, kind) for line, kind in zip(padded.T, melodic)], axis=-1)
    for window, span in zip(windows, spans):
        window[span.bars * STEPS_PER_BAR :] = 0
    return windows


def silent_steps(windows: np.ndarray, melodic: tuple[bool, ...]) -> np.ndarray:
    """Windows (N, T, streams) -> (N, T) whether a step lies in a silence, in every stream, of more than a bar.

    No model learns such windows.
    """
    sounds = np.where(melodic, _last_event(windows) >= FIRST_PITCH, windows > 0).any(axis=-1)
    step = np.arange(windows.shape[1])
    before = np.maximum.accumulate(np.where(sounds, step, -1), axis=1)
    after = np.minimum.accumulate(np.where(sounds, step, len(step))[:, ::-1], axis=1)[:, ::-1]
    return after - before - 1 > MAX_SILENT_STEPS


def _last_event(windows: np.ndarray) -> np.ndarray:
    """Windows (N, T, streams) -> at each step the last token so far that is not 0."""
    steps = np.arange(windows.shape[1])[None, :, None]
    at = np.maximum.accumulate(np.where(windows > 0, steps, 0), axis=1)
    return np.take_along_axis(windows, at, axis=1)


def silenced(windows: np.ndarray, silent: np.ndarray, melodic: tuple[bool, ...]) -> np.ndarray:
    """Windows (N, T, streams) without what they play where `silent` (N, T): a held note ends where that begins."""
    begins = silent & ~np.pad(silent, ((0, 0), (1, 0)))[:, :-1]
    tokens = np.where(silent[..., None], 0, windows)
    return np.where(begins[..., None] & np.array(melodic) & (_last_event(tokens) >= FIRST_PITCH), NOTE_OFF, tokens)


def paste(tokens: np.ndarray, spans: Sequence[Span], representation: Representation, tempo: float) -> Song:
    """Windows (N, T, streams) -> one song, without the padding: the mirror of `cut`."""
    return join([representation.to_song(part, tempo) for part in trimmed(tokens, spans)])


def trimmed(tokens: np.ndarray, spans: Sequence[Span]) -> list[np.ndarray]:
    """Windows (N, T, streams) -> each one's steps (at most T, streams) that stand in the song."""
    return [window[: span.bars * STEPS_PER_BAR] for window, span in zip(tokens, spans)]


def _spans(song: Song, kind: str, bars: int, bar: int, pad: bool) -> list[Span]:
    """Windows one after another from `bar`, anew in each stretch of 4/4."""
    if not 0 <= bar < max(song.bars, 1):
        raise ValueError(f"no bar {bar + 1}; the song has bars 1 to {song.bars}")
    spans = []
    for piece in song.pieces:
        first, end = max(piece.start // STEPS_PER_BAR, bar), piece.end // STEPS_PER_BAR
        spans += [Span(at, min(bars, end - at)) for at in range(first, end, bars)]
    longest = max(span.bars for span in spans)
    if longest < bars and not pad:
        raise ValueError(
            f"no {kind.removesuffix('-90')} of {bars} bars in 4/4 (longest found: {longest} bars"
            f"{f' from bar {bar + 1}' if bar else ''}). Use --pad to fill up with silence"
            + (", or try a 2-bar model" if bars > 2 and not kind.startswith("trio") else "")
        )
    return spans


def _describe(song: Song, representation: Representation, instrument: int | None) -> str:
    def track(index: int | None) -> str:
        return "silent" if index is None else f'track {index + 1} "{song.instruments[index].name}"'

    kits = [i for i, player in enumerate(song.instruments) if player.is_drum]
    played = [i for i in kits if (song.notes.instrument == i).any()]
    drums = "all" if len(played) == len(kits) else ", ".join(map(track, played))
    if isinstance(representation, Trio):
        lead, low = representation.choose(song, instrument)
        return f"melody: {track(lead)}, bass: {track(low)}, drums: {drums if kits else 'silent'}"
    if representation.name == "drums":
        return track(instrument) if instrument is not None else "all drums" if drums == "all" else drums
    return track(representation.choose(song, instrument))  # type: ignore[union-attr]
