"""Why a MIDI file cannot be used: every way has a name."""

from musicvae.music.metre import MAX_BARS

MAX_BYTES = 4 << 20
MAX_INSTRUMENTS = 8_191  # keeps instrument numbers within 13 bits

FOREIGN = {  # what people take for MIDI, by how it begins
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
    "nested": "it is an archive inside an archive, which is not opened; unpack the outer one",
    "link": "it is a link or another entry without bytes of its own inside an archive",
    "same-name": "a later file of the archive has the same name, and is read in its place",
    "empty": "the file holds no bytes",
    "too-large": f"the file is larger than {MAX_BYTES >> 20} MiB",
    "not-midi": "there is no MIDI header (MThd) in it",
    "bad-header": "the MIDI header is damaged",
    "smpte": "time is counted in film frames (SMPTE), not in beats",
    "format-2": "it is a format 2 file (a bag of patterns without an order)",
    "no-tracks": "it has no track",
    "truncated": "it ends in the middle of a track",
    "malformed": "its events cannot be read",
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


def foreign_kind(data: bytes) -> str:
    """What bytes are that are no MIDI file, as far as their beginning tells."""
    return next((name for start, name in FOREIGN.items() if data.startswith(start)), f"it begins with {data[:8]!r}")
