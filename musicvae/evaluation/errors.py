"""What is wrong with a wrong step (section 5.3): errors that a musician forgives, and others.

A step is wrong if its token is not the true one. In a melody (or bass) it is of the first of these kinds that fits:

* octave: both tokens begin a note, some octaves apart.
* length: here a note begins or ends in one of the two and not in the other, which is else the same note: of the same
  pitch, sounding together with it somewhere, its beginning and its end at most a beat (4 steps) from the other's. The
  other token begins no note of its own. If the beginnings differ, neither has a twin that begins where it does.
* added: a note of the key begins where none should, or an off ends such a note where nothing should happen. The key is
  that of the true window, all its pitched streams together; a silent window has none.
* missed: a note should begin and none does.
* pitch: both tokens begin a note, and it is another one.
* other: an added note outside the key, an off.

In drums: missed, hits are lacking; added, there are too many; other, both at once.

N windows   T steps a window   F kinds
"""

from dataclasses import dataclass

import numpy as np

from musicvae.evaluation.estimates import estimate_ratios
from musicvae.evaluation.reconstruction import Estimate
from musicvae.evaluation.streams import checked_windows, stream_names
from musicvae.music.key import IN_KEY, NO_KEY, find_keys, pitch_class_steps
from musicvae.music.representation import FIRST_PITCH, NOTE_OFF, NOTHING

ERRORS = {"melody": ("octave", "length", "added", "missed", "pitch", "other"), "drums": ("missed", "added", "other")}
BEAT = 4  # steps


@dataclass(frozen=True)
class StreamErrors:
    name: str
    wrong: int
    steps: int
    kinds: dict[str, Estimate]  # share of the wrong steps, nan if there are none


def measure_errors(
    written: np.ndarray, truth: np.ndarray, groups: np.ndarray, kinds: tuple[str, ...], lowest: int = 0, seed: int = 0
) -> tuple[StreamErrors, ...]:
    """Two (N, T, streams), each window of a group (N,) of songs -> the kinds of errors of each stream.

    `lowest` is the MIDI pitch of the first token that begins a note. Raises ValueError for shapes that do not fit.
    """
    written, truth = checked_windows(written, kinds).astype(np.int64), checked_windows(truth, kinds).astype(np.int64)
    if written.shape != truth.shape or groups.shape != truth.shape[:1]:
        raise ValueError(f"written {written.shape}, true {truth.shape} and groups {groups.shape} do not fit each other")
    in_key = _in_key(truth, kinds, lowest)
    result = []
    for i, (name, kind) in enumerate(zip(stream_names(kinds), kinds)):
        ours, true = written[..., i], truth[..., i]
        steps = drum_errors(ours, true) if kind == "drums" else melody_errors(ours, true, in_key)
        counts = np.stack([found.sum(1) for found in steps.values()], axis=1)  # (N, F)
        wrong = counts.sum(1, keepdims=True)
        shares = estimate_ratios(counts, np.broadcast_to(wrong, counts.shape), groups, seed)
        result.append(StreamErrors(name, int(wrong.sum()), ours.size, dict(zip(steps, shares))))
    return tuple(result)


def melody_errors(written: np.ndarray, truth: np.ndarray, in_key: np.ndarray) -> dict[str, np.ndarray]:
    """Two melodies (N, T) -> for each kind, which steps are errors of it (N, T).

    in_key (N, V) says whether a token begins a note of the window's key.
    """
    left, begins, should = written != truth, written >= FIRST_PITCH, truth >= FIRST_PITCH
    extra = begins & ~should & np.take_along_axis(in_key, written, axis=1)
    stops = (written == NOTE_OFF) & (truth == NOTHING) & _ends(written, extra)
    found = {
        "octave": begins & should & ((written - truth) % 12 == 0),
        "length": _lengths(written, truth),
        "added": extra | stops,
        "missed": should & ~begins,
        "pitch": begins & should,
        "other": np.ones_like(left),
    }
    for kind in found:
        found[kind] &= left
        left &= ~found[kind]
    return found


def drum_errors(written: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Two drum streams (N, T) -> for each kind, which steps are errors of it (N, T)."""
    lacking, surplus = (truth & ~written) > 0, (written & ~truth) > 0
    return {"missed": lacking & ~surplus, "added": surplus & ~lacking, "other": lacking & surplus}


def _in_key(truth: np.ndarray, kinds: tuple[str, ...], lowest: int) -> np.ndarray:
    """Windows (N, T, streams) -> (N, V): whether each melody token begins a note of the key of its window."""
    pitched = [truth[..., i] for i, kind in enumerate(kinds) if kind == "melody"]
    if not pitched:
        return np.zeros((len(truth), 0), bool)
    keys = find_keys(np.sum([pitch_class_steps(stream, lowest) for stream in pitched], axis=0))
    tokens = np.arange(FIRST_PITCH + 128)
    of_key = IN_KEY[keys][:, (tokens - FIRST_PITCH + lowest) % 12]
    return of_key & (keys != NO_KEY)[:, None] & (tokens >= FIRST_PITCH)


def _lengths(written: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Two melodies (N, T) -> steps at which a note begins or ends in one, and up to a beat away in the other."""
    found, steps = np.zeros_like(written, bool), written.shape[1]
    our_end, true_end = _note_ends(written), _note_ends(truth)
    for shift in range(-BEAT, BEAT + 1):
        window, start = np.nonzero(truth >= FIRST_PITCH)
        there = (start + shift >= 0) & (start + shift < steps)
        window, start = window[there], start[there]
        begun = start + shift  # in what was written
        ends = our_end[window, begun], true_end[window, start]
        same = written[window, begun] == truth[window, start]
        same &= (np.abs(ends[0] - ends[1]) <= BEAT) & (np.maximum(start, begun) < np.minimum(*ends))
        if shift:  # neither has a twin in its own place
            same &= (written[window, start] != truth[window, start]) & (written[window, begun] != truth[window, begun])
        window, start, begun, ends = window[same], start[same], begun[same], (ends[0][same], ends[1][same])
        if shift:
            found[window, start] |= written[window, start] < FIRST_PITCH
            found[window, begun] |= truth[window, begun] < FIRST_PITCH
        for tokens, others, end in ((written, truth, ends[0]), (truth, written, ends[1])):
            row, end = window[end < steps], end[end < steps]
            found[row, end] |= (tokens[row, end] == NOTE_OFF) & (others[row, end] < FIRST_PITCH)
    return found


def _note_ends(stream: np.ndarray) -> np.ndarray:
    """Melodies (N, T) -> for each step the place of the next event after it, T if there is none (N, T)."""
    steps = stream.shape[1]
    event = np.where(stream != NOTHING, np.arange(steps), steps)
    following = np.minimum.accumulate(event[:, ::-1], axis=1)[:, ::-1]
    return np.concatenate([following[:, 1:], np.full((len(stream), 1), steps)], axis=1)


def _ends(stream: np.ndarray, notes: np.ndarray) -> np.ndarray:
    """Melodies (N, T) and some of their onsets (N, T) -> the steps at which the next event after one of these is."""
    found, end = np.zeros_like(notes), _note_ends(stream)
    window, start = np.nonzero(notes)
    inside = end[window, start] < stream.shape[1]
    found[window[inside], end[window, start][inside]] = True
    return found
