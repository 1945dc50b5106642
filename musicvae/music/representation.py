"""Songs <-> tokens: what happens in one step of one stream is one integer.

Melody (130 tokens): 0 nothing happens (hold or rest), 1 note-off, 2 + p a note of MIDI pitch p begins.
Drums (512 tokens): bit i is set when class i of a drum map is hit.
Trio (130, 130, 512): melody, bass and drums side by side.
The original's melodies (and basses) have 90 tokens: melody-90, trio-90.

Every array of integers in range decodes to a song; there is no illegal sequence.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from musicvae.music.melody_track import Choice, choose_melody
from musicvae.music.midi import (
    DEFAULT_TEMPO,
    STEPS_PER_BAR,
    Instrument,
    Notes,
    Piece,
    Song,
    checked_tempo,
    sorted_notes,
)

NOTHING, NOTE_OFF, FIRST_PITCH = 0, 1, 2
VELOCITY = 100  # of every note that we write
MELODY_PROGRAM, BASS_PROGRAM = 0, 33
TRIO_MELODY_PROGRAMS, TRIO_BASS_PROGRAMS = range(0, 32), range(32, 40)
TRANSPOSITIONS = (-5, 6)  # semitones, both ends included

DRUM_CLASSES = ("kick", "snare", "closed hi-hat", "open hi-hat", "low tom", "mid tom", "high tom", "crash", "ride")
DRUM_MAPS = {  # the first pitch of each class is the one written back
    "current": (
        (36, 35),
        (38, 27, 28, 31, 32, 33, 34, 37, 39, 40, 56, 65, 66, 75, 85),
        (42, 44, 54, 68, 69, 70, 71, 73, 78, 80, 22),
        (46, 67, 72, 74, 79, 81, 26),
        (45, 29, 41, 43, 61, 64, 84),
        (48, 47, 60, 63, 77, 86, 87),
        (50, 30, 62, 76, 83),
        (49, 52, 55, 57, 58),
        (51, 53, 59, 82),
    ),
    "2018": (  # the paper's, of the checkpoints before 2019-04 and of magenta.js
        (36, 35),
        (38, 27, 28, 31, 32, 33, 34, 37, 39, 40, 56, 65, 66, 75, 85),
        (42, 44, 54, 68, 69, 70, 71, 73, 78, 80),
        (46, 67, 72, 74, 79, 81),
        (45, 29, 41, 61, 64, 84),
        (48, 47, 60, 63, 77, 86, 87),
        (50, 30, 43, 62, 76, 83),
        (49, 55, 57, 58),
        (51, 52, 53, 59, 82),
    ),
}


class Onsets(NamedTuple):
    """What one stream does, sparse: columns sorted by voice and step, at most one row for each."""

    voice: np.ndarray  # int64: which instrument (melody) or song (drums)
    step: np.ndarray  # int64
    token: np.ndarray  # int64: the token of the onset
    end: np.ndarray  # int64: first step at which it no longer sounds


class NoPart(ValueError):
    """The song has nothing for this representation; the message says what it has."""


@dataclass(frozen=True)
class Melody:
    """One voice at a time: the highest note of an instrument that is no drum kit."""

    name: str = "melody"
    lowest: int = 0  # MIDI pitches; notes outside do not exist for this representation
    highest: int = 127

    @property
    def melodic(self) -> tuple[bool, ...]:
        """Of each stream: whether its tokens are notes and note-offs, not sets of drums."""
        return (True,)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        return (FIRST_PITCH + self.highest - self.lowest + 1,)

    def onsets(self, notes: Notes) -> Onsets:
        """Of several notes at one onset the highest (the longest of equals) counts; a new onset ends the last note."""
        if self.lowest > 0 or self.highest < 127:
            inside = (notes.pitch >= self.lowest) & (notes.pitch <= self.highest)
            notes = Notes(*(column[inside] for column in notes))
        at = notes.instrument.astype(np.int64) << 32 | notes.start
        top = np.flatnonzero(np.append(at[1:] != at[:-1], True)) if len(at) else np.zeros(0, np.int64)
        voice, step, end = notes.instrument[top], notes.start[top], notes.end[top].copy()
        same = np.flatnonzero(voice[1:] == voice[:-1])
        end[same] = np.minimum(end[same], step[same + 1])
        return Onsets(voice, step, notes.pitch[top] + (FIRST_PITCH - self.lowest), end)

    def to_tokens(self, song: Song, instrument: int | None = None) -> np.ndarray:
        """Song -> tokens (song.steps, 1). `instrument` is an index into song.instruments; by default what
        `choose_melody` says. Raises NoPart if the song has notes but none for a melody."""
        chosen = self.choose(song, instrument)
        return _melody_stream(self, song, chosen)[:, None]

    def to_song(self, tokens: np.ndarray, tempo: float = DEFAULT_TEMPO) -> Song:
        """tokens (T, 1) -> Song with one instrument, padded to whole bars. Raises ValueError if out of range."""
        tokens = checked_tokens(tokens, self.vocab_sizes)
        return _song([_melody_notes(tokens[:, 0], self.lowest)], [_MELODY], len(tokens), tempo)

    def choose(self, song: Song, instrument: int | None = None) -> int | None:
        """The index of the instrument that `to_tokens` takes; None for a silent song."""
        return self.choose_and_say(song, instrument).instrument

    def choose_and_say(self, song: Song, instrument: int | None = None) -> Choice:
        """What `choose` gives, and why."""
        return _choose(song, range(128), instrument, "melody")

    def transpose(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """tokens (B, T, 1) -> the same, each example shifted by a random interval within range."""
        return _transposed(tokens, (0,), self.vocab_sizes[0], rng)

    augment = transpose  # how training windows change at every visit

    def narrowed(self, tokens: np.ndarray) -> "Narrowed":
        """tokens (N, T, 1) of the full range of pitches -> those of this one, for windows that keep within it."""
        pitched = tokens >= FIRST_PITCH
        inside = (tokens >= FIRST_PITCH + self.lowest) & (tokens <= FIRST_PITCH + self.highest)
        kept = np.all(inside | ~pitched, axis=(1, 2), keepdims=True)[:, 0, 0]
        return Narrowed(np.where(pitched, tokens - self.lowest, tokens)[kept].astype(tokens.dtype), kept)


class Narrowed(NamedTuple):
    tokens: np.ndarray  # (M, T, 1)
    kept: np.ndarray  # (N,) which windows these are


_KIT_PARTS = (1 << 0, 1 << 1, 0b0_0111_0000, 0b1_1000_1100)  # kick, snare, toms, cymbals: bits of DRUM_CLASSES


@dataclass(frozen=True)
class Drums:
    """All drum kits of a song merged into nine classes: a token is the set of classes hit."""

    drum_map: str = "current"
    name: str = "drums"

    def __post_init__(self):
        if self.drum_map not in DRUM_MAPS:
            raise ValueError(f"no drum map {self.drum_map!r}; known are {', '.join(DRUM_MAPS)}")

    @property
    def melodic(self) -> tuple[bool, ...]:
        """Of each stream: whether its tokens are notes and note-offs, not sets of drums."""
        return (False,)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        return (2 ** len(DRUM_CLASSES),)

    def onsets(self, notes: Notes) -> Onsets:
        """Hits by step; a hit sounds for its own step only. `notes.instrument` is the voice: merge kits before."""
        bit = _class_bits(self.drum_map)[notes.pitch]
        hit = bit > 0
        at = (notes.instrument.astype(np.int64) << 32 | notes.start) << 9 | bit
        at = np.sort(at[hit])
        at = at[np.append(True, at[1:] != at[:-1])] if len(at) else at
        first = np.flatnonzero(np.diff(at >> 9, prepend=-1))
        token = np.add.reduceat(at & 511, first) if len(first) else np.zeros(0, np.int64)
        step = at[first] >> 9 & 0xFFFFFFFF
        return Onsets(at[first] >> 41, step, token, step + 1)

    def to_tokens(self, song: Song, instrument: int | None = None) -> np.ndarray:
        """Song -> tokens (song.steps, 1). All drum instruments are merged; `instrument` picks one of them.
        Raises NoPart if the song has notes but none on drums."""
        if instrument is not None:
            _choose(song, range(128), instrument, "drums")
        elif len(song.notes.start) and not any(i.is_drum for i in song.instruments):
            raise NoPart("no drums (no notes on MIDI channel 10)")
        return self._stream(song, instrument)[:, None]

    def to_song(self, tokens: np.ndarray, tempo: float = DEFAULT_TEMPO) -> Song:
        """tokens (T, 1) -> Song with one drum kit, padded to whole bars. Raises ValueError for tokens out of range."""
        tokens = checked_tokens(tokens, self.vocab_sizes)
        return _song([self._notes(tokens[:, 0])], [_DRUMS], len(tokens), tempo)

    def augment(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """tokens (B, T, 1) -> the same, but in half of the windows some parts of the kit (kick, snare, toms, cymbals)
        play what they play in another window of the batch: one drummer's hi-hat over another's kick is a beat still."""
        rows, parts = len(tokens), np.array(_KIT_PARTS)
        taken = (rng.integers(0, 2, (rows, len(parts))) * parts).sum(-1) * rng.integers(0, 2, rows)
        taken = taken.astype(tokens.dtype)[:, None, None]
        return (tokens & ~taken) | (tokens[rng.permutation(rows)] & taken)

    def _stream(self, song: Song, instrument: int | None = None) -> np.ndarray:
        notes = drum_notes(song) if instrument is None else _of_instrument(song, instrument)
        onsets = self.onsets(notes._replace(instrument=np.zeros_like(notes.instrument)))
        stream = np.zeros(song.steps, np.int64)
        stream[onsets.step] = onsets.token
        return stream

    def _notes(self, stream: np.ndarray) -> tuple[np.ndarray, ...]:
        step, drum = np.nonzero(stream[:, None] >> np.arange(len(DRUM_CLASSES)) & 1)
        pitch = np.array([pitches[0] for pitches in DRUM_MAPS[self.drum_map]])[drum]
        return step, pitch, step + 1


@dataclass(frozen=True)
class Trio:
    """Melody, bass and drums of one song: programs 0-31, programs 32-39, and every drum kit."""

    drum_map: str = "current"
    name: str = "trio"
    melody: Melody = Melody()  # how melody and bass are written

    @property
    def melodic(self) -> tuple[bool, ...]:
        """Of each stream: whether its tokens are notes and note-offs, not sets of drums."""
        return (True, True, False)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        return (*self.melody.vocab_sizes, *self.melody.vocab_sizes, *Drums(self.drum_map).vocab_sizes)

    def to_tokens(self, song: Song, instrument: int | None = None, bass: int | None = None) -> np.ndarray:
        """Song -> tokens (song.steps, 3). `instrument` is the melody's index, `bass` the bass's; by default what
        `choose_melody` says, and the bass with most onsets. A part that the song has not is silent; raises NoPart if it
        has none of the three."""
        lead, low = self.choose(song, instrument, bass)
        streams = [
            _melody_stream(self.melody, song, lead),
            _melody_stream(self.melody, song, low),
            Drums(self.drum_map)._stream(song),
        ]
        return np.stack(streams, axis=1)

    def to_song(self, tokens: np.ndarray, tempo: float = DEFAULT_TEMPO) -> Song:
        """tokens (T, 3) -> Song with three instruments, padded to whole bars. Raises ValueError if out of range."""
        tokens = checked_tokens(tokens, self.vocab_sizes)
        parts = [
            _melody_notes(tokens[:, 0], self.melody.lowest),
            _melody_notes(tokens[:, 1], self.melody.lowest),
            Drums(self.drum_map)._notes(tokens[:, 2]),
        ]
        return _song(parts, [_MELODY, _BASS, _DRUMS], len(tokens), tempo)

    def choose(
        self, song: Song, instrument: int | None = None, bass: int | None = None
    ) -> tuple[int | None, int | None]:
        """The indices of melody and bass that `to_tokens` takes; None for a part that is silent."""
        found = []
        for programs, given, part in ((TRIO_MELODY_PROGRAMS, instrument, "melody"), (TRIO_BASS_PROGRAMS, bass, "bass")):
            try:
                found.append(_choose(song, programs, given, part).instrument)
            except NoPart:
                if given is not None:
                    raise
                found.append(None)
        if found == [None, None] and len(song.notes.start) and not any(i.is_drum for i in song.instruments):
            raise NoPart("no melody (programs 1-32), no bass (programs 33-40) and no drums (channel 10)")
        return found[0], found[1]

    def transpose(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """tokens (B, T, 3) -> the same, melody and bass of an example shifted by one random interval within range."""
        return _transposed(tokens, (0, 1), self.vocab_sizes[0], rng)

    def augment(self, tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """tokens (B, T, 3) -> the same, transposed, the drums mixed as those of drums are."""
        moved, drums = self.transpose(tokens, rng), Drums(self.drum_map).augment(tokens[..., 2:], rng)
        return np.concatenate([moved[..., :2], drums], axis=-1)


Representation = Melody | Drums | Trio
NAMES = ("melody", "melody-90", "drums", "trio", "trio-90")
MELODY_90 = Melody("melody-90", lowest=21, highest=108)  # the original's: 0, 1, then pitches 21-108


def representation(name: str, drum_map: str = "current") -> Representation:
    """A representation by name. Raises ValueError that lists the known ones."""
    if name == "melody":
        return Melody()
    if name == "melody-90":
        return MELODY_90
    if name == "drums":
        return Drums(drum_map)
    if name == "trio":
        return Trio(drum_map)
    if name == "trio-90":
        return Trio(drum_map, name, MELODY_90)
    raise ValueError(f"no representation {name!r}; known are {', '.join(NAMES)}")


def checked_tokens(tokens: np.ndarray, vocab_sizes: tuple[int, ...]) -> np.ndarray:
    """tokens (T, streams) as int64. Raises ValueError for another shape, no integers, or tokens out of range."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.shape[1] != len(vocab_sizes) or not len(tokens):
        raise ValueError(f"tokens of shape {tokens.shape}; expected (steps, {len(vocab_sizes)})")
    if not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"tokens of type {tokens.dtype}; expected integers")
    tokens = tokens.astype(np.int64)
    if tokens.min() < 0 or (tokens >= vocab_sizes).any():
        raise ValueError(
            f"tokens from {tokens.min()} to {tokens.max(axis=0)}; allowed are 0 to {[v - 1 for v in vocab_sizes]}"
        )
    return tokens


def drum_notes(song: Song) -> Notes:
    """The notes of all drum kits of a song."""
    is_drum = np.array([i.is_drum for i in song.instruments], bool)
    mine = is_drum[song.notes.instrument]
    return Notes(*(column[mine] for column in song.notes))


# --- the parts that the three share ------------------------------------------------------------------------------

_MELODY = Instrument("melody", MELODY_PROGRAM, False)
_BASS = Instrument("bass", BASS_PROGRAM, False)
_DRUMS = Instrument("drums", 0, True)


def _class_bits(drum_map: str) -> np.ndarray:
    """(128,) pitch -> the bit of its class, 0 if it has none."""
    bits = np.zeros(128, np.int64)
    for i, pitches in enumerate(DRUM_MAPS[drum_map]):
        bits[list(pitches)] = 1 << i
    return bits


def _of_instrument(song: Song, index: int) -> Notes:
    low, high = np.searchsorted(song.notes.instrument, [index, index + 1])
    return Notes(*(column[low:high] for column in song.notes))


def _choose(song: Song, programs: range, instrument: int | None, part: str) -> Choice:
    """The instrument asked for, or by default the melody, or the bass with most onsets; None if the song is silent."""
    fits = [i for i, p in enumerate(song.instruments) if p.is_drum == (part == "drums") and p.program in programs]
    if instrument is not None:
        if instrument not in fits:
            known = ", ".join(f'{i + 1} "{song.instruments[i].name}"' for i in fits[:8]) or "none"
            raise NoPart(f"track {instrument + 1} cannot be the {part}; tracks that can: {known}")
        return Choice(instrument, "asked for")
    onsets = np.bincount(Melody().onsets(song.notes).voice, minlength=len(song.instruments))
    playing = [i for i in fits if onsets[i]]
    if not playing and len(song.notes.start):
        raise NoPart(f"no {part} (it has {len(song.instruments)} tracks, none of which can be one)")
    if part == "melody":
        return choose_melody(song, playing)
    return Choice(max(playing, key=lambda i: (onsets[i], -i), default=None), "most notes")


def _melody_stream(melody: Melody, song: Song, index: int | None) -> np.ndarray:
    stream = np.zeros(song.steps, np.int64)
    if index is None:
        return stream
    onsets = melody.onsets(_of_instrument(song, index))
    cuts = [p.end for p in song.pieces]  # a note that sounds at the end of a piece is cut there, without an off
    stream[onsets.end[~np.isin(onsets.end, cuts)]] = NOTE_OFF
    stream[onsets.step] = onsets.token
    return stream


def _melody_notes(stream: np.ndarray, lowest: int) -> tuple[np.ndarray, ...]:
    event = np.flatnonzero(stream)
    until = np.append(event[1:], len(stream))
    begins = stream[event] >= FIRST_PITCH
    return event[begins], stream[event[begins]] - FIRST_PITCH + lowest, until[begins]


def _song(parts: list[tuple[np.ndarray, ...]], players: list[Instrument], steps: int, tempo: float) -> Song:
    start, pitch, end = (np.concatenate([part[i] for part in parts]) for i in range(3))
    instrument = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    total = -(-steps // STEPS_PER_BAR) * STEPS_PER_BAR
    notes = sorted_notes(instrument, start, pitch, end, VELOCITY)
    return Song(notes, tuple(players), (Piece(0, total, 1),), ((0, checked_tempo(tempo)),))


def _transposed(tokens: np.ndarray, streams: tuple[int, ...], vocab: int, rng: np.random.Generator) -> np.ndarray:
    pitched = tokens[..., list(streams)].astype(np.int64)
    is_note = pitched >= FIRST_PITCH
    lowest = np.where(is_note, pitched, vocab).min(axis=(1, 2))
    highest = np.where(is_note, pitched, 0).max(axis=(1, 2))
    down = np.maximum(TRANSPOSITIONS[0], FIRST_PITCH - lowest)  # a shift of 0 always stays in range
    up = np.minimum(TRANSPOSITIONS[1], vocab - 1 - highest)
    shift = down + np.floor(rng.random(len(tokens)) * (up - down + 1)).astype(np.int64)
    result = np.array(tokens)
    result[..., list(streams)] = np.where(is_note, pitched + shift[:, None, None], pitched)
    return result
