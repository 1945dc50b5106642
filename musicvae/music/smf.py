"""MIDI bytes -> chunks and events, as tolerant players read them: the careful way, for files that symusic misreads.

What a player does is not what the standard says. Lengths of chunks may be wrong, system messages stand inside tracks,
running status goes on after meta events and system exclusive messages. Nothing is dropped in silence: what cannot be
read raises MidiError.
"""

import struct
from typing import NamedTuple

import numpy as np

from musicvae.music.reasons import MidiError, foreign_kind

HEADER = struct.Struct(">IHHH")
SYSTEM_DATA = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # data bytes of system messages; all others between F4 and FE have none
META, SYSEX, ESCAPE, END_OF_TRACK = 0xFF, 0xF0, 0xF7, 0x2F


class Header(NamedTuple):
    """What the header chunk says, and where the first chunk after it begins."""

    at: int
    ticks_per_quarter: int


class Meta(NamedTuple):
    """A meta event, or a system exclusive message (`kind` 0xF0, its packets joined)."""

    tick: int
    order: int
    kind: int
    data: bytes


class Messages(NamedTuple):
    """The channel messages of a track in their order, a column each (int64)."""

    tick: np.ndarray
    order: np.ndarray  # counts all events of the file
    status: np.ndarray  # 0x80 to 0xEF
    data1: np.ndarray
    data2: np.ndarray  # 0 where the message has one data byte


class Track(NamedTuple):
    """What one track chunk holds, and where the track ends."""

    messages: Messages
    metas: list[Meta]
    end: int  # tick


def unwrapped(data: bytes) -> bytes:
    """The Standard MIDI File inside of RIFF RMID, MacBinary and the like. Raises MidiError if there is none."""
    if data[:4] == b"MThd":
        return data
    if data[:4] == b"RIFF" and data[8:12] == b"RMID":
        at = 12
        while at + 8 <= len(data):
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            if data[at : at + 4] == b"data":
                return data[at + 8 : at + 8 + size] if data[at + 8 : at + 12] == b"MThd" else unwrapped(b"")
            at += 8 + size + (size & 1)
    at = data.find(b"MThd", 0, 1024)
    if at < 0 or data[:4] == b"RIFF":
        raise MidiError("not-midi", foreign_kind(data))
    return data[at:]


def read_header(data: bytes) -> Header:
    """The header chunk at the beginning of the bytes. Raises MidiError for one that cannot be used."""
    if len(data) < 14:
        raise MidiError("bad-header", f"{len(data)} bytes of at least 14")
    length, kind, _, division = HEADER.unpack_from(data, 4)
    if division & 0x8000:
        raise MidiError("smpte")
    if length < 6 or division == 0 or kind > 2:
        raise MidiError("bad-header", f"length {length}, format {kind}, {division} ticks a quarter note")
    if kind == 2:
        raise MidiError("format-2")
    return Header(8 + length, division)


def read_tracks(data: bytes, at: int) -> list[Track]:
    """All tracks from a position on. Where a chunk's length is wrong, the next track is looked for after its events."""
    tracks, order, steps = list[Track](), 0, _Steps(data)
    while (at := _next_track(data, at)) >= 0:
        claimed = at + 8 + int.from_bytes(data[at + 4 : at + 8])
        trusted = claimed == len(data) or data[claimed : claimed + 4] == b"MTrk"
        reader = _Reader(steps, len(tracks) + 1, claimed, trusted)
        ended = reader.read(at + 8)
        rest = data[ended:claimed] if trusted else b""
        if any(rest) and b"MTrk" not in rest:
            raise MidiError("malformed", f"{len(rest):,} bytes after the end of track {len(tracks) + 1}")
        tracks.append(reader.track(order))
        order += len(reader.positions)
        at = claimed if trusted and b"MTrk" not in rest else ended
    if not tracks:
        raise MidiError("no-tracks")
    return tracks


def _next_track(data: bytes, at: int) -> int:
    """Where the next track chunk begins: chunks of other names are skipped by their length, other bytes one by one."""
    while at + 8 <= len(data) and data[at : at + 4] != b"MTrk" and data[at : at + 4].isalnum():
        following = at + 8 + int.from_bytes(data[at + 4 : at + 8])
        if following != len(data) and data[following : following + 4] != b"MTrk":
            break
        at = following
    return data.find(b"MTrk", at, len(data) - 4)


# --- events --------------------------------------------------------------------------------------------------------

_SWITCH = 0x40  # added to a step: the message's status has another number of data bytes than the one before
_TWO_DATA = np.isin(np.arange(256) >> 4, [0x8, 0x9, 0xA, 0xB, 0xE])
_ONE_DATA = np.isin(np.arange(256) >> 4, [0xC, 0xD])


class _Steps:
    """How far it is from an event to the next, if one begins at a byte, for all bytes of a file at once.

    0 stands for events that need a closer look: meta events, system messages, damaged ones. Following the steps from
    the beginning of a track then costs little for each event, where reading it byte by byte would cost a lot.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.content = content = np.frombuffer(data + bytes(8), np.uint8)
        size = len(data)
        more = (content >= 0x80).view(np.uint8)
        a, b, c = (more[i : size + i] for i in range(3))
        self.delta = delta = 1 + a * (1 + b * (1 + c))  # bytes of the time before the event
        at = np.arange(size) + delta
        self.status = status = content[at]
        whole = (more[at + 1] | more[at + 2]) == 0  # the two bytes after a status, or the second and third of data
        two, one = _TWO_DATA[status] & whole, _ONE_DATA[status] & (more[at + 1] == 0)
        running = status < 0x80
        of_two = np.where(
            two, delta + 3, np.where(one, delta + 2 + _SWITCH, np.where(running & (more[at + 1] == 0), delta + 2, 0))
        )
        of_one = np.where(one, delta + 2, np.where(two, delta + 3 + _SWITCH, np.where(running, delta + 1, 0)))
        of_none = np.where(one, delta + 2, np.where(two, delta + 3 + _SWITCH, 0))
        self.after = [
            bytes(of.astype(np.uint8)) for of in (of_none, of_one, of_two)
        ]  # by data bytes of the last status


class _Reader:
    """Reads one track."""

    def __init__(self, steps: _Steps, number: int, claimed: int, trusted: bool):
        self.steps, self.data, self.number = steps, steps.data, number
        self.trusted, self.open = trusted, claimed > len(self.data)
        self.end = claimed if trusted else len(self.data)
        self.positions = list[int]()  # of all events
        self.marks = list[tuple[int, int, bytes]]()  # meta events: the number of the event, its kind, its data
        self.odd = dict[int, tuple[int, int, int]]()  # messages that needed a closer look, by the number of the event
        self.sysex = b""

    def read(self, at: int) -> int:
        """Reads the events from a position to the end of the track, and returns the position after it."""
        try:
            return self.follow(at)
        except (IndexError, EOFError):
            error = "an event is cut off"
        except ValueError as found:
            error = str(found)
        raise MidiError("truncated" if self.open else "malformed", f"{error} in track {self.number}")

    def follow(self, at: int) -> int:
        width, append, end = 0, self.positions.append, self.end
        step_from = self.steps.after[width]
        while at < end:
            append(at)
            step = step_from[at]
            if step and step < _SWITCH and width:
                at += step
            elif step:
                width = 1 if (width == 2) == (step >= _SWITCH) else 2  # the first status switches if it has two
                step_from = self.steps.after[width]
                at += step & ~_SWITCH
            else:
                at, ended, width = self.closer(at, width)
                step_from = self.steps.after[width]
                if ended:
                    return at
        if at > end or not self.trusted:
            raise EOFError
        return at

    def closer(self, at: int, width: int) -> tuple[int, bool, int]:
        """Reads the event at a position: the position after it, whether it ends the track, data bytes of the status."""
        _, at = self.number_at(at)
        if at >= self.end:
            raise EOFError
        status = self.data[at]
        if status < 0xF0:
            return self.message(at, status)
        if status not in (META, SYSEX, ESCAPE):
            return at + 1 + SYSTEM_DATA.get(status, 0), False, width
        kind = self.data[at + 1] if status == META else status
        length, at = self.number_at(at + (2 if status == META else 1))
        if at + length > self.end:
            raise EOFError
        if status == META:
            self.marks.append((len(self.positions) - 1, kind, self.data[at : at + length]))
        else:
            self.packet(status, self.data[at : at + length])
        return at + length, status == META and kind == END_OF_TRACK, width

    def number_at(self, at: int) -> tuple[int, int]:
        """A number of variable length, and the position after it."""
        value = 0
        for byte in self.data[at : at + 4]:
            value, at = value << 7 | byte & 0x7F, at + 1
            if byte < 0x80:
                return value, at
        if at >= len(self.data):
            raise EOFError
        raise ValueError("a number of more than four bytes")

    def message(self, at: int, status: int) -> tuple[int, bool, int]:
        """A channel message among whose data bytes others stand: real-time messages are skipped."""
        if status >= 0x80:
            at += 1
        else:
            status = self.running_status()
        width, found = 1 if _ONE_DATA[status] else 2, list[int]()
        while len(found) < width:
            if self.data[at] < 0xF8 or self.data[at] == META:
                found.append(min(self.data[at], 0x7F))  # a value out of range is the largest
            at += 1
        self.odd[len(self.positions) - 1] = (status, found[0], found[1] if width == 2 else 0)
        return at, False, width

    def running_status(self) -> int:
        """The status of the last channel message. Raises ValueError if there is none."""
        for i in range(len(self.positions) - 2, -1, -1):
            status = int(self.steps.status[self.positions[i]])
            if 0x80 <= status < 0xF0:
                return status
        raise ValueError("data without a status")

    def packet(self, status: int, content: bytes) -> None:
        """Joins the packets of a system exclusive message; an escaped channel message is one that was sent as it is."""
        number = len(self.positions) - 1
        if status == ESCAPE and not self.sysex:
            if len(content) in (2, 3) and 0x80 <= content[0] < 0xF0:
                self.odd[number] = (content[0], content[1], (*content, 0)[2])
            return
        self.sysex = content if status == SYSEX else self.sysex + content
        if self.sysex.endswith(b"\xf7"):
            self.marks.append((number, SYSEX, self.sysex))
            self.sysex = b""

    def track(self, order: int) -> Track:
        """What was read; `order` is the number of the file's events before it."""
        at = np.array(self.positions, np.int64)
        content, delta = self.steps.content, self.steps.delta[at]
        ticks = np.zeros(len(at), np.int64)
        for place in range(4):
            inside = place < delta
            ticks = np.where(inside, ticks << 7 | content[at + place * inside] & 0x7F, ticks)
        ticks = np.cumsum(ticks)
        status = self.steps.status[at].astype(np.int64)
        explicit = (status >= 0x80) & (status < 0xF0)
        last = np.maximum.accumulate(np.where(explicit, np.arange(len(at)), -1)) if len(at) else at
        first = at + delta + (status >= 0x80)
        status = np.where(status < 0xF0, status[last], 0) if len(at) else status
        data1, data2 = (
            content[first].astype(np.int64),
            np.where(_ONE_DATA[status], 0, content[first + 1].astype(np.int64)),
        )
        for number, message in self.odd.items():
            status[number], data1[number], data2[number] = message
        kept = np.flatnonzero(status)
        messages = Messages(ticks[kept], kept + order, status[kept], data1[kept], data2[kept])
        metas = [Meta(int(ticks[number]), order + number, kind, data) for number, kind, data in self.marks]
        return Track(messages, metas, int(ticks[-1]) if len(at) else 0)
