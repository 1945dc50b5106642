"""Standard MIDI Files assembled byte by byte, whole ones and broken ones."""

import struct

END = b"\xff\x2f\x00"  # end of track, without its delta time


def quantity(number: int) -> bytes:
    """A number as MIDI writes delta times: seven bits a byte, the highest first."""
    result = [number & 0x7F]
    while number := number >> 7:
        result.append(number & 0x7F | 0x80)
    return bytes(reversed(result))


def meta(kind: int, data: bytes) -> bytes:
    return bytes([0xFF, kind]) + quantity(len(data)) + data


def tempo(bpm: float) -> bytes:
    return meta(0x51, round(6e7 / bpm).to_bytes(3))


def signature(numerator: int, power: int = 2) -> bytes:
    """A time signature; the denominator is two to the `power`."""
    return meta(0x58, bytes([numerator, power, 24, 8]))


def name(text: str | bytes) -> bytes:
    return meta(0x03, text if isinstance(text, bytes) else text.encode())


def program(number: int, channel: int = 0) -> bytes:
    return bytes([0xC0 | channel, number])


def on(pitch: int, velocity: int = 100, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 0])


def track(*events: tuple[int, bytes], end: int | None = None) -> bytes:
    """(tick, event) in any order -> a track chunk that ends at tick `end`, or with its last event."""
    body, now = b"", 0
    last = max([tick for tick, _ in events], default=0) if end is None else end
    for tick, event in sorted([*events, (last, END)], key=lambda e: (e[0], e[1] == END)):
        body += quantity(tick - now) + event
        now = tick
    return chunk(b"MTrk", body)


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body)) + body


def header(tracks: int, kind: int = 1, division: int = 480) -> bytes:
    return chunk(b"MThd", struct.pack(">HHH", kind, tracks, division))


def file(*tracks: bytes, kind: int = 1, division: int = 480) -> bytes:
    return header(len(tracks), kind, division) + b"".join(tracks)


def note(
    start: float, pitch: int, length: float = 1.0, velocity: int = 100, channel: int = 0, quarter: int = 480
) -> tuple:
    """One note's two events; times in steps, which need not be whole."""
    begin, end = round(start * quarter / 4), round((start + length) * quarter / 4)
    return (begin, on(pitch, velocity, channel)), (end, off(pitch, channel))


def notes(*each: tuple, **more: int) -> list[tuple[int, bytes]]:
    """note(...) of several (start, pitch, length)."""
    return [event for one in each for event in note(*one, **more)]


def riff(midi: bytes, *before: tuple[bytes, bytes]) -> bytes:
    """The RMID wrapper of Windows, with other chunks (name, content) before the data."""
    chunks = [(name, len(body), body + b"\0" * (len(body) % 2)) for name, body in [*before, (b"data", midi)]]
    data = b"".join(name + struct.pack("<I", length) + body for name, length, body in chunks)
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"RMID" + data


def macbinary(midi: bytes) -> bytes:
    """The wrapper of the old Macintosh: 128 bytes before, padding to a multiple of 128 behind."""
    head = bytearray(128)
    head[1:10] = b"\x08song.mid"
    head[65:73] = b"MidiMIDI"
    head[83:87] = struct.pack(">I", len(midi))
    return bytes(head) + midi + b"\0" * (-len(midi) % 128)
