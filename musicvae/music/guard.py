"""MIDI bytes -> what is in them: the guard around symusic, which only this file knows.

symusic reads what the standard describes in a quarter of the time that anything in Python takes, and misreads some of
what else files hold without saying so. So a file goes to symusic only if nothing in its bytes may be misread; every
other goes the careful way, `smf.py` and `channels.py`. Both ways give the same for the files that both can read.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

from symusic import Score

from musicvae.music.channels import Instrument, Parsed, named_drums, to_parsed
from musicvae.music.metre import MAX_BARS
from musicvae.music.reasons import MAX_BYTES, MAX_INSTRUMENTS, MidiError
from musicvae.music.smf import HEADER, Header, read_header, read_tracks, unwrapped
from musicvae.music.text import printable

BANKS = (b"\x00\x78", b"\x00\x79", b"\x00\x7e", b"\x00\x7f")  # a controller and its value: banks that matter
BANK_SELECT = re.compile(  # the same after the status of a controller, or after other controllers of one status
    rb"[\xb0-\xbf](?:[\x00-\x7f]{2}[\x80-\xff]{0,3}[\x00-\x7f])*\x00[\x78\x79\x7e\x7f]"
)
OTHER_PORT = re.compile(rb"\xff\x21\x01[^\x00]")
END_OF_TRACK = b"\xff\x2f\x00"
REFUSED_STATUS = 0xF4
SILENT_SYSTEM = b"\xf0\xf1\xf2\xf3\xf6\xf7\xf8\xfa\xfb\xfc\xfe"  # statuses of system messages that are not refused
NOTE_STATUSES, PROGRAM_STATUSES = bytes(range(0x90, 0xA0)), bytes(range(0xC0, 0xD0))
OTHER_BYTES = bytes(set(range(256)) - set(NOTE_STATUSES + PROGRAM_STATUSES + SILENT_SYSTEM))
CLOSING_TIME = 1 << 21  # ticks behind the end of a track at which we end every note: longer than music is
MARKER = b"\x06\x01."
CLOSING_TAILS = [  # of a track that plays on a channel: a note-off for each pitch
    MARKER
    + b"\x81\x80\x80\x00"
    + bytes([0x80 | channel])
    + b"\x00".join(bytes([p, 0]) for p in range(128))
    + b"\x00\xff\x2f\x00"
    for channel in range(16)
]


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file, or as many as show that it is too large. Raises MidiError if it cannot be opened."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)
    except OSError as error:
        raise MidiError("unreadable", error.strerror or str(error)) from None


def parse(data: bytes) -> Parsed:
    """MIDI bytes -> Parsed. Raises MidiError, which names the reason."""
    if not data:
        raise MidiError("empty")
    if len(data) > MAX_BYTES:
        raise MidiError("too-large")
    data = unwrapped(data)
    header = read_header(data)
    parsed = plainly(data, header) or carefully(data, header)
    if len(parsed.signatures) > MAX_BARS:
        raise MidiError("too-many-metres", f"{len(parsed.signatures):,}")
    return parsed


def carefully(data: bytes, header: Header) -> Parsed:
    """What is in the bytes, event by event."""
    return to_parsed(read_tracks(data, header.at), header.ticks_per_quarter)


def plainly(data: bytes, header: Header) -> Parsed | None:
    """What symusic finds in the bytes; None where it might misread them."""
    chunks = _chunks(data, header.at)
    parts = _closed(data, chunks) if chunks else None
    if parts is None:
        return None
    clean = b"".join([b"MThd", HEADER.pack(6, 1, min(len(parts), 0xFFFF), header.ticks_per_quarter), *parts])
    try:
        score: Any = Score.from_midi(clean)
        names = [printable(track.name) for track in score.tracks]
    except Exception:
        return None
    if any("\ufffd" in name for name in names):
        return None  # a name that is not UTF-8
    tracks = [(track, name) for track, name in zip(score.tracks, names) if track.note_num()]
    if len(tracks) > MAX_INSTRUMENTS:
        raise MidiError("too-many-instruments", f"{len(tracks):,}")
    notes = [track.notes.numpy() for track, _ in tracks]
    signatures = [(s.time, s.numerator, s.denominator) for s in score.time_signatures]
    end = score.end()
    if end >= CLOSING_TIME or _ambiguous(signatures):
        return None  # a note without its end, or an order that symusic does not keep
    if end < 0:
        raise MidiError("bad-times")
    players = named_drums([Instrument(name, track.program, track.is_drum) for track, name in tracks], notes)
    tempos = [(t.time, t.mspq) for t in score.tempos]
    return Parsed(header.ticks_per_quarter, end, players, notes, signatures, tempos)


def _ambiguous(signatures: list[tuple[int, int, int]]) -> bool:
    return len({time for time, *_ in signatures}) < len(signatures)


# --- what symusic may be given -------------------------------------------------------------------------------------


def _chunks(data: bytes, at: int) -> list[tuple[int, int]] | None:
    """Where each track's events begin and end, if the file is whole chunks alone, and each track ends with its end."""
    found, size = list[tuple[int, int]](), len(data)
    while at + 8 <= size:
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8])
        if end > size:
            return None
        if data[at : at + 4] == b"MTrk":
            if data.find(END_OF_TRACK, at + 8, end) != end - 3 or data.find(b"MTrk", at + 8, end) >= 0:
                return None
            found.append((at + 8, end))
        elif not data[at : at + 4].isalnum():
            return None
        at = end
    return found if at == size else None


def _closed(data: bytes, chunks: list[tuple[int, int]]) -> list[bytes] | None:
    """The track chunks, with a marker where each ends and, long after it, an end for every note that has none.

    The parser does not tell where a track ends, only where its events are. So the last event (end of track, FF 2F 00)
    is turned into a marker (FF 06 01 "."), which counts in `Score.end()`: silence at the end survives. None where
    channels, banks or system messages may be misread.
    """
    channels = _channels(data, chunks)
    if channels is None or OTHER_PORT.search(data) or (any(b in data for b in BANKS) and BANK_SELECT.search(data)):
        return None
    parts = []
    for (at, end), channel in zip(chunks, channels):
        tail = MARKER if channel is None else CLOSING_TAILS[channel]
        parts.append(b"MTrk" + (end - 2 - at + len(tail)).to_bytes(4) + data[at : end - 2] + tail)
    return parts


def _channels(data: bytes, chunks: list[tuple[int, int]]) -> list[int | None] | None:
    """The one channel on which each track plays, None for a track without notes; None for a file in which a track plays
    on several, or a channel's programs are not those of its one track, or that holds system messages."""
    channels, strange = list[int | None](), list[int]()
    for at, end in chunks:
        statuses = data[at : end - 3].translate(None, OTHER_BYTES)
        channel = _first_channel(data, statuses.translate(None, PROGRAM_STATUSES + SILENT_SYSTEM), at, end)
        channels.append(channel)
        own = b"" if channel is None else bytes([0x90 | channel, 0xC0 | channel])
        for status in sorted(set(statuses.translate(None, own))):
            strange += _places(data, status, at, end)
    strange = strange and _without_whole_messages(data, strange)
    if strange and _any_is_a_status(data, strange):
        return None
    playing = [channel for channel in channels if channel is not None]
    shared = {channel for channel in playing if playing.count(channel) > 1}
    return None if any(_several_programs(data, chunks, channels, channel) for channel in shared) else channels


def _first_channel(data: bytes, statuses: bytes, start: int, end: int) -> int | None:
    """The channel of the first note in a track, from the bytes of it that may be statuses of notes."""
    if not statuses.strip(statuses[:1]):
        return statuses[0] & 15 if statuses else None
    first = {next(_places(data, status, start, end), end): status for status in set(statuses)}
    at = min(first)
    return first[at] & 15 if at < end else None


def _places(data: bytes, status: int, start: int, end: int) -> Iterator[int]:
    """Where a byte stands in a track as the status of a message would: between data bytes."""
    width = 2 if status < 0xC0 else 1 if status < 0xF0 else 0
    at = data.find(status, start, end)
    while at >= 0:
        if data[at - 1] < 0x80 and data[at + 1 : at + 1 + width].isascii():
            yield at
        at = data.find(status, at + 1, end)


def _without_whole_messages(data: bytes, places: list[int]) -> list[int]:
    """The places less those where a whole system exclusive message before a status begins and ends."""
    whole = set[int]()
    for at in places:
        last = at + 1 + data[at + 1]
        ends = data[at] == 0xF0 and data[at + 1] < 0x80 and data[last : last + 1] == b"\xf7"
        if ends and data[last + 1 : last + 2] < b"\x80" <= data[last + 2 : last + 3]:
            whole |= {at, last}
    return [at for at in places if at not in whole]


def _several_programs(data: bytes, chunks: list[tuple[int, int]], channels: list[int | None], channel: int) -> bool:
    """Whether tracks that share a channel may play it with different programs."""
    programs = set[int]()
    for (at, end), own in zip(chunks, channels):
        if own == channel:
            changes = list(_places(data, 0xC0 | channel, at, end))
            programs |= {data[place + 1] for place in changes}
            if not changes or changes[0] > data.find(0x90 | channel, at, end):
                programs.add(0)
    return len(programs) > 1


def _any_is_a_status(data: bytes, places: list[int]) -> bool:
    """Whether any of these bytes is a status, and not a part of a time, a text or the like.

    A status that symusic refuses, put in the place of each, tells: it is only seen where a status is expected.
    """
    changed = bytearray(data)
    for at in places:
        changed[at] = REFUSED_STATUS
    try:
        Score.from_midi(bytes(changed))
    except Exception:
        return True
    return False
