"""What can be measured of a window of music (section 5.5): note density, pitch, intervals, syncopation, key; hits.

N windows   T steps a window. Every attribute is one number a window, NaN where it has no meaning (the average pitch of
silence). A trio has those of each of its streams, with a prefix: melody-note-density, bass-average-pitch, drums-kick.
"""

import numpy as np

from musicvae.music.midi import STEPS_PER_BAR
from musicvae.music.representation import DRUM_CLASSES, FIRST_PITCH, Drums, Melody, Representation

C_MAJOR = (0, 2, 4, 5, 7, 9, 11)  # pitch classes
MELODY_UNITS = {
    "note-density": "notes a bar",
    "average-pitch": "MIDI pitch",
    "average-interval": "semitones",
    "pitch-range": "semitones",
    "syncopation-8": "share of notes",
    "syncopation-16": "share of notes",
    "c-major": "share of notes",
}
DRUM_UNITS = {"hits": "hits a bar"} | {name.replace(" ", "-"): "hits a bar" for name in DRUM_CLASSES}


def attribute_units(representation: Representation) -> dict[str, str]:
    """The unit of each attribute that `measure` gives, by name and in its order."""
    if isinstance(representation, Melody):
        return dict(MELODY_UNITS)
    if isinstance(representation, Drums):
        return dict(DRUM_UNITS)
    parts = {"melody": MELODY_UNITS, "bass": MELODY_UNITS, "drums": DRUM_UNITS}
    return {f"{part}-{name}": unit for part, units in parts.items() for name, unit in units.items()}


def measure(tokens: np.ndarray, representation: Representation) -> dict[str, np.ndarray]:
    """tokens (N, T, streams) -> each attribute (N,) by name, in float64. Raises ValueError for another shape."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 3 or tokens.shape[2] != len(representation.vocab_sizes) or not tokens.shape[1]:
        raise ValueError(f"tokens of shape {tokens.shape}; expected (N, T, {len(representation.vocab_sizes)})")
    streams = np.moveaxis(tokens.astype(np.int64), -1, 0)  # each (N, T)
    if isinstance(representation, Melody):
        return _melody(streams[0], representation.lowest)
    if isinstance(representation, Drums):
        return _drums(streams[0])
    parts = {"melody": _melody(streams[0]), "bass": _melody(streams[1]), "drums": _drums(streams[2])}
    return {f"{part}-{name}": values for part, found in parts.items() for name, values in found.items()}


def _melody(stream: np.ndarray, lowest: int = 0) -> dict[str, np.ndarray]:
    begins = stream >= FIRST_PITCH
    notes = begins.sum(1)
    pitch = np.where(begins, stream - FIRST_PITCH + lowest, 0)
    step = np.arange(stream.shape[1])
    before, two_before = _delayed(begins, 1), _delayed(begins, 2)
    # Off the quarters (off the eighths), and nothing just before: the notes that figures 11 and 10 mark.
    off_8 = begins & (step % 4 == 2) & ~before & ~two_before
    off_16 = begins & (step % 2 == 1) & ~before
    highest, least = pitch.max(1), np.where(begins, pitch, np.iinfo(np.int64).max).min(1)
    return {
        "note-density": notes * STEPS_PER_BAR / stream.shape[1],
        "average-pitch": _mean(pitch.sum(1), notes),
        "average-interval": _average_interval(begins, pitch),
        "pitch-range": np.where(notes > 0, highest - least, np.nan),
        "syncopation-8": _mean(off_8.sum(1), notes),
        "syncopation-16": _mean(off_16.sum(1), notes),
        "c-major": _mean((begins & np.isin(pitch % 12, C_MAJOR)).sum(1), notes),
    }


def _drums(stream: np.ndarray) -> dict[str, np.ndarray]:
    bars = stream.shape[1] / STEPS_PER_BAR
    rates = {c.replace(" ", "-"): (stream >> i & 1).sum(1) / bars for i, c in enumerate(DRUM_CLASSES)}
    return {"hits": np.sum(list(rates.values()), axis=0), **rates}


def _average_interval(begins: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Mean semitones from a note to the next, up or down alike (N,); NaN with less than two notes."""
    window, step = np.nonzero(begins)
    heard = pitch[window, step]
    follows = window[1:] == window[:-1]
    size = np.abs(np.diff(heard))[follows]
    total = np.bincount(window[1:][follows], weights=size, minlength=len(begins))
    return _mean(total, np.bincount(window[1:][follows], minlength=len(begins)))


def _delayed(begins: np.ndarray, steps: int) -> np.ndarray:
    late = np.zeros_like(begins)
    late[:, steps:] = begins[:, :-steps]
    return late


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
