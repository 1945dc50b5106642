"""MIDI bytes -> what is in them: the guard around symusic, which only this file knows.

Every way in which a file can be unusable has a name here.
"""

import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from symusic import Score

from musicvae.music.metre import MAX_BARS

MAX_BYTES = 4 << 20
MAX_INSTRUMENTS = 8_191  # keeps instrument numbers within 13 bits

STRANGERS = {  # what people take for MIDI, by how it begins
    b"ID3": "it is an MP3",
    b"\xff\xfb": "it is an MP3",
    b"RIFF": "it is a WAV file or another RIFF",
    b"OggS": "it is an Ogg file",
    b"fLaC": "it is a FLAC file",
    b"PK\x03\x04": "it is a ZIP archive; MuseScore's .mscz are such: export it as MIDI",
    b"<?xml": "it is XML; MusicXML is such: export it as MIDI",
}

REASONS = {
    "unreadable": "the file cannot be opened",
    "empty": "the file holds no bytes",
    "too-large": f"the file is larger than {MAX_BYTES >> 20} MiB",
    "not-midi": "there is no MIDI header (MThd) in it",
    "bad-header": "the MIDI header is damaged",
    "smpte": "time is counted in film frames (SMPTE), not in beats",
    "format-2": "it is a format 2 file (a bag of patterns without an order)",
    "no-tracks": "it has no track",
    "truncated": "it ends in the middle of a track",
    "malformed": "the MIDI parser gives up on it",
    "bad-times": "its times overflow",
    "too-long": f"it is longer than {MAX_BARS:,} bars",
    "too-many-instruments": f"it has more than {MAX_INSTRUMENTS:,} instruments",
    "too-many-metres": f"its time signature changes more than {MAX_BARS:,} times",
    "no-notes": "it has no notes",
    "no-4/4": "it has no notes in 4/4, which is all that is understood",
}


class MidiError(ValueError):
    """A file that cannot be used; `reason` is one of `REASONS`, `detail` says what was found."""

    def __init__(self, reason: str, detail: str = ""):
        assert reason in REASONS, reason
        self.reason, self.detail = reason, detail
        super().__init__(REASONS[reason] + (f" ({detail})" if detail else ""))

    def __reduce__(self):
        return MidiError, (self.reason, self.detail)


class Instrument(NamedTuple):
    """One player: a MIDI track, channel and program. Instruments of a song are numbered from 1 on screen."""

    name: str
    program: int
    is_drum: bool


class Parsed(NamedTuple):
    """A file as it stands, in ticks; instruments without notes are left out."""

    ticks_per_quarter: int
    end: int  # of the last track
    instruments: tuple[Instrument, ...]
    notes: list[dict[str, np.ndarray]]  # of each instrument: time, duration (int32), pitch, velocity (int8)
    signatures: list[tuple[int, int, int]]  # tick, numerator, denominator
    tempos: list[tuple[int, int]]  # tick, microseconds a quarter note

    @property
    def size(self) -> int:
        """How many notes it has."""
        return sum(len(n["time"]) for n in self.notes)


def read_file(path: str | Path) -> bytes:
    """The bytes of a file, or as many as show that it is too large. Raises MidiError if it cannot be opened."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)
    except OSError as error:
        raise MidiError("unreadable", error.strerror or str(error)) from None


def parse(data: bytes) -> Parsed:
    """MIDI bytes -> Parsed. Raises MidiError, which names the reason."""
    score = _score(data)
    tracks = [t for t in score.tracks if t.note_num()]
    if len(tracks) > MAX_INSTRUMENTS:
        raise MidiError("too-many-instruments", f"{len(tracks):,}")
    if len(score.time_signatures) > MAX_BARS:
        raise MidiError("too-many-metres", f"{len(score.time_signatures):,}")
    end = score.end()
    if end < 0:
        raise MidiError("bad-times")
    return Parsed(
        score.ticks_per_quarter,
        end,
        tuple(Instrument(_name(t), t.program, t.is_drum) for t in tracks),
        [t.notes.numpy() for t in tracks],
        [(s.time, s.numerator, s.denominator) for s in score.time_signatures],
        [(t.time, t.mspq) for t in score.tempos],
    )


def _name(track) -> str:
    try:
        return track.name
    except UnicodeDecodeError:
        return ""


def _score(data: bytes) -> Any:
    """Bytes -> symusic's Score. The guard: the parser sees only whole chunks of a header that we wrote ourselves."""
    if not data:
        raise MidiError("empty")
    if len(data) > MAX_BYTES:
        raise MidiError("too-large")
    clean = _clean(data)
    try:
        return Score.from_midi(clean)
    except Exception:
        pass  # a stray byte above 127 where a program or controller should be: worth a second, lenient look
    try:
        return Score.from_midi(clean, sanitize_data=True)
    except Exception as error:
        raise MidiError("malformed", str(error).split("\n")[0][:80]) from None


def _clean(data: bytes) -> bytes:
    """Cut wrappers off, check every length, and let the end of each track be seen.

    The parser does not tell where a track ends, only where its events are. So the last event (end of track, FF 2F 00)
    is turned into a marker (FF 06 01 "."), which counts in `Score.end()`: silence at the end survives.
    """
    at = 0 if data[:4] == b"MThd" else data.find(b"MThd", 0, 1024)  # RIFF-RMID and MacBinary stand before it
    if at < 0:
        kind = next(
            (name for start, name in STRANGERS.items() if data.startswith(start)), f"it begins with {data[:8]!r}"
        )
        raise MidiError("not-midi", kind)
    if len(data) < at + 14:
        raise MidiError("bad-header", f"{len(data) - at} bytes of at least 14")
    length, kind, _, division = struct.unpack_from(">IHHH", data, at + 4)
    if division & 0x8000:
        raise MidiError("smpte")
    if length < 6 or division == 0 or kind > 2:
        raise MidiError("bad-header", f"length {length}, format {kind}, {division} ticks a quarter note")
    if kind == 2:
        raise MidiError("format-2")
    parts = [b""]
    position, size = at + 8 + length, len(data)
    while position + 8 <= size:
        name, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "big")
        end = position + 8 + length
        if name == b"MTrk":
            if end > size:
                raise MidiError(
                    "truncated", f"track {len(parts)} claims {length:,} bytes, {size - position - 8:,} are there"
                )
            if data[end - 3 : end] == b"\xff\x2f\x00" and length >= 3:
                parts.append(b"MTrk" + (length + 1).to_bytes(4) + data[position + 8 : end - 2] + b"\x06\x01.")
            else:
                parts.append(data[position:end])
        elif not name.isalnum():
            break  # padding or rubbish behind the last track
        position = end
    if len(parts) == 1:
        raise MidiError("no-tracks")
    parts[0] = struct.pack(">4sIHHH", b"MThd", 6, 1, min(len(parts) - 1, 0xFFFF), division)
    return b"".join(parts)
