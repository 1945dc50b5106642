"""MIDI bytes -> what is in them: the guard around symusic, which only this file knows.

symusic reads what the standard describes in a quarter of the time that anything in Python takes, and misreads some of
what else files hold without saying so. So a file goes to symusic only if nothing in its bytes may be misread; every
other goes the careful way, `smf.py` and `channels.py`. Both ways give the same for the files that both can read.
"""

import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from symusic import Score

from musicvae.music.channels import DRUM_CHANNEL, Instrument, Parsed, named_drums, to_parsed
from musicvae.music.metre import MAX_BARS
from musicvae.music.reasons import MAX_BYTES, MAX_INSTRUMENTS, MidiError
from musicvae.music.smf import HEADER, Header, read_header, read_tracks, unwrapped
from musicvae.music.text import printable

BANKS = (b"\x00\x78", b"\x00\x79", b"\x00\x7e", b"\x00\x7f")  # a controller and its value: banks that matter
BANK_SELECT = re.compile(  # the same after the status of a controller, or after other controllers of one status
    rb"[\xb0-\xbf](?:[\x00-\x7f]{2}[\x80-\xff]{0,3}[\x00-\x7f])*\x00[\x78\x79\x7e\x7f]"
)
REFUSED_STATUS = 0xF4
SILENT_SYSTEM = np.isin(
    np.arange(256), [0xF0, 0xF1, 0xF2, 0xF3, 0xF6, 0xF7, 0xF8, 0xFA, 0xFB, 0xFC, 0xFE]
)  # not refused
CLOSING_TIME = 1 << 21  # ticks behind the end of a track at which we end every note: longer than music is
CLOSERS = [
    b"".join(bytes([*([] if pitch else [0x80 | channel]), pitch, 0, 0]) for pitch in range(128))
    for channel in range(16)
]


def read_file(path: str | Path) -> bytes:
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
    parsed = _plainly(data, header) or carefully(data, header)
    if len(parsed.signatures) > MAX_BARS:
        raise MidiError("too-many-metres", f"{len(parsed.signatures):,}")
    return parsed


def carefully(data: bytes, header: Header) -> Parsed:
    """What is in the bytes, event by event."""
    return to_parsed(read_tracks(data, header.at), header.ticks_per_quarter)


def _plainly(data: bytes, header: Header) -> Parsed | None:
    """What symusic finds in the bytes; None where it might misread them."""
    chunks = _chunks(data, header.at)
    parts = None if not chunks or _has_system_messages(data, chunks) else _closed(data, chunks)
    if parts is None:
        return None
    clean = b"".join([b"MThd", HEADER.pack(6, 1, min(len(parts), 0xFFFF), header.ticks_per_quarter), *parts])
    try:
        score = Score.from_midi(clean)
        names = [printable(track.name) for track in score.tracks]
    except Exception:
        return None
    tracks = [(track, name) for track, name in zip(score.tracks, names) if track.note_num()]
    if len(tracks) > MAX_INSTRUMENTS:
        raise MidiError("too-many-instruments", f"{len(tracks):,}")
    notes = [track.notes.numpy() for track, _ in tracks]
    signatures = [(s.time, s.numerator, s.denominator) for s in score.time_signatures]
    if any(own["duration"].max() >= CLOSING_TIME for own in notes) or _ambiguous(signatures):
        return None  # a note without its end, or an order that symusic does not keep
    end = score.end()
    if end < 0:
        raise MidiError("bad-times")
    players = named_drums([Instrument(name, track.program, track.is_drum) for track, name in tracks], notes)
    tempos = [(t.time, t.mspq) for t in score.tempos]
    return Parsed(header.ticks_per_quarter, end, players, notes, signatures, tempos)


def _ambiguous(signatures: list[tuple[int, int, int]]) -> bool:
    return len({time for time, *_ in signatures}) < len(signatures)


# --- what symusic may be given -------------------------------------------------------------------------------------


def _chunks(data: bytes, at: int) -> list[tuple[int, int]] | None:
    """Where each track's events begin and end, if the file is nothing but whole chunks, tracks that end with their end."""
    found, size = list[tuple[int, int]](), len(data)
    while at + 8 <= size:
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8])
        if end > size:
            return None
        if data[at : at + 4] == b"MTrk":
            if data[end - 3 : end] != b"\xff\x2f\x00":
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
    channels or banks may be misread.
    """
    used = _channels(np.frombuffer(data, np.uint8), chunks)
    if used is None or (any(bank in data for bank in BANKS) and BANK_SELECT.search(data)):
        return None
    parts = []
    for (at, end), channels in zip(chunks, used):
        closers = b"".join(CLOSERS[channel] for channel in channels)
        tail = b"\x06\x01.\x81\x80\x80\x00" + closers + b"\xff\x2f\x00" if closers else b"\x06\x01."
        parts.append(b"MTrk" + (end - 2 - at + len(tail)).to_bytes(4) + data[at : end - 2] + tail)
    return parts


def _has_system_messages(data: bytes, chunks: list[tuple[int, int]]) -> bool:
    """Whether tracks hold system messages other than whole exclusive ones with a status after them.

    The bytes of their statuses also stand in times and texts. A status that symusic refuses, put in the place of each,
    tells: it is only seen where a status is expected.
    """
    content = np.frombuffer(data, np.uint8)
    odd = np.flatnonzero((content >= 0xF0) & SILENT_SYSTEM[content])
    starts, after = np.array(chunks).T
    odd = odd[odd < after[np.searchsorted(starts, odd, side="right") - 1]]  # not in the heads of chunks
    suspects, ends = list[int](), set[int]()
    for at in odd[odd >= starts[0]].tolist():
        last = at + 1 + data[at + 1]
        whole = data[at] == 0xF0 and data[at + 1] < 0x80 and data[last : last + 1] == b"\xf7"
        if whole and data[last + 1 : last + 2] < b"\x80" <= data[last + 2 : last + 3]:
            ends.add(last)
        elif at not in ends and data[at - 1] < 0x80:
            suspects.append(at)
    if not suspects:
        return False
    changed = bytearray(data)
    for at in suspects:
        changed[at] = REFUSED_STATUS
    try:
        Score.from_midi(bytes(changed))
    except Exception:
        return True
    return False


def _channels(content: np.ndarray, chunks: list[tuple[int, int]]) -> list[list[int]] | None:
    """The channels on which each track may have notes; None where symusic may give some notes the wrong instrument.

    It knows the program changes of a track alone, and makes an instrument of each channel and program.
    """
    shaped = (content[:-3] < 0x80) & (content[2:-1] < 0x80)
    message = (content[1:-2] & 0xF0) * shaped
    starts = [at for at, _ in chunks]

    def places(kind: int, where: np.ndarray | bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Bytes that may be the status of a message, and for each its track * 16 + channel."""
        at = np.flatnonzero((message == kind) & where) + 1
        return at, (np.searchsorted(starts, at, side="right") - 1) * 16 + (content[at] & 15)

    notes, note_keys = places(0x90, content[3:] < 0x80)
    playing = np.flatnonzero(np.bincount(note_keys, minlength=1)).tolist()
    programs: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))  # by channel and track
    early = set[int]()
    changes, change_keys = places(0xC0)
    for at, key in zip(changes.tolist(), change_keys.tolist()):
        programs[key & 15][key >> 4].add(int(content[at + 1]))
        if key in playing and at < notes[np.argmax(note_keys == key)]:
            early.add(key)
    used: list[list[int]] = [[] for _ in chunks]
    for key in playing:
        used[key >> 4].append(key & 15)
        if key not in early:
            programs[key & 15][key >> 4].add(0)
    one_each = all(
        _one_program(of_tracks, [t for t in of_tracks if t * 16 + c in playing]) for c, of_tracks in programs.items()
    )
    apart = all(_apart([programs[c][t] for c in own if c != DRUM_CHANNEL]) for t, own in enumerate(used))
    return used if one_each and apart else None


def _one_program(of_tracks: dict[int, set[int]], playing: list[int]) -> bool:
    """Whether a channel's programs are those of its one track, or always the same."""
    return len(playing) == len(of_tracks) == 1 or len(set.union(*of_tracks.values())) == 1


def _apart(programs: list[set[int]]) -> bool:
    """Whether no two channels of a track share a program."""
    return len(programs) < 2 or sum(map(len, programs)) == len(set.union(*programs))
