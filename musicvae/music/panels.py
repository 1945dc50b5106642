"""Song -> what a picture of it shows: a panel for each stream, with its rectangles in rows and steps."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from musicvae.music.midi import Song
from musicvae.music.representation import DRUM_CLASSES, DRUM_MAPS, TRIO_BASS_PROGRAMS

MAX_PANELS = 8
# Okabe and Ito's colours, which people of every colour vision can tell apart.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Blocks(NamedTuple):
    """Rectangles, a column each: `row` is a pitch, or the number of a drum class; `start` to `end` in steps."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray


@dataclass(frozen=True)
class Panel:
    """One stream of a song as it is drawn."""

    name: str
    colour: str
    is_drum: bool
    blocks: Blocks

    @property
    def rows(self) -> tuple[int, int]:
        """Lowest and highest row that is shown: all drum classes, or at least an octave around the notes."""
        if self.is_drum:
            return 0, len(DRUM_CLASSES) - 1
        low, high = (int(self.blocks.row.min()), int(self.blocks.row.max())) if len(self.blocks.row) else (60, 60)
        spare = max(12 - (high - low), 2)
        low = max(low - spare // 2, 0)
        return low, min(max(high + spare - spare // 2, low + 12), 127)


def panels(song: Song, drum_map: str = "current") -> list[Panel]:
    """What a picture of the song shows: a panel for each instrument, and one for all drums, the least busy left out."""
    notes, players = song.notes, song.instruments
    pitched = [i for i, p in enumerate(players) if not p.is_drum]
    room = MAX_PANELS - (len(pitched) < len(players))
    busiest = sorted(pitched, key=lambda i: -int((notes.instrument == i).sum()))[:room]
    others = iter(OTHERS * 2)
    found: list[Panel] = []
    for i in sorted(busiest):
        mine = notes.instrument == i
        is_bass = players[i].program in TRIO_BASS_PROGRAMS
        colour = VERMILION if is_bass else BLUE
        colour = next(others) if any(p.colour == colour for p in found) else colour
        name = players[i].name.strip() or f"track {i + 1}"
        found.append(Panel(name, colour, False, Blocks(notes.pitch[mine], notes.start[mine], notes.end[mine])))
    if len(pitched) < len(players):
        found.append(Panel("drums", GREEN, True, _hits(song, drum_map)))
    nothing = np.zeros(0, np.int32)
    return found or [Panel("silence", BLUE, False, Blocks(nothing, nothing, nothing))]


def _hits(song: Song, drum_map: str) -> Blocks:
    row_of = np.full(128, -1)
    for i, pitches in enumerate(DRUM_MAPS[drum_map]):
        row_of[list(pitches)] = i
    is_drum = np.array([p.is_drum for p in song.instruments], bool)
    row = np.where(is_drum[song.notes.instrument], row_of[song.notes.pitch], -1)
    start = song.notes.start[row >= 0]
    return Blocks(row[row >= 0], start, start + 1)
