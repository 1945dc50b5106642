"""MIDI bytes <-> Song: notes on a grid of sixteenth-note steps, counted from ticks, in 4/4."""

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import BinaryIO, NamedTuple

import numpy as np

from musicvae.files import replacing
from musicvae.music.channels import Instrument, Parsed
from musicvae.music.guard import parse, read_file
from musicvae.music.metre import MAX_BARS, MAX_SILENT_TAIL, STEPS_PER_BAR, STEPS_PER_QUARTER, Piece, Timeline, place
from musicvae.music.reasons import MAX_BYTES, MidiError

DEFAULT_TEMPO = 120.0  # beats a minute, what MIDI means when a file does not say
TEMPO_RANGE = (4.0, 1000.0)  # outside lies only damage: 4 bpm is the slowest that three bytes can say
TICKS_PER_QUARTER = 480  # of the files that we write
DRAWN_BY = "musicvae.render.roll:roll_svg"  # for notebooks; it stands above this module, so it is looked up when asked

Source = str | os.PathLike[str] | bytes | BinaryIO


class Notes(NamedTuple):
    """Columns of equal length, sorted by instrument, start, pitch, end, velocity; times in steps."""

    instrument: np.ndarray  # int32, index into Song.instruments
    start: np.ndarray  # int32
    pitch: np.ndarray  # int32, 0-127
    end: np.ndarray  # int32, at least start + 1
    velocity: np.ndarray  # int32, 0-127


# One sorted integer a note: 13 bits instrument, 18 start, 7 pitch, 18 duration, 7 velocity. Sorting plain
# integers is several times faster than sorting by five keys, and reading files is mostly this.
_INSTRUMENT, _START, _PITCH, _DURATION = 50, 32, 25, 7


def sorted_notes(instrument, start, pitch, end, velocity) -> Notes:
    """Columns in any order -> Notes, sorted. Steps must be below 2^18, instruments below 2^13."""
    start = np.asarray(start, np.int64)
    key = np.maximum(np.asarray(end, np.int64) - start, 1)
    key <<= _DURATION
    key |= start << _START
    key |= np.asarray(instrument, np.int64) << _INSTRUMENT
    key |= np.asarray(pitch, np.int64) << _PITCH
    key |= np.asarray(velocity, np.int64)
    key.sort(kind="stable")  # for its speed with keys that are nearly sorted already
    high = (key >> _START).astype(np.int32)  # instrument and start
    low = key.astype(np.int32)  # pitch, duration and velocity
    start = high & 0x3FFFF
    return Notes(high >> 18, start, low >> _PITCH & 0x7F, start + (low >> _DURATION & 0x3FFFF), low & 0x7F)


@dataclass(frozen=True, eq=False, repr=False)
class Song:
    """Notes on the grid of steps, the players, the stretches of 4/4 they stand in, and the tempo.

    Songs are equal where all fields are, notes compared one by one; equal songs have the same hash. A notebook shows a
    song as a piano roll.
    """

    notes: Notes
    instruments: tuple[Instrument, ...]
    pieces: tuple[Piece, ...]
    tempos: tuple[tuple[int, float], ...] = ((0, DEFAULT_TEMPO),)  # (step, beats a minute), the first at step 0
    dropped: tuple[str, ...] = ()  # metres left out: "3/4 from bar 17"
    off_grid: int = 0  # onsets that lay more than a twentieth of a step away from it

    @property
    def steps(self) -> int:
        return self.pieces[-1].end if self.pieces else 0

    @property
    def bars(self) -> int:
        return self.steps // STEPS_PER_BAR

    @property
    def tempo(self) -> float:
        return self.tempos[0][1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Song):
            return NotImplemented
        return self._rest == other._rest and all(map(np.array_equal, self.notes, other.notes))

    def __hash__(self) -> int:
        return hash((self._rest, *(np.asarray(column, np.int32).tobytes() for column in self.notes)))

    @property
    def _rest(self) -> tuple:
        """All fields but the notes."""
        return self.instruments, self.pieces, self.tempos, self.dropped, self.off_grid

    def __repr__(self) -> str:
        players = ", ".join(f"{i} {player.name!r}" for i, player in enumerate(self.instruments[:4], 1))
        more = ", ..." if len(self.instruments) > 4 else ""
        counts = f"{self.bars} bars, {len(self.notes.start)} notes, {self.tempo:g} beats a minute"
        return f"<Song: {counts}; tracks: {players or 'none'}{more}>"

    def _repr_html_(self) -> str:
        return str(resolve_name(DRAWN_BY)(self))

    def tempo_at(self, step: int) -> float:
        return next(bpm for at, bpm in reversed(self.tempos) if at <= max(step, 0))

    @classmethod
    def read(cls, source: Source) -> "Song":
        """MIDI, as a path, bytes or a file opened in binary -> Song. Raises MidiError, which names the reason."""
        song = to_songs([parse(_bytes_of(source))])[0]
        if isinstance(song, MidiError):
            raise song
        return song

    def save(self, target: str | Path | BinaryIO) -> None:
        """Writes a format 1 MIDI file that ends with the song's last step; the mirror of `read`."""
        if not isinstance(target, (str, Path)):
            target.write(self.to_bytes())
            return
        with replacing(Path(target)) as temporary:
            temporary.write_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The song as the bytes of a format 1 MIDI file: a tempo track, then a track for each instrument."""
        import mido  # only who writes needs it

        file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER, charset="utf-8")
        file.tracks.append(_tempo_track(self))
        file.tracks.extend(_note_track(self, i) for i in range(len(self.instruments)))
        buffer = io.BytesIO()
        file.save(file=buffer)
        return buffer.getvalue()

    def with_tempo(self, tempo: float) -> "Song":
        """The same notes at one tempo, in beats a minute. Raises ValueError outside `TEMPO_RANGE`."""
        return replace(self, tempos=((0, checked_tempo(tempo)),))


def _bytes_of(source: Source) -> bytes:
    """The bytes to read, or as many as show that they are too many. MidiError names a file that cannot be opened."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (str, os.PathLike)):
        try:
            return read_file(Path(source))
        except MidiError as error:
            raise MidiError(error.reason, f"{os.fspath(source)}: {error.detail}") from None
    data = source.read(MAX_BYTES + 1)
    if not isinstance(data, bytes):
        raise ValueError("the file was opened as text; MIDI is read from one opened in binary, with mode 'rb'")
    return data


def checked_tempo(tempo: float) -> float:
    """The tempo itself, if MIDI can say it. Raises ValueError otherwise."""
    low, high = TEMPO_RANGE
    if not low <= tempo <= high:
        raise ValueError(f"a tempo of {tempo:g} beats a minute; allowed are {low:g} to {high:g}")
    return float(tempo)


def join(songs: list[Song]) -> Song:
    """Songs of the same instruments played in a row, each from its own bar line and at its own tempo."""
    offsets = np.cumsum([0] + [s.steps for s in songs[:-1]])
    columns = [
        np.concatenate(
            [getattr(s.notes, name) + (at if name in ("start", "end") else 0) for s, at in zip(songs, offsets)]
        )
        for name in Notes._fields
    ]
    total = int(sum(s.steps for s in songs))
    tempos = [(int(at) + step, bpm) for s, at in zip(songs, offsets) for step, bpm in s.tempos]
    changes = tuple(now for before, now in zip([(0, 0.0), *tempos], tempos) if now[1] != before[1])
    return Song(sorted_notes(*columns), songs[0].instruments, (Piece(0, total, 1),), changes)


# --- reading -------------------------------------------------------------------------------------------------


def to_songs(files: list[Parsed]) -> "list[Song | MidiError]":
    """Lays many files on the grid in one pass over all their notes, which costs far less than file by file.

    A file that cannot be a song gives the MidiError that says why. The files must have at most `MAX_INSTRUMENTS`
    instruments together.
    """
    sounding = [f for f in files if f.notes]
    songs = iter(_sounding_songs(sounding) if sounding else [])
    return [next(songs) if f.notes else _silence(f) for f in files]


def _sounding_songs(files: list[Parsed]) -> list[Song | MidiError]:
    parts = [part for f in files for part in f.notes]
    players = np.array([len(f.notes) for f in files])
    tick, held, pitch, velocity = (
        np.concatenate([p[c] for p in parts]) for c in ("time", "duration", "pitch", "velocity")
    )
    lengths = np.array([len(p["time"]) for p in parts])
    bounds = np.append(0, np.cumsum(lengths))[np.append(0, np.cumsum(players))]  # of each file's notes
    if bad := _bad_times(files, bounds[:-1], tick, held):
        rest = iter(to_songs([f for i, f in enumerate(files) if i not in bad]))
        return [bad[i] if i in bad else next(rest) for i in range(len(files))]

    timelines = [Timeline(f.signatures, f.ticks_per_quarter) for f in files]
    placed = place(timelines, [f.end for f in files], bounds, tick, held)
    instrument = np.repeat(np.arange(len(parts)), lengths)
    if placed.keep is not None:
        instrument, pitch, velocity = instrument[placed.keep], pitch[placed.keep], velocity[placed.keep]
    notes = sorted_notes(instrument, placed.start, pitch, placed.end, velocity)
    first_player = (np.cumsum(players) - players).astype(np.int32)
    notes = notes._replace(instrument=notes.instrument - np.repeat(first_player, np.diff(placed.bounds)))
    return [
        _song(file, timeline, Notes(*(column[a:b] for column in notes)), off_grid)
        for file, timeline, a, b, off_grid in zip(files, timelines, placed.bounds, placed.bounds[1:], placed.off_grid)
    ]


def _song(file: Parsed, timeline: Timeline, notes: Notes, off_grid: int) -> Song | MidiError:
    if not len(notes.start):
        return MidiError("no-4/4", "; ".join(map(str, timeline.stretches[:4])))
    dropped = tuple(str(s) for s in timeline.stretches if s.metre != "4/4")
    return Song(notes, file.instruments, tuple(timeline.pieces), _tempos(file.tempos, timeline), dropped, off_grid)


def _bad_times(files: list[Parsed], first: np.ndarray, tick: np.ndarray, held: np.ndarray) -> dict[int, MidiError]:
    """The files whose times overflowed or lie beyond `MAX_BARS`; `first` is where each one's notes begin."""
    last = np.maximum.reduceat(tick.view(np.uint32), first).tolist()  # a negative time looks like a huge one
    longest = np.maximum.reduceat(held.view(np.uint32), first).tolist()
    bad = {}
    for i, f in enumerate(files):
        if max(last[i], longest[i]) >= 1 << 31:
            bad[i] = MidiError("bad-times")
        elif (bar := (8 * last[i] + f.ticks_per_quarter) // (32 * f.ticks_per_quarter)) >= MAX_BARS:
            bad[i] = MidiError("too-long", f"its last note is in bar {bar + 1:,}")
    return bad


def _silence(file: Parsed) -> Song | MidiError:
    """A file that lasts but says nothing, as a model may write it."""
    bars = min(-(-(file.end * STEPS_PER_QUARTER // file.ticks_per_quarter) // STEPS_PER_BAR), MAX_SILENT_TAIL)
    if not bars:
        return MidiError("no-notes")
    nothing = np.zeros(0, np.int64)
    return Song(sorted_notes(*[nothing] * 5), (), (Piece(0, bars * STEPS_PER_BAR, 1),))


def _tempos(changes: list[tuple[int, int]], timeline: Timeline) -> tuple[tuple[int, float], ...]:
    """Tempo changes on the song's timeline; the one in force where a dropped metre ends is carried over."""
    low, high = TEMPO_RANGE
    found: dict[int, float] = {0: DEFAULT_TEMPO}
    for tick, microseconds in sorted(changes, key=lambda change: change[0]):
        if tick >= 0 and microseconds > 0:
            found[timeline.step(tick)] = min(max(6e7 / microseconds, low), high)
    result: list[tuple[int, float]] = []
    for at in sorted(found):
        if at < timeline.pieces[-1].end and (not result or result[-1][1] != found[at]):
            result.append((at, found[at]))
    return tuple(result)


# --- writing -------------------------------------------------------------------------------------------------


def _tempo_track(song: Song):
    from mido import MetaMessage, bpm2tempo

    events = [(0, 0, MetaMessage("time_signature", numerator=4, denominator=4))]
    events += [(at, 1, MetaMessage("set_tempo", tempo=min(bpm2tempo(bpm), 0xFFFFFF))) for at, bpm in song.tempos]
    return _track(events, song.steps)


def _note_track(song: Song, index: int):
    from mido import Message, MetaMessage

    player, notes = song.instruments[index], song.notes
    port, channel = _place(song.instruments, index)
    events: list = [(0, 0, MetaMessage("track_name", name=player.name))] if player.name else []
    if port:
        events.append((0, 0, MetaMessage("midi_port", port=port)))
    events.append((0, 1, Message("program_change", channel=channel, program=player.program)))
    mine = notes.instrument == index
    for start, end, pitch, velocity in zip(
        *(c[mine].tolist() for c in (notes.start, notes.end, notes.pitch, notes.velocity))
    ):
        events.append((start, 3, Message("note_on", channel=channel, note=pitch, velocity=max(velocity, 1))))
        events.append((end, 2, Message("note_off", channel=channel, note=pitch)))  # 2 < 3: an end before a new start
    return _track(events, song.steps)


def _place(players: tuple[Instrument, ...], index: int) -> tuple[int, int]:
    """Port and channel of an instrument: no two share one, as a channel has one program for the whole file."""
    alike = sum(player.is_drum == players[index].is_drum for player in players[:index])
    if players[index].is_drum:
        return alike % 128, 9
    return alike // 15 % 128, alike % 15 + (alike % 15 >= 9)  # the tenth channel belongs to drums


def _track(events: list, steps: int):
    """(step, rank, message) in any order -> a mido track that ends at the song's last step."""
    from mido import MetaMessage, MidiTrack

    track, now = MidiTrack(), 0
    for step, _, message in sorted([*events, (steps, 9, MetaMessage("end_of_track"))], key=lambda e: e[:2]):
        tick = step * TICKS_PER_QUARTER // STEPS_PER_QUARTER
        track.append(message.copy(time=tick - now))
        now = tick
    return track
