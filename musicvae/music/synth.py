"""Song -> samples, with NumPy alone: plucked notes, a bass, and nine drums that one can tell apart.

A note is a sum of harmonics that die away, the higher the sooner; a drum is a falling tone, coloured noise, or both.
Shapes: n samples at `RATE`; stereo is (2, n), float32, full scale 1.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from musicvae.music.midi import STEPS_PER_QUARTER, Song
from musicvae.music.representation import DRUM_CLASSES, DRUM_MAPS, TRIO_BASS_PROGRAMS, VELOCITY

RATE = 44_100
ATTACK, RELEASE = 0.003, 0.06  # seconds; ramps so gentle that no note begins or ends with a click
HIGHEST_HARMONIC = 16_000.0  # Hz; harmonics above are left out, so that none folds back
CHOKE = 0.01  # seconds in which a closed hi-hat silences an open one


class Pluck(NamedTuple):
    """A string: strength of each harmonic, what all lose a second (nepers), and what each loses more than the last."""

    gain: float
    harmonics: tuple[float, ...]
    decay: float
    damping: float


class Skin(NamedTuple):
    """A drum skin: its frequency at the stroke and where it settles (Hz), its decay (nepers a second), its strength."""

    start: float
    end: float
    decay: float
    strength: float = 1.0


class Hiss(NamedTuple):
    """Noise between two frequencies (Hz), its decay and strength, and how loud `_METAL` rings in it."""

    low: float
    high: float
    decay: float
    strength: float = 1.0
    metal: float = 0.0


class Drum(NamedTuple):
    """One stroke: how loud at most, where between left (-1) and right (1), and what sounds."""

    gain: float
    pan: float
    skin: Skin | None
    hiss: Hiss | None


LEAD = Pluck(0.28, (1.0, 0.42, 0.26, 0.13, 0.09, 0.05, 0.03, 0.02), 0.4, 0.8)
BASS = Pluck(0.36, (1.0, 0.62, 0.34, 0.20, 0.12, 0.08, 0.05, 0.03), 0.6, 0.6)
_METAL = (3_140.0, 4_310.0, 5_460.0, 6_790.0, 8_170.0, 9_420.0)  # Hz; no two in a simple ratio: metal has no pitch
_STICK = Hiss(200, 2_000, 50, 0.06)
DRUMS = {
    "kick": Drum(0.55, 0.0, Skin(130, 46, 11), None),
    "snare": Drum(0.50, 0.05, Skin(250, 180, 24, 0.45), Hiss(900, 7_000, 20)),
    "closed hi-hat": Drum(0.24, 0.3, None, Hiss(7_500, 16_000, 70)),
    "open hi-hat": Drum(0.20, 0.3, None, Hiss(6_500, 15_000, 7.5)),
    "low tom": Drum(0.42, -0.45, Skin(135, 88, 8), _STICK),
    "mid tom": Drum(0.40, -0.1, Skin(200, 132, 9), _STICK),
    "high tom": Drum(0.38, 0.35, Skin(290, 195, 10), _STICK),
    "crash": Drum(0.26, -0.35, None, Hiss(2_500, 14_000, 3.2)),
    "ride": Drum(0.16, 0.5, None, Hiss(5_000, 12_000, 5.5, 0.35, metal=0.8)),
}


def seconds_at(song: Song, steps: np.ndarray) -> np.ndarray:
    """steps -> seconds from the beginning, through the song's changes of tempo."""
    at = np.array([step for step, _ in song.tempos], float)
    length = 60 / STEPS_PER_QUARTER / np.array([tempo for _, tempo in song.tempos])  # of a step under each tempo
    begins = np.concatenate([[0.0], np.cumsum(np.diff(at) * length[:-1])])
    which = np.maximum(np.searchsorted(at, steps, side="right") - 1, 0)
    return begins[which] + (np.asarray(steps, float) - at[which]) * length[which]


def render(song: Song, tail: float, drum_map: str = "current") -> np.ndarray:
    """The song, and `tail` seconds in which its last notes may ring -> (2, n), beyond full scale where much sounds."""
    total = round((float(seconds_at(song, np.array(song.steps))) + tail) * RATE)
    out = np.zeros((2, total), np.float32)
    notes = song.notes
    start = np.rint(seconds_at(song, notes.start) * RATE).astype(int)
    held = np.maximum(np.rint(seconds_at(song, notes.end) * RATE).astype(int) - start, 1)
    loudness = (notes.velocity / VELOCITY).astype(np.float32)
    for i, player in enumerate(song.instruments):
        mine = notes.instrument == i
        columns = start[mine], notes.pitch[mine], held[mine], loudness[mine]
        if player.is_drum:
            _drums(out, columns[0], columns[1], columns[3], drum_map)
        else:
            _plucks(out, *columns, BASS if player.program in TRIO_BASS_PROGRAMS else LEAD)
    fade = min(round(tail * RATE / 4), total)  # whatever still rings ends in silence
    out[:, total - fade :] *= _falling(fade)
    return out


def _plucks(out: np.ndarray, start: np.ndarray, pitch: np.ndarray, held: np.ndarray, loudness: np.ndarray,
            pluck: Pluck) -> None:  # fmt: skip
    """Adds notes; start and held in samples."""
    release = _falling(round(RELEASE * RATE))
    for p in np.unique(pitch).tolist():
        these = np.flatnonzero(pitch == p)
        string = _string(pluck, p, int(held[these].max()) + len(release))  # each note is a beginning of the longest
        pan = np.clip((p - 62) / 80, -0.4, 0.4) if pluck is LEAD else 0.0
        for k in these.tolist():
            tone = string[: held[k] + len(release)] * loudness[k]
            tone[-len(release) :] *= release
            _add(out, int(start[k]), tone, float(pan))


def _drums(out: np.ndarray, start: np.ndarray, pitch: np.ndarray, loudness: np.ndarray, drum_map: str) -> None:
    """Adds strokes; a closed hi-hat silences the open one before it."""
    kinds = {p: DRUM_CLASSES[i] for i, pitches in enumerate(DRUM_MAPS[drum_map]) for p in pitches}
    closed = np.unique(start[[kinds.get(p) == "closed hi-hat" for p in pitch.tolist()]])
    for at, p, loud in zip(start.tolist(), pitch.tolist(), loudness.tolist()):
        if p not in kinds:
            continue
        sound = drum_sound(kinds[p]) * loud
        if kinds[p] == "open hi-hat":
            later = closed[np.searchsorted(closed, at, side="right") :]
            sound = _choked(sound, int(later[0]) - at) if len(later) else sound
        _add(out, at, sound, DRUMS[kinds[p]].pan)


def _string(pluck: Pluck, pitch: int, length: int) -> np.ndarray:
    """(length,): harmonic h is strength_h * exp(-(decay + h * damping) t) * sin(h w t), all by Horner's rule."""
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    strengths = [a for h, a in enumerate(pluck.harmonics, 1) if h == 1 or h * frequency < HIGHEST_HARMONIC]
    once = _powers(complex(-pluck.damping, 2 * np.pi * frequency) / RATE, length)
    total = np.full(length, strengths[-1], np.complex64)
    for strength in reversed(strengths[:-1]):
        total *= once
        total += strength
    total *= once
    total *= _powers(complex(-pluck.decay) / RATE, length)
    tone = total.imag * np.float32(pluck.gain / sum(strengths) ** 0.5)
    ramp = min(round(ATTACK * RATE), length)
    tone[:ramp] *= _falling(ramp)[::-1]
    return tone


def _powers(exponent: complex, length: int) -> np.ndarray:
    """exp(exponent * k) for k = 0 ... length - 1, with two short rows of exponentials instead of a long one."""
    block = 512
    rows = np.exp(exponent * block * np.arange(-(-length // block))).astype(np.complex64)
    return np.outer(rows, np.exp(exponent * np.arange(block)).astype(np.complex64)).ravel()[:length]


@cache
def drum_sound(name: str) -> np.ndarray:
    """One stroke of a drum class at full velocity, until it is 60 dB down: (n,) float32, the same at every call."""
    drum = DRUMS[name]
    slowest = min(part.decay for part in (drum.skin, drum.hiss) if part)
    t = np.arange(round(np.log(1000) / slowest * RATE)) / RATE
    sound = np.zeros(len(t))
    if skin := drum.skin:
        turns = skin.end * t + (skin.start - skin.end) * (1 - np.exp(-30 * t)) / 30  # it slackens in 1/30 s
        sound += skin.strength * np.exp(-skin.decay * t) * np.sin(2 * np.pi * turns)
    if hiss := drum.hiss:
        rng = np.random.default_rng(DRUM_CLASSES.index(name))
        ring = hiss.strength * _coloured(rng.standard_normal(len(t)), hiss.low, hiss.high)
        for frequency in _METAL if hiss.metal else ():
            ring += hiss.metal / len(_METAL) ** 0.5 * np.sin(2 * np.pi * (frequency * t + rng.random()))
        sound += ring * np.exp(-hiss.decay * t)
    sound *= drum.gain / np.abs(sound).max()
    ramp = round(0.0005 * RATE)
    sound[:ramp] *= _falling(ramp)[::-1]
    sound[-10 * ramp :] *= _falling(10 * ramp)
    sound.flags.writeable = False
    return sound.astype(np.float32)


def _coloured(noise: np.ndarray, low: float, high: float) -> np.ndarray:
    """Noise kept between two frequencies (Hz), with slopes of 24 dB an octave, at a deviation of 1/3."""
    spectrum = np.fft.rfft(noise)
    f = np.maximum(np.fft.rfftfreq(len(noise), 1 / RATE), 1e-9)
    spectrum *= 1 / np.sqrt((1 + (low / f) ** 8) * (1 + (f / high) ** 8))
    noise = np.fft.irfft(spectrum, len(noise))
    return noise / (3 * noise.std())


def _choked(sound: np.ndarray, after: int) -> np.ndarray:
    fade = _falling(round(CHOKE * RATE))
    sound = sound[: after + len(fade)].copy()
    if len(sound) == after + len(fade):
        sound[after:] *= fade
    return sound


def _falling(length: int) -> np.ndarray:
    """Half a cosine from 1 down to 0."""
    return (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, length))).astype(np.float32)


def _add(out: np.ndarray, at: int, sound: np.ndarray, pan: float) -> None:
    """Adds a mono sound at a sample, as far as `out` reaches, no louder on one side than in the middle on both."""
    angle = (pan + 1) * np.pi / 4
    room = out[:, at : at + len(sound)]
    room[0] += sound[: room.shape[1]] * np.float32(2**0.5 * np.cos(angle))
    room[1] += sound[: room.shape[1]] * np.float32(2**0.5 * np.sin(angle))
