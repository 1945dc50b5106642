"""MIDI bytes <-> Song: notes on a grid of sixteenth-note steps, counted from ticks, in 4/4.

A file may hold several stretches of 4/4 between other metres. They become the `pieces` of the song: laid one after
another, each padded to whole bars, they make the song's own timeline of steps, on which every note stands. What is not
4/4 is dropped and named in `Song.dropped`.
"""

import io
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from symusic import Score

STEPS_PER_BAR = 16  # a step is a sixteenth; a bar is 4/4
STEPS_PER_QUARTER = 4
DEFAULT_TEMPO = 120.0  # beats a minute, what MIDI means when a file does not say
TEMPO_RANGE = (4.0, 1000.0)  # outside lies only damage: 4 bpm is the slowest that three bytes can say
MAX_BYTES = 4 << 20
MAX_BARS = 10_000  # five hours at 120 bpm; keeps steps within 18 bits
MAX_INSTRUMENTS = 8_191  # keeps instrument numbers within 13 bits
MAX_SILENT_TAIL = 16  # bars kept between the last note and the end of the track
TICKS_PER_QUARTER = 480  # of the files that we write

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
    "no-notes": "it has no notes",
    "no-4/4": "it has no notes in 4/4",
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


class Piece(NamedTuple):
    """A stretch of 4/4: where it starts and ends on the song's timeline, and its first bar in the file (from 1)."""

    start: int  # steps, a multiple of 16
    end: int  # steps, a multiple of 16
    source_bar: int


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
    duration = np.maximum(np.asarray(end, np.int64) - start, 1)
    key = np.asarray(instrument, np.int64) << _INSTRUMENT
    key |= np.asarray(start, np.int64) << _START
    key |= np.asarray(pitch, np.int64) << _PITCH
    key |= duration << _DURATION
    key |= velocity
    key.sort()
    start = (key >> _START & 0x3FFFF).astype(np.int32)
    return Notes(
        (key >> _INSTRUMENT).astype(np.int32),
        start,
        (key >> _PITCH & 0x7F).astype(np.int32),
        start + (key >> _DURATION & 0x3FFFF).astype(np.int32),
        (key & 0x7F).astype(np.int32),
    )


@dataclass(frozen=True)
class Song:
    """Notes on the grid of steps, the players, the stretches of 4/4 they stand in, and the tempo."""

    notes: Notes
    instruments: tuple[Instrument, ...]
    pieces: tuple[Piece, ...]
    tempos: tuple[tuple[int, float], ...] = ((0, DEFAULT_TEMPO),)  # (step, beats a minute), the first at step 0
    dropped: tuple[str, ...] = ()  # metres left out: "3/4 from bar 17"
    off_grid: int = 0  # onsets that did not lie exactly on a step

    @property
    def steps(self) -> int:
        return self.pieces[-1].end if self.pieces else 0

    @property
    def bars(self) -> int:
        return self.steps // STEPS_PER_BAR

    @property
    def tempo(self) -> float:
        return self.tempos[0][1]

    def tempo_at(self, step: int) -> float:
        return next(bpm for at, bpm in reversed(self.tempos) if at <= max(step, 0))

    @classmethod
    def read(cls, source: str | Path | bytes) -> "Song":
        """MIDI file or bytes -> Song. Raises MidiError, which names the reason."""
        if not isinstance(source, bytes):
            source = _read_file(Path(source))
        score = _parse(source)
        return _to_song(score)

    def save(self, path: str | Path) -> None:
        """Writes a format 1 MIDI file that ends with the song's last step; the mirror of `read`."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.partial")
        try:
            temporary.write_bytes(self.to_bytes())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

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


def checked_tempo(tempo: float) -> float:
    """The tempo itself, if MIDI can say it. Raises ValueError otherwise."""
    low, high = TEMPO_RANGE
    if not low <= tempo <= high:
        raise ValueError(f"a tempo of {tempo:g} beats a minute; allowed are {low:g} to {high:g}")
    return float(tempo)


def join(songs: list[Song]) -> Song:
    """Songs of the same instruments played in a row, each from its own bar line, at the first one's tempo."""
    offsets = np.cumsum([0] + [s.steps for s in songs[:-1]])
    columns = [
        np.concatenate([getattr(s.notes, name) + (at if name in ("start", "end") else 0) for s, at in zip(songs, offsets)])
        for name in Notes._fields
    ]
    total = int(sum(s.steps for s in songs))
    return Song(sorted_notes(*columns), songs[0].instruments, (Piece(0, total, 1),), songs[0].tempos)


# --- reading -------------------------------------------------------------------------------------------------


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MidiError("unreadable", error.strerror or str(error)) from None


def _parse(data: bytes) -> Score:
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
        raise MidiError("not-midi", f"it begins with {data[:8]!r}")
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
                raise MidiError("truncated", f"track {len(parts)} claims {length:,} bytes, {size - position - 8:,} are there")
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


class _Stretch(NamedTuple):
    """Ticks between two changes of metre."""

    start: int
    end: int | None  # None: to the end of the song
    metre: str
    source_bar: int


def _to_song(score: Score) -> Song:
    tracks = [t for t in score.tracks if len(t.notes)]
    if not tracks:
        return _silence(score)
    if len(tracks) > MAX_INSTRUMENTS:
        raise MidiError("too-many-instruments", f"{len(tracks):,}")
    columns = [t.notes.numpy() for t in tracks]
    lengths = [len(c["time"]) for c in columns]
    tick = np.concatenate([c["time"] for c in columns]).astype(np.int64)
    ticks_held = np.concatenate([c["duration"] for c in columns])
    if tick.min() < 0 or ticks_held.min() < 0:
        raise MidiError("bad-times")
    tpq, end_tick = score.ticks_per_quarter, score.end()
    if end_tick < 0 or tick.max() * STEPS_PER_QUARTER // tpq >= MAX_BARS * STEPS_PER_BAR:
        raise MidiError("too-long", f"its last note is in bar {int(tick.max()) // (4 * tpq) + 1:,}")
    stretches = _stretches(score)
    grid = _Grid(tpq, stretches)
    start, start_stretch = grid.steps(tick)
    end = np.minimum(grid.steps(tick + ticks_held, start_stretch)[0], start + MAX_BARS * STEPS_PER_BAR)
    end = np.maximum(end, start + 1)

    pieces, shift, limit = _lay_out(grid, start, start_stretch, end, end_tick)
    if not pieces:
        raise MidiError("no-4/4", "; ".join(f"{s.metre} from bar {s.source_bar}" for s in stretches[:4]))
    keep: slice | np.ndarray = slice(None)
    instrument = np.repeat(np.arange(len(tracks)), lengths)
    pitch = np.concatenate([c["pitch"] for c in columns])
    velocity = np.concatenate([c["velocity"] for c in columns])
    if len(stretches) > 1:
        end = np.minimum(end, limit[start_stretch]) + shift[start_stretch]
        start = start + shift[start_stretch]
        keep = shift[start_stretch] > _DROPPED
        if not keep.any():
            raise MidiError("no-4/4", "; ".join(f"{s.metre} from bar {s.source_bar}" for s in stretches[:4]))
    notes = sorted_notes(instrument[keep], start[keep], pitch[keep], end[keep], velocity[keep])
    return Song(
        notes,
        tuple(Instrument(_name(t), t.program, t.is_drum) for t in tracks),
        tuple(pieces),
        _tempos(score, grid, shift),
        tuple(f"{s.metre} from bar {s.source_bar}" for s in stretches if s.metre != "4/4"),
        int(np.count_nonzero(tick[keep] * STEPS_PER_QUARTER % tpq)),
    )


def _silence(score: Score) -> Song:
    """A file that lasts but says nothing, as a model may write it."""
    tail = max(score.end(), 0) * STEPS_PER_QUARTER // score.ticks_per_quarter
    bars = min(-(-tail // STEPS_PER_BAR), MAX_SILENT_TAIL)
    if not bars:
        raise MidiError("no-notes")
    nothing = np.zeros(0, np.int64)
    steps = bars * STEPS_PER_BAR
    return Song(sorted_notes(*[nothing] * 5), (), (Piece(0, steps, 1),))


def _name(track) -> str:
    try:
        return track.name
    except UnicodeDecodeError:
        return ""


def _stretches(score: Score) -> list[_Stretch]:
    """Cut the ticks of a score where the metre changes; a repeated 4/4 cuts nothing."""
    signatures = score.time_signatures
    if not len(signatures):
        return [_Stretch(0, None, "4/4", 1)]
    changes: list[tuple[int, int, int]] = [(0, 4, 4)]
    for time, n, d in sorted((s.time, s.numerator, s.denominator) for s in signatures):
        if time < 0 or n <= 0 or d <= 0:
            continue  # no metre at all; the one before goes on
        if time == changes[-1][0]:
            changes[-1] = (time, n, d)
        else:
            changes.append((time, n, d))
    merged = [c for i, c in enumerate(changes) if i == 0 or c[1:] != changes[i - 1][1:]]
    result, bar = [], 1
    for i, (time, n, d) in enumerate(merged):
        following = merged[i + 1][0] if i + 1 < len(merged) else None
        result.append(_Stretch(time, following, f"{n}/{d}", bar))
        if following is not None:
            bar += max(1, -(-(following - time) * d // (4 * n * score.ticks_per_quarter)))
    return result


_DROPPED = -(1 << 40)  # the shift of a stretch that is not 4/4: moves its notes far below step 0


class _Grid:
    """Ticks -> steps within the stretch that they fall in, nearest step, halves up."""

    def __init__(self, tpq: int, stretches: list[_Stretch]):
        self.tpq, self.stretches = tpq, stretches
        self.starts = np.array([s.start for s in stretches], np.int64)

    def steps(self, tick: np.ndarray, stretch: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """tick (N,) -> step within its stretch (N,), and the stretch (N,), found by the rounded time unless given."""
        if len(self.stretches) == 1:
            return (tick * 8 + self.tpq) // (2 * self.tpq), np.zeros(0, np.int64) if stretch is None else stretch
        if stretch is None:  # half a step before a new metre belongs to the new metre
            stretch = np.searchsorted(self.starts * 8, tick * 8 + self.tpq, side="right") - 1
        return np.maximum((tick - self.starts[stretch]) * 8 + self.tpq, 0) // (2 * self.tpq), stretch


def _lay_out(grid: _Grid, start, stretch, end, end_tick) -> tuple[list[Piece], np.ndarray, np.ndarray]:
    """Where each 4/4 stretch comes to lie: pieces, and by stretch what to add to its steps and where its notes are cut."""
    pieces: list[Piece] = []
    shift = np.full(len(grid.stretches), _DROPPED, np.int64)
    limit = np.full(len(grid.stretches), 1 << 20, np.int64)
    position, per_bar = 0, STEPS_PER_BAR
    for i, s in enumerate(grid.stretches):
        if s.metre != "4/4":
            continue
        if s.end is not None:
            length = -(-(s.end - s.start) * STEPS_PER_QUARTER // grid.tpq)
            limit[i] = length
        else:
            mine = end if len(grid.stretches) == 1 else end[stretch == i]
            last = int(mine.max()) if len(mine) else 0
            tail = (max(end_tick - s.start, 0) * 8 + grid.tpq) // (2 * grid.tpq)
            length = max(last, min(tail, -(-last // per_bar) * per_bar + MAX_SILENT_TAIL * per_bar))
        bars = min(-(-length // per_bar), MAX_BARS - position // per_bar)
        if bars <= 0:
            continue
        shift[i] = position
        limit[i] = min(limit[i], bars * per_bar)
        pieces.append(Piece(position, position + bars * per_bar, s.source_bar))
        position += bars * per_bar
    if len(grid.stretches) == 1:
        np.minimum(end, limit[0], out=end)
    return pieces, shift, limit


def _tempos(score: Score, grid: _Grid, shift: np.ndarray) -> tuple[tuple[int, float], ...]:
    """Tempo changes on the song's timeline; the one in force where a dropped metre ends is carried over."""
    low, high = TEMPO_RANGE
    changes = [(int(t.time), 6e7 / t.mspq) for t in score.tempos if t.mspq > 0 and t.time >= 0]
    found: dict[int, float] = {0: DEFAULT_TEMPO}
    for tick, bpm in sorted(changes, key=lambda change: change[0]):
        step, stretch = grid.steps(np.array([tick]))
        at = int(step[0]) + (int(shift[stretch[0]]) if len(stretch) else 0)
        if at < 0:  # inside a metre that was dropped: holds from the next piece on
            later = shift[int(stretch[0]) + 1 :]
            later = later[later > _DROPPED]
            if not len(later):
                continue
            at = int(later[0])
        found[at] = min(max(bpm, low), high)
    result: list[tuple[int, float]] = []
    for at in sorted(found):
        if not result or result[-1][1] != found[at]:
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
    channel = 9 if player.is_drum else index % 15 + (index % 15 >= 9)  # the tenth channel belongs to drums
    events: list = [(0, 0, MetaMessage("track_name", name=player.name))] if player.name else []
    events.append((0, 1, Message("program_change", channel=channel, program=player.program)))
    mine = notes.instrument == index
    for start, end, pitch, velocity in zip(*(c[mine].tolist() for c in (notes.start, notes.end, notes.pitch, notes.velocity))):
        events.append((start, 3, Message("note_on", channel=channel, note=pitch, velocity=max(velocity, 1))))
        events.append((end, 2, Message("note_off", channel=channel, note=pitch)))  # 2 < 3: an end before a new start
    return _track(events, song.steps)


def _track(events: list, steps: int):
    """(step, rank, message) in any order -> a mido track that ends at the song's last step."""
    from mido import MetaMessage, MidiTrack

    track, now = MidiTrack(), 0
    for step, _, message in sorted([*events, (steps, 9, MetaMessage("end_of_track"))], key=lambda e: e[:2]):
        tick = step * TICKS_PER_QUARTER // STEPS_PER_QUARTER
        track.append(message.copy(time=tick - now))
        now = tick
    return track
