"""Song -> a piano roll to look at in a terminal."""

from collections.abc import Sequence

import numpy as np

from musicvae.music.midi import STEPS_PER_BAR, Song
from musicvae.music.representation import DRUM_CLASSES, DRUM_MAPS

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MAX_ROWS = 30
ONSET, HELD, RULE = "█", "▬", "│"


def pitch_name(pitch: int) -> str:
    """60 -> "C4" (middle C)."""
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


def terminal_roll(song: Song, instrument: int, bar: int = 0, bars: int = 4, drum_map: str = "current") -> str:
    """Some bars of one instrument as text: a line a pitch (or drum class), a column a step, bars ruled."""
    first, last = bar * STEPS_PER_BAR, min((bar + bars) * STEPS_PER_BAR, song.steps)
    notes = song.notes
    here = (notes.instrument == instrument) & (notes.start < last) & (notes.end > first)
    pitch, start, end = notes.pitch[here], notes.start[here] - first, np.minimum(notes.end[here], last) - first
    if not len(pitch):
        return f"(no notes in bars {bar + 1} to {bar + bars})"
    if song.instruments[instrument].is_drum:
        row_of = {p: i for i, pitches in enumerate(DRUM_MAPS[drum_map]) for p in pitches}
        labels = {i: DRUM_CLASSES[i] for i in row_of.values()} | {-1: "other"}
        rows = np.array([row_of.get(p, -1) for p in pitch.tolist()])
        end = start + 1
    else:
        rows, labels = pitch, {p: pitch_name(p) for p in range(128)}
    lines = []
    shown: Sequence[int] = range(rows.max(), rows.min() - 1, -1)
    if len(shown) > MAX_ROWS:  # a wide range: only the pitches that sound
        shown = sorted(set(rows.tolist()), reverse=True)
    for row in shown:
        cells = np.full(last - first, " ")
        for s, e in zip(start[rows == row].tolist(), end[rows == row].tolist()):
            cells[max(s + 1, 0) : e] = HELD
            if s >= 0:
                cells[s] = ONSET
        drawn = RULE.join("".join(cells[at : at + STEPS_PER_BAR]) for at in range(0, last - first, STEPS_PER_BAR))
        lines.append(f"{labels[row]:>13} {RULE}{drawn}{RULE}")
    return "\n".join(lines)
