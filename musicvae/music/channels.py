"""Events of all tracks -> instruments and their notes, as a synthesizer of sixteen channels plays them.

A channel belongs to the whole file: a program or bank that one track selects counts for the notes of another. A note
belongs to its track, and an instrument is what one track plays with one program, over however many channels.
"""

import re
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from musicvae.music.reasons import MAX_INSTRUMENTS, MidiError
from musicvae.music.smf import SYSEX, Meta, Track
from musicvae.music.text import decoded

DRUM_CHANNEL = 9
DRUM_BANKS = (120, 126, 127)  # most significant bytes: General MIDI 2, and two of XG
MELODIC_BANK = 121  # General MIDI 2
GS_PARTS = (9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15)  # channel of each part
GS_RHYTHM = re.compile(rb"\x41.\x42\x12\x40([\x10-\x1f])\x15([\x00-\x02]).\xf7", re.DOTALL)
DRUM_NAMES = re.compile(
    r"(drum|drums|drum ?(kit|set|track|loop)|percussion|schlagzeug|batterie|bater[ií]a)s?( ?\d+)?", re.I
)
KIT_PITCHES = range(27, 88)  # of General MIDI 2
MPE_CHANNELS = 8  # a track that plays one line over so many channels is a controller of many dimensions
TRACK_NAME, PORT, SET_TEMPO, TIME_SIGNATURE = 0x03, 0x21, 0x51, 0x58  # kinds of meta events


class Instrument(NamedTuple):
    """One player: a MIDI track and program. Instruments of a song are numbered from 1 on screen."""

    name: str
    program: int
    is_drum: bool


class Parsed(NamedTuple):
    """A file as it stands, in ticks; instruments without notes are left out."""

    ticks_per_quarter: int
    end: int  # of the last track
    instruments: tuple[Instrument, ...]
    notes: list[dict[str, np.ndarray]]  # of each instrument: time, duration (int32), pitch, velocity (int8)
    signatures: list[tuple[int, int, int]]  # tick, numerator, denominator; of several at a tick the last counts
    tempos: list[tuple[int, int]]  # tick, microseconds a quarter note

    @property
    def size(self) -> int:
        """How many notes it has."""
        return sum(len(n["time"]) for n in self.notes)


class Messages(NamedTuple):
    """The channel messages of all tracks, a column each (int64)."""

    track: np.ndarray
    channel: np.ndarray
    tick: np.ndarray
    order: np.ndarray  # among the file's events
    data1: np.ndarray
    data2: np.ndarray
    kind: np.ndarray  # 0x8 to 0xE


class Notes(NamedTuple):
    """All notes of a file, a column each (int64), in any order."""

    track: np.ndarray
    channel: np.ndarray
    start: np.ndarray  # tick
    order: np.ndarray  # of the note-on among the file's events
    pitch: np.ndarray
    velocity: np.ndarray
    end: np.ndarray  # tick


def to_parsed(tracks: list[Track], ticks_per_quarter: int) -> Parsed:
    """Tracks -> Parsed. Raises MidiError for times or numbers beyond what a song can have."""
    end = max(track.end for track in tracks)
    if end >= 1 << 31:
        raise MidiError("bad-times")
    messages = _joined(tracks)
    channels = _Channels(tracks, messages)
    notes = _notes(messages, np.array([track.end for track in tracks]), channels)
    program, is_drum = channels.at(notes)
    names = [([decoded(m.data) for m in track.metas if m.kind == TRACK_NAME] or [""])[-1] for track in tracks]
    players, of = np.unique(notes.track << 8 | program << 1 | is_drum, return_inverse=True)
    if len(players) > MAX_INSTRUMENTS:
        raise MidiError("too-many-instruments", f"{len(players):,}")
    lowest = np.full(len(players), 1 << 11)
    np.minimum.at(lowest, of, notes.channel)
    order = np.lexsort((players, lowest, players >> 8))
    found = [Instrument(names[p >> 8], p >> 1 & 0x7F, bool(p & 1)) for p in players[order].tolist()]
    by_time = np.argsort(of << 32 | notes.order)
    bounds = np.searchsorted(of[by_time], np.arange(len(players) + 1))
    columns = [_columns(notes, by_time[bounds[i] : bounds[i + 1]]) for i in order]
    metas = [meta for track in tracks for meta in track.metas]
    tempos = [(m.tick, int.from_bytes(m.data[:3])) for m in metas if m.kind == SET_TEMPO and len(m.data) >= 3]
    return Parsed(ticks_per_quarter, end, named_drums(found, columns), columns, _signatures(metas), tempos)


def _joined(tracks: list[Track]) -> Messages:
    columns = [np.concatenate(column) for column in zip(*(track.messages for track in tracks))]
    tick, order, status, data1, data2 = columns
    of_track = np.repeat(np.arange(len(tracks)), [len(track.messages.tick) for track in tracks])
    port = np.array([_port(track) << 4 for track in tracks])
    return Messages(of_track, status & 15 | port[of_track], tick, order, data1, data2, status >> 4)


def _port(track: Track) -> int:
    """The port on which a track plays: each has sixteen channels of its own."""
    return next((meta.data[0] & 0x7F for meta in track.metas if meta.kind == PORT and meta.data), 0)


def _signatures(metas: Iterable[Meta]) -> list[tuple[int, int, int]]:
    found = [m for m in metas if m.kind == TIME_SIGNATURE and len(m.data) >= 2 and m.data[1] < 32]
    return [(m.tick, m.data[0], 1 << m.data[1]) for m in found]


def _columns(notes: Notes, rows: np.ndarray) -> dict[str, np.ndarray]:
    start, end = notes.start[rows], notes.end[rows]
    return {
        "time": start.astype(np.int32),
        "duration": (end - start).astype(np.int32),
        "pitch": notes.pitch[rows].astype(np.int8),
        "velocity": notes.velocity[rows].astype(np.int8),
    }


def named_drums(instruments: list[Instrument], notes: list[dict[str, np.ndarray]]) -> tuple[Instrument, ...]:
    """The instruments; where none is a drum kit, one whose name says so and whose pitches are those of a kit is one."""
    if any(player.is_drum for player in instruments):
        return tuple(instruments)
    return tuple(
        player._replace(is_drum=bool(DRUM_NAMES.fullmatch(player.name)) and _on_a_kit(own["pitch"]))
        for player, own in zip(instruments, notes)
    )


def _on_a_kit(pitch: np.ndarray) -> bool:
    return bool(pitch.min() >= KIT_PITCHES.start and pitch.max() < KIT_PITCHES.stop)


# --- what a channel sounds like -----------------------------------------------------------------------------------


class _Channels:
    """Program and kind of each channel at each moment of the file."""

    def __init__(self, tracks: list[Track], messages: Messages):
        self.controllers = _expressive_channels(messages)
        changes: dict[int, list[tuple[int, int, int, int | None, bool | None]]] = defaultdict(list)
        banks = (messages.kind == 0xB) & (messages.data1 == 0)
        for i in np.flatnonzero((messages.kind == 0xC) | banks):
            number, channel, tick, order, data1, data2, kind = (int(column[i]) for column in messages)
            drums = data2 in DRUM_BANKS or (channel & 15 == DRUM_CHANNEL and data2 != MELODIC_BANK)
            changes[channel].append((tick, number, order, *((data1, None) if kind == 0xC else (None, drums))))
        for number, track in enumerate(tracks):
            for meta in track.metas:
                if meta.kind == SYSEX and (found := GS_RHYTHM.fullmatch(meta.data)):
                    channel = GS_PARTS[found[1][0] & 15] | _port(track) << 4
                    changes[channel].append((meta.tick, number, meta.order, None, found[2][0] > 0))
        self.states = {channel: self.of(channel, sorted(of, key=lambda c: c[:3])) for channel, of in changes.items()}

    def starts_as_drums(self, channel: int) -> bool:
        return channel & 15 == DRUM_CHANNEL and channel not in self.controllers

    def of(self, channel: int, changes: list) -> tuple[np.ndarray, np.ndarray]:
        """Moments of changes (n, 3: tick, track, order); program and kind before them and after each (n + 1, 2)."""
        states = [(0, self.starts_as_drums(channel))]
        for *_, program, drums in changes:
            before = states[-1]
            states.append((before[0] if program is None else program, before[1] if drums is None else drums))
        return np.array([change[:3] for change in changes]), np.array(states)

    def at(self, notes: Notes) -> tuple[np.ndarray, np.ndarray]:
        """Program and kind (1 for drums) of notes: of changes at a note's own tick those in other tracks count, and in
        its own track those that stand before it."""
        found = np.zeros((len(notes.start), 2), np.int64)
        found[:, 1] = (notes.channel & 15 == DRUM_CHANNEL) & ~np.isin(notes.channel, list(self.controllers))
        for channel, (moments, states) in self.states.items():
            mine = np.flatnonzero(notes.channel == channel)
            start, track, order = notes.start[mine], notes.track[mine], notes.order[mine]
            last = np.searchsorted(moments[:, 0], start, side="right")
            while True:
                tick, of, at = moments[np.maximum(last - 1, 0)].T
                later = (last > 0) & (tick == start) & (of == track) & (at > order)
                if not later.any():
                    break
                last -= later
            found[mine] = states[last]
        return found[:, 0], found[:, 1]


def _expressive_channels(messages: Messages) -> set[int]:
    """Channels that are voices of one controller (MIDI Polyphonic Expression), announced or evident."""
    selected: dict[tuple[int, int], int] = {}
    manager = (messages.kind == 0xB) & np.isin(messages.channel, (0, 15)) & np.isin(messages.data1, (6, 100, 101))
    for channel, number, value in zip(
        *(c[manager].tolist() for c in (messages.channel, messages.data1, messages.data2))
    ):
        selected[channel, number] = value
        if (
            number == 6
            and channel in (0, 15)
            and (selected.get((channel, 101)), selected.get((channel, 100))) == (0, 6)
            and value
        ):
            return {channel, *(range(1, 1 + value) if channel == 0 else range(15 - value, 15))}
    sounding = (messages.kind == 0x9) & (messages.data2 > 0)
    for track in np.unique(messages.track[sounding & (messages.channel == DRUM_CHANNEL)]).tolist():
        mine = messages.track == track
        used = set(messages.channel[sounding & mine].tolist())
        programs = np.unique(messages.data1[mine & (messages.kind == 0xC)])
        if len(used - {0}) >= MPE_CHANNELS and len(programs) <= 1 and _one_voice_each(messages, mine):
            return used
    return set()


def _one_voice_each(messages: Messages, mine: np.ndarray) -> bool:
    """Whether no channel of a track ever sounds two notes at once."""
    sounding: dict[int, set[int]] = defaultdict(set)
    rows = np.flatnonzero(mine & (messages.kind < 0xA))
    for channel, kind, pitch, velocity in zip(
        *(c[rows].tolist() for c in (messages.channel, messages.kind, messages.data1, messages.data2))
    ):
        if kind == 0x9 and velocity:
            sounding[channel].add(pitch)
        else:
            sounding[channel].discard(pitch)
        if len(sounding[channel]) > 1:
            return False
    return True


# --- where notes end ----------------------------------------------------------------------------------------------


def _notes(messages: Messages, ends: np.ndarray, channels: _Channels) -> Notes:
    """All notes with their ends, in any order; `ends` are those of the tracks.

    Note-ons and note-offs of one track, channel and pitch pair off in their order. Where a note-on is left over, the
    offs of other tracks on the channel count too; if there is still one, each note ends with the next note or note-off
    of its pitch, or with its track. A drum hit needs no end.
    """
    rows = np.flatnonzero(messages.kind < 0xA)
    track, channel, tick, order, pitch, velocity, kind = (column[rows] for column in messages)
    on, off_tick = (kind == 0x9) & (velocity > 0), np.zeros(len(rows), np.int64)
    group = (channel * 128 + pitch) * (len(ends) + 1) + track
    at = np.argsort(group << 32 | order)
    follows = np.append(group[at][1:] == group[at][:-1], False)
    is_on, after_is_on = on[at], np.append(on[at][1:], True)
    loose = np.unique(group[at][is_on & (~follows | after_is_on)])  # not one on, one off
    off_tick[at[:-1]] = tick[at][1:]
    pitches, of_pitch = np.unique(loose // (len(ends) + 1)), group // (len(ends) + 1)
    found = np.flatnonzero(on & ~np.isin(of_pitch, pitches) if len(loose) else on)
    notes = Notes(*(column[found] for column in (track, channel, tick, order, pitch, velocity, off_tick)))
    columns = Notes(track, channel, tick, order, pitch, velocity, on)
    rest = [_paired_off(columns, np.flatnonzero(of_pitch == number), ends, channels) for number in pitches]
    return Notes(*(np.concatenate(column) for column in zip(notes, *rest)))


def _paired_off(columns: Notes, rows: np.ndarray, ends: np.ndarray, channels: _Channels) -> Notes:
    """The notes among the messages of one channel and pitch; `end` says which are note-ons."""
    found, left, stray = list[tuple[int, int]](), list[int](), list[int]()
    for track in np.unique(columns.track[rows]).tolist():
        mine = rows[columns.track[rows] == track].tolist()
        pairs = _oldest_first(columns, mine)
        if pairs.waiting:
            left += mine
        else:
            found += pairs.ended
            stray += pairs.stray
    left = sorted(left + stray, key=lambda i: (columns.start[i], bool(columns.end[i]), columns.order[i]))
    together = _oldest_first(columns, left)
    found += _until_the_next(columns, left, ends) if together.waiting else together.ended
    at = np.array([i for i, _ in found], np.int64)
    notes = Notes(*(column[at] for column in columns))._replace(end=np.array([end for _, end in found], np.int64))
    if together.waiting:  # drum hits that have no end
        hit = (channels.at(notes)[1] > 0) & np.isin(at, left)
        notes = notes._replace(end=np.where(hit, notes.start, notes.end))
    return notes


class _Pairs(NamedTuple):
    """Note-ons with the ticks of their note-offs; note-ons and note-offs without the other."""

    ended: list[tuple[int, int]]
    waiting: deque[int]
    stray: list[int]


def _oldest_first(columns: Notes, rows: list[int]) -> _Pairs:
    pairs = _Pairs([], deque(), [])
    for i in rows:
        if columns.end[i]:
            pairs.waiting.append(i)
        elif pairs.waiting:
            pairs.ended.append((pairs.waiting.popleft(), int(columns.start[i])))
        else:
            pairs.stray.append(i)
    return pairs


def _until_the_next(columns: Notes, rows: list[int], ends: np.ndarray) -> list[tuple[int, int]]:
    """Each note-on with the tick of the next note-off, or the next note that begins later, or the end of its track."""
    found, following = list[tuple[int, int]](), None
    for n in range(len(rows) - 1, -1, -1):
        tick, is_on = int(columns.start[rows[n]]), bool(columns.end[rows[n]])
        if is_on:
            end = int(ends[columns.track[rows[n]]]) if following is None else following
            found.append((rows[n], max(end, tick)))
        before = n and (not is_on or columns.start[rows[n - 1]] < tick)
        following = tick if before else following
    return found
