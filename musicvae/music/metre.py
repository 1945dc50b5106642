"""Where the bars lie: ticks -> steps on a song's own timeline, which holds only what is in 4/4.

A file may hold several stretches of 4/4 between other metres. They become the `pieces` of the song: laid one after
another, each padded to whole bars, they make the timeline on which every note stands. The rest is dropped.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

STEPS_PER_BAR = 16  # a step is a sixteenth; a bar is 4/4
STEPS_PER_QUARTER = 4
MAX_BARS = 10_000  # five hours at 120 bpm; keeps steps within 18 bits
MAX_SILENT_TAIL = 16  # bars kept between the last note and the end of the track
MAX_STEPS = MAX_BARS * STEPS_PER_BAR


class Piece(NamedTuple):
    """A stretch of 4/4: where it starts and ends on the song's timeline, and its first bar in the file (from 1)."""

    start: int  # steps, a multiple of 16
    end: int  # steps, a multiple of 16
    source_bar: int


class Stretch(NamedTuple):
    """Ticks between two changes of metre."""

    start: int
    end: int | None  # None: to the end of the song
    numerator: int
    denominator: int
    source_bar: int

    @property
    def metre(self) -> str:
        return f"{self.numerator}/{self.denominator}"

    def __str__(self) -> str:
        return f"{self.metre} from bar {self.source_bar}"


def stretches(signatures: Iterable[tuple[int, int, int]], ticks_per_quarter: int) -> list[Stretch]:
    """(tick, numerator, denominator) in the order of the file -> where the metre changes or a bar begins early.

    Of several signatures at one tick the last counts. One that repeats the metre changes nothing on a bar line, and
    begins a bar elsewhere (after a pick-up). Bars of four quarters are all 4/4, also when written 2/2 or 8/8.
    """
    last = {0: (4, 4)}
    for time, n, d in signatures:
        if time >= 0 and n > 0 and d > 0:  # else it is no metre, and the one before goes on
            last[time] = (4, 4) if n == d else (n, d)
    result: list[Stretch] = []
    for time, (n, d) in sorted(last.items()):
        bar = 1
        if result:
            before = result[-1]
            ticks, parts = time - before.start, 4 * before.numerator * ticks_per_quarter  # a bar is parts / denominator
            if before.metre == f"{n}/{d}" and _on_bar_line(ticks * before.denominator, parts):
                continue
            bar = before.source_bar + max(1, -(-ticks * before.denominator // parts))
            result[-1] = before._replace(end=time)
        result.append(Stretch(time, None, n, d, bar))
    return result


def _on_bar_line(offset: int, bar: int) -> bool:
    """Whether an offset lies within half a sixteenth of a 4/4 bar of a multiple of `bar`, as rounded ticks may."""
    away = offset % bar
    return 2 * STEPS_PER_BAR * min(away, bar - away) < bar


class Timeline:
    """The steps of one song, and how ticks fall on them: on the nearest step of their stretch, halves up."""

    def __init__(self, signatures: list[tuple[int, int, int]], ticks_per_quarter: int):
        self.tpq, self.stretches = ticks_per_quarter, stretches(signatures, ticks_per_quarter)
        self.plain = len(self.stretches) == 1 and self.stretches[0].metre == "4/4"
        self.pieces: list[Piece] = []
        # Times are eight times a tick, plus half a step: whole numbers, so that half a step before a new metre already
        # belongs to it, and dropping the remainder rounds halves up.
        self._starts = [8 * s.start for s in self.stretches]
        self._first = [0] * len(self.stretches)  # where each stretch begins on the timeline, in steps
        self._kept = [0] * len(self.stretches)  # how many of its steps are there: none of a metre that is not 4/4

    def lay_out(self, last: int, end: int) -> None:
        """Gives each stretch its place: `last` is where the last stretch's last note ends, in its steps, `end` the
        song's last tick."""
        position = 0
        for i, s in enumerate(self.stretches):
            self._first[i] = position
            if s.metre != "4/4":
                continue
            if s.end is not None:
                length = -(-(s.end - s.start) * STEPS_PER_QUARTER // self.tpq)
            else:
                tail = (max(end - s.start, 0) * 8 + self.tpq) // (2 * self.tpq)
                length = max(last, min(tail, (-(-last // STEPS_PER_BAR) + MAX_SILENT_TAIL) * STEPS_PER_BAR))
            padded = min(-(-length // STEPS_PER_BAR) * STEPS_PER_BAR, MAX_STEPS - position)
            if padded > 0:
                self._kept[i] = min(length, padded)
                self.pieces.append(Piece(position, position + padded, s.source_bar))
                position += padded

    def place(self, tick: np.ndarray, held: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lays out the pieces, and on them the song's notes: first steps, ends, and which notes are there."""
        time = tick.astype(np.int64) * 8 + self.tpq
        which = np.searchsorted(self._starts, time, side="right") - 1
        time -= np.array(self._starts)[which]
        first, last = _rounded(time, held, 2 * self.tpq)
        self.lay_out(int(last.max(where=which == len(self.stretches) - 1, initial=0)), end)
        shift, kept = np.array(self._first)[which], np.array(self._kept)[which]
        return first + shift, np.minimum(last, kept) + shift, first < kept

    def step(self, tick: int) -> int:
        """The step of one tick; inside a metre that was dropped that of the next piece."""
        time = tick * 8 + self.tpq
        which = bisect_right(self._starts, time) - 1
        inside = (time - self._starts[which]) // (2 * self.tpq) if self._kept[which] else 0
        return self._first[which] + inside


OFF_GRID = 20  # an onset is off the grid from a twentieth of a step on: less is rounding by who wrote the file


class Placed(NamedTuple):
    """Notes of many songs on their songs' timelines, in steps: only those that are in 4/4."""

    start: np.ndarray
    end: np.ndarray  # at least start + 1, at most the end of the piece
    keep: np.ndarray | None  # indices of these notes among those given; None for all of them
    bounds: list[int]  # of each song's notes among these
    off_grid: list[int]  # onsets of each song that lay more than a twentieth of a step away from it


def place(timelines: list[Timeline], ends: list[int], bounds: np.ndarray, tick: np.ndarray, held: np.ndarray) -> Placed:
    """Lays out many songs at once: song i ends at tick ends[i], and its notes are tick[bounds[i]:bounds[i + 1]]."""
    every = [t.tpq for t in timelines]
    quarter = every[0] if len(set(every)) == 1 else np.repeat(np.array(every), np.diff(bounds))  # a number is faster
    time = tick.astype(np.int64) * 8
    time += quarter
    double = 2 * quarter
    start, end = _rounded(time, held, double)
    off = np.abs(time - start * double - quarter) > double // OFF_GRID
    last = np.maximum.reduceat(end, bounds[:-1]).tolist()
    there = None
    for i, timeline in enumerate(timelines):
        if timeline.plain:
            timeline.lay_out(last[i], ends[i])
            continue
        if there is None:
            there = np.ones(len(tick), bool)
        mine = slice(bounds[i], bounds[i + 1])
        start[mine], end[mine], there[mine] = timeline.place(tick[mine], held[mine], ends[i])
    keep = None
    if there is not None:
        keep = np.flatnonzero(there)
        start, end, off, bounds = start[keep], end[keep], off[keep], np.searchsorted(keep, bounds)
    counts = [int(np.count_nonzero(off[a:b])) for a, b in pairwise(bounds.tolist())]
    return Placed(start, end, keep, bounds.tolist(), counts)


def _rounded(time: np.ndarray, held: np.ndarray, double: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """(8 ticks + half a step) and ticks held -> first step and end, at least one step later."""
    start = time // double
    end = held.astype(np.int64) * 8
    end += time
    end //= double
    return start, np.minimum(np.maximum(end, start + 1), MAX_STEPS)
