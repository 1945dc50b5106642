"""Which tracks of a song are its melody and its drums, where a person knows better than the file."""

from dataclasses import dataclass, replace

import numpy as np

from musicvae.music.midi import Notes, Song
from musicvae.music.representation import (
    MELODY_PROGRAM,
    TRIO_BASS_PROGRAMS,
    TRIO_MELODY_PROGRAMS,
    Representation,
    Trio,
)


@dataclass(frozen=True)
class Roles:
    """Tracks by number, from 1, or by name; what is not named is as the file says."""

    melody: tuple[str, ...] = ()
    drums: tuple[str, ...] = ()


def find_track(song: Song, track: str) -> int:
    """The index of the track of a number, from 1, or of a name. Raises ValueError for none, or more than one."""
    names = [player.name for player in song.instruments]
    named = _named(song, (track,))
    if len(named) == 1:
        return named[0]
    if track.isascii() and track.isdigit() and 1 <= int(track[:9]) <= len(names):
        return int(track[:9]) - 1
    found = f"tracks {', '.join(str(i + 1) for i in named)} are all named {track!r}; give a number" if named else ""
    there = ", ".join(f'{i} "{name}"' for i, name in enumerate(names[:16], 1)) or "none"
    raise ValueError(f"{found or f'no track {track!r}'}; there are {there}{', ...' if len(names) > 16 else ''}")


def labelled(song: Song, roles: Roles) -> Song:
    """The song in which the melody is no drum kit and the drums are one. Raises ValueError as `find_track`."""
    return _labelled(song, *_found(song, roles))


def with_roles(song: Song, kind: Representation, roles: Roles) -> Song:
    """The song in which only the tracks named play the melody, and only those named the drums, as `kind` takes them.

    Raises ValueError as `find_track`.
    """
    return _taken(song, kind, *_found(song, roles))


def with_named_roles(song: Song, kind: Representation, roles: Roles) -> Song:
    """`with_roles` for a song among many: every track of a name, and no change where none has it."""
    melody, drums = _named(song, roles.melody), _named(song, roles.drums)
    return _taken(song, kind, melody, [i for i in drums if i not in melody])


def _named(song: Song, names: tuple[str, ...]) -> list[int]:
    if not names:
        return []
    wanted = {name.strip().casefold() for name in names}
    return [i for i, player in enumerate(song.instruments) if player.name.strip().casefold() in wanted]


def _found(song: Song, roles: Roles) -> tuple[list[int], list[int]]:
    melody, drums = ([find_track(song, t) for t in tracks] for tracks in (roles.melody, roles.drums))
    if both := set(melody) & set(drums):
        raise ValueError(f"track {min(both) + 1} cannot be the melody and the drums; name two tracks")
    return melody, drums


def _labelled(song: Song, melody: list[int], drums: list[int]) -> Song:
    players = [
        p._replace(is_drum=(p.is_drum and i not in melody) or i in drums) for i, p in enumerate(song.instruments)
    ]
    return replace(song, instruments=tuple(players))


def _taken(song: Song, kind: Representation, melody: list[int], drums: list[int]) -> Song:
    if not melody and not drums:
        return song
    song = _labelled(song, melody, drums)
    players, silent = list(song.instruments), np.zeros(len(song.instruments), bool)
    for i, player in enumerate(players):
        if player.is_drum:
            silent[i] = bool(drums) and i not in drums
        elif i not in melody:
            is_bass = isinstance(kind, Trio) and player.program in TRIO_BASS_PROGRAMS
            silent[i] = bool(melody) and not is_bass
        elif isinstance(kind, Trio) and player.program not in TRIO_MELODY_PROGRAMS:  # it takes its melody by program
            players[i] = player._replace(program=MELODY_PROGRAM)
    keep = ~silent[song.notes.instrument]
    return replace(song, instruments=tuple(players), notes=Notes(*(column[keep] for column in song.notes)))
