"""Songs -> windows: every 2 or 16 bars that the rules let through, many songs at once.

A voice is what gives one stream: an instrument (melody, bass) or a song's drum kits together. The work is done on
onsets, not on time: cost and memory grow with the notes of a song, never with its length.
"""

from typing import NamedTuple

import numpy as np

from musicvae.music.midi import STEPS_PER_BAR, Notes, Song
from musicvae.music.representation import (
    FIRST_PITCH,
    NOTE_OFF,
    TRIO_BASS_PROGRAMS,
    TRIO_MELODY_PROGRAMS,
    Drums,
    Melody,
    Onsets,
    Representation,
    Trio,
)

MAX_SILENT_STEPS = 16  # in a row, in every stream; one more rejects a window
MAX_PAIRS = 256  # of melody and bass in one song; those that are cut are counted in the report
MAX_WINDOWS = 65_536  # at once, which is far more than music has, and takes 100 MB for trios of 16 bars

_STEP_BITS = 20  # a key is voice << 20 | step


class TooManyWindows(ValueError):
    """The songs have more windows together than `MAX_WINDOWS`; one song that has is no music."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_WINDOWS:,} windows")


class Windows(NamedTuple):
    """Rows sorted by song, instrument, bar."""

    tokens: np.ndarray  # (N, T, streams) uint8 or uint16
    song: np.ndarray  # (N,) index into the songs given
    instrument: np.ndarray  # (N,) index into Song.instruments; the melody's for a trio, -1 for drums
    bar: np.ndarray  # (N,) first bar on the song's timeline, from 0
    possible: np.ndarray  # (songs,) windows of each song before the rule of silence
    cut_pairs: np.ndarray  # (songs,) pairs of melody and bass that were not looked at, beyond `MAX_PAIRS`


def find_windows(songs: list[Song], representation: Representation, bars: int) -> Windows:
    """All windows of `bars` bars, one from each bar line, that lie in one piece and are never silent for long.

    Raises TooManyWindows.
    """
    if isinstance(representation, Trio):
        return _trio_windows(songs, representation, bars)
    timeline = _Timeline(songs)
    if isinstance(representation, Drums):
        stream = _drum_stream(timeline, representation, bars)
        instrument = np.full(len(stream.voice), -1)
        song = stream.voice
    else:
        stream = _melody_stream(timeline, representation, range(128), bars)
        song = timeline.song_of[stream.voice]
        instrument = stream.voice - timeline.first[song]
    possible = np.bincount(stream.song_of_voice, weights=stream.possible, minlength=len(songs)).astype(np.int64)
    return Windows(stream.gather()[..., None], song, instrument, stream.bar, possible, np.zeros_like(possible))


def cut_windows(stream: np.ndarray, at: np.ndarray, steps: int, melodic: bool) -> np.ndarray:
    """The tokens (N, steps) of one stream (T,) from each of the N steps `at` on.

    In a melody a note-off before a window's first onset ends a note that began before the window: it is left out.
    """
    if not len(at):
        return np.zeros((0, steps), stream.dtype)
    tokens = np.lib.stride_tricks.sliding_window_view(stream, steps)[at]
    if melodic:
        late = np.flatnonzero(tokens[:, 0] < FIRST_PITCH)
        for reach in (min(MAX_SILENT_STEPS + 1, steps), steps):  # nearly all begin within the first, which is faster
            begun = np.logical_or.accumulate(tokens[late, :reach] >= FIRST_PITCH, axis=1)
            tokens[late, :reach] *= begun
            late = late[~begun[:, -1]]
    return tokens


class _Timeline:
    """The songs' notes in one table: instruments numbered through, so that one pass serves all."""

    def __init__(self, songs: list[Song]):
        self.songs = songs
        counts = [len(s.instruments) for s in songs]
        self.first = np.concatenate([[0], np.cumsum(counts)])[: len(songs)].astype(np.int64)  # of each song
        self.song_of = np.repeat(np.arange(len(songs)), counts)  # of each instrument
        self.is_drum = np.array([i.is_drum for s in songs for i in s.instruments], bool)
        self.program = np.array([i.program for s in songs for i in s.instruments], np.int64)
        # The pieces of all songs in one sorted table, by song << 20 | first step.
        pieces = [(n << _STEP_BITS | p.start, p.end) for n, s in enumerate(songs) for p in s.pieces]
        self.piece_key, self.piece_end = np.array(pieces, np.int64).reshape(-1, 2).T
        self.piece_start = self.piece_key & (1 << _STEP_BITS) - 1

    def notes(self, keep: np.ndarray | None, merge: bool) -> Notes:
        """Notes of the instruments to keep; `merge` numbers them by song instead of by instrument."""
        instrument, start, pitch, end = (np.concatenate([s.notes[i] for s in self.songs]) for i in range(4))
        voice = instrument + np.repeat(self.first, [len(s.notes.start) for s in self.songs])
        if keep is not None and not keep.all():
            mine = np.flatnonzero(keep[voice])
            voice, start, pitch, end = voice[mine], start[mine], pitch[mine], end[mine]
        return Notes(self.song_of[voice] if merge else voice, start, pitch, end, velocity=start)  # nobody listens


class _Stream(NamedTuple):
    """The windows of one stream before they are written out, and the roll they are cut from."""

    voice: np.ndarray  # (N,) of each window
    bar: np.ndarray  # (N,)
    at: np.ndarray  # (N,) where it starts on the roll
    roll: np.ndarray
    steps: int
    melodic: bool  # melody or bass, not drums
    song_of_voice: np.ndarray  # of each voice that plays at all
    possible: np.ndarray  # windows of that voice before the rule of silence

    def gather(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The tokens (N, T) of some windows."""
        return cut_windows(self.roll, self.at[rows], self.steps, self.melodic)


def _melody_stream(timeline: _Timeline, melody: Melody, programs: range, bars: int) -> _Stream:
    wanted = ~timeline.is_drum
    if programs != range(128):
        wanted &= (timeline.program >= programs.start) & (timeline.program < programs.stop)
    onsets = melody.onsets(timeline.notes(wanted, merge=False))
    return _stream(timeline, onsets, timeline.song_of, bars, np.uint8)


def _drum_stream(timeline: _Timeline, drums: Drums, bars: int) -> _Stream:
    onsets = drums.onsets(timeline.notes(timeline.is_drum, merge=True))
    return _stream(timeline, onsets, np.arange(len(timeline.songs)), bars, np.uint16)


def _stream(timeline: _Timeline, onsets: Onsets, song_of: np.ndarray, bars: int, dtype: type) -> _Stream:
    steps = bars * STEPS_PER_BAR
    voice, step = onsets.voice.astype(np.int64), onsets.step.astype(np.int64)
    end, key = onsets.end, voice << _STEP_BITS | step
    follows = np.append(voice[1:] == voice[:-1], False) if len(voice) else np.zeros(0, bool)
    gap = np.append(step[1:] - step[:-1], 0)[: len(step)]
    silent = np.where(follows, np.append(step[1:], 0)[: len(step)], 1 << _STEP_BITS) - end
    position, roll = _roll(voice, step, end, onsets.token, follows, gap, silent, steps, dtype)

    starts = _starts(voice, step)
    window_voice, bar = starts >> _STEP_BITS, starts & (1 << _STEP_BITS) - 1
    start = bar * STEPS_PER_BAR
    piece = np.searchsorted(timeline.piece_key, song_of[window_voice] << _STEP_BITS | start, side="right") - 1
    fits = start + steps <= timeline.piece_end[piece]
    window_voice, bar, start = window_voice[fits], bar[fits], start[fits]
    first = np.searchsorted(key, window_voice << _STEP_BITS | start)
    rest = np.flatnonzero(silent > MAX_SILENT_STEPS)
    too_long = key[rest] - step[rest] + end[rest] + MAX_SILENT_STEPS  # where the 17th silent step stands
    broken = np.searchsorted(
        too_long, np.stack([key[first] if len(key) else first, (window_voice << _STEP_BITS | start) + steps])
    )
    sounds = np.flatnonzero((broken[0] == broken[1]) & (_at(step, first) - start <= MAX_SILENT_STEPS))
    if len(sounds) > MAX_WINDOWS:
        raise TooManyWindows
    window_voice, bar, first = window_voice[sounds], bar[sounds], first[sounds]
    at = position[first] - (step[first] - start[sounds])

    playing = voice[np.flatnonzero(~follows)]
    per_song = np.bincount(
        timeline.piece_key >> _STEP_BITS,
        weights=np.maximum((timeline.piece_end - timeline.piece_start) // STEPS_PER_BAR - bars + 1, 0),
        minlength=len(timeline.songs),
    )
    song_of_voice = song_of[playing]
    melodic = dtype == np.uint8
    return _Stream(window_voice, bar, at, roll, steps, melodic, song_of_voice, per_song[song_of_voice])


def _starts(voice: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Onsets sorted by voice and step -> where a window can start: voice << 20 | bar, sorted.

    It must sound within its first 17 steps: so it starts in the bar of an onset, or in the one before if the onset
    stands on the bar line.
    """
    if not len(voice):
        return voice
    bar = voice << _STEP_BITS | step >> 4
    first = np.flatnonzero(np.append(True, bar[1:] != bar[:-1]))  # onset of each bar
    bar, step = bar[first], step[first]
    before = (step & 15 == 0) & (step > 0)
    before[1:] &= bar[1:] != bar[:-1] + 1
    again = np.repeat(bar, before + 1)
    again[np.flatnonzero(before) + np.arange(np.count_nonzero(before))] -= 1
    return again


def _at(column: np.ndarray, index: np.ndarray) -> np.ndarray:
    return column[index] if len(column) else index


def _roll(voice, step, end, token, follows, gap, silent, steps, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of all voices on one line of time from which stretches that no window can reach are cut out.

    Two onsets further apart than a window can never meet in one, so any larger gap may shrink to that: the line is
    at most (T + 17) times as long as there are onsets.
    """
    reach = steps + MAX_SILENT_STEPS + 1
    advance = np.where(follows, np.minimum(gap, reach), reach)
    position = np.cumsum(advance) - advance + reach if len(advance) else np.zeros(0, np.int64)
    roll = np.zeros(int(position[-1]) + 2 * reach if len(position) else 0, dtype)
    if dtype == np.uint8:  # melodies have note-offs, drums have not
        off = np.flatnonzero((silent > 0) & (end - step < steps))
        roll[position[off] + (end[off] - step[off])] = NOTE_OFF
    roll[position] = token
    return position, roll


def _trio_windows(songs: list[Song], trio: Trio, bars: int) -> Windows:
    timeline, melody = _Timeline(songs), trio.melody
    lead = _melody_stream(timeline, melody, TRIO_MELODY_PROGRAMS, bars)
    low = _melody_stream(timeline, melody, TRIO_BASS_PROGRAMS, bars)
    drums = _drum_stream(timeline, Drums(trio.drum_map), bars)
    rows, possible, cut = [], np.zeros(len(songs), np.int64), np.zeros(len(songs), np.int64)
    for n in np.unique(drums.song_of_voice):
        found, cut[n] = _trio_rows(n, timeline, lead, low, drums)
        rows += found
        if sum(r.shape[1] for r in rows) > MAX_WINDOWS:
            raise TooManyWindows
        pairs = min(np.count_nonzero(lead.song_of_voice == n) * np.count_nonzero(low.song_of_voice == n), MAX_PAIRS)
        possible[n] = pairs * drums.possible[np.flatnonzero(drums.song_of_voice == n)[0]]
    index = np.concatenate(rows, axis=1) if rows else np.zeros((3, 0), np.int64)
    tokens = np.stack([s.gather(i).astype(np.uint16) for s, i in zip((lead, low, drums), index)], axis=-1)
    voice = lead.voice[index[0]]
    song = timeline.song_of[voice] if len(voice) else voice
    return Windows(tokens, song, voice - timeline.first[song], lead.bar[index[0]], possible, cut)


def _trio_rows(
    n: int, timeline: _Timeline, lead: _Stream, low: _Stream, drums: _Stream
) -> tuple[list[np.ndarray], int]:
    """For each melody of song n, with every bass, the rows (3, N) of the windows that all three streams have, by bar.

    At most `MAX_PAIRS` pairs are looked at; how many more there are comes second.
    """
    ends = [int(timeline.first[n]), int(timeline.first[n]) + len(timeline.songs[n].instruments)]
    d = slice(*np.searchsorted(drums.voice, [n, n + 1]))
    result: list[np.ndarray] = []
    spans = []
    for stream in (lead, low):
        a, b = np.searchsorted(stream.voice, ends)
        _, starts = np.unique(stream.voice[a:b], return_index=True)
        spans.append(list(zip(starts + a, np.append(starts[1:], b - a) + a)))
    cut = max(len(spans[0]) * len(spans[1]) - MAX_PAIRS, 0)
    pairs, rows = MAX_PAIRS, 0
    for a, b in spans[0]:
        common, in_drums, in_lead = np.intersect1d(drums.bar[d], lead.bar[a:b], assume_unique=True, return_indices=True)
        mine: list[np.ndarray] = []
        for c, e in spans[1][:pairs]:
            _, i, j = np.intersect1d(common, low.bar[c:e], assume_unique=True, return_indices=True)
            mine.append(np.stack([in_lead[i] + a, j + c, in_drums[i] + d.start]))
            rows += len(i)
            if rows > MAX_WINDOWS:
                raise TooManyWindows
        pairs -= len(mine)
        if mine:
            together = np.concatenate(mine, axis=1)
            result.append(together[:, np.argsort(lead.bar[together[0]], kind="stable")])  # by bar, then by bass
    return result, cut
