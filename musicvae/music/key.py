"""The key of a melody, by the profiles of Krumhansl and Kessler (1982) and the algorithm of Krumhansl and Schmuckler.

N melodies   T steps. A key is an index: 0-11 C major to B major, 12-23 C minor to B minor.
"""

import numpy as np

from musicvae.music.representation import FIRST_PITCH

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MAJOR_PROFILE = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR_PROFILE = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
MAJOR_SCALE, MINOR_SCALE = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)  # semitones above the tonic; natural minor
NO_KEY = -1


def find_keys(weights: np.ndarray) -> np.ndarray:
    """weights (N, 12), how long each pitch class sounds, C first -> keys (N,).

    The key is that whose profile correlates best with the weights; of equals the first. NO_KEY where all weights are
    equal, as in silence.
    """
    spread = weights - weights.mean(axis=1, keepdims=True)
    likeness = spread @ _PROFILES.T  # the correlation, but for a factor that all keys share
    return np.where(np.ptp(weights, axis=1) > 0, likeness.argmax(axis=1), NO_KEY)


def pitch_class_steps(melodies: np.ndarray, lowest: int = 0) -> np.ndarray:
    """melodies (N, T) of tokens -> steps for which each pitch class sounds (N, 12), C first.

    `lowest` is the MIDI pitch of the first token that begins a note.
    """
    melodies = np.asarray(melodies, np.int64)
    last_event = np.maximum.accumulate(np.where(melodies > 0, np.arange(melodies.shape[1]), 0), axis=1)
    heard = np.take_along_axis(melodies, last_event, axis=1)
    window, step = np.nonzero(heard >= FIRST_PITCH)
    pitch_class = (heard[window, step] - FIRST_PITCH + lowest) % 12
    return np.bincount(12 * window + pitch_class, minlength=12 * len(melodies)).reshape(-1, 12)


def key_name(key: int) -> str:
    """Such as "C major", "A minor"; "no key"."""
    return "no key" if key == NO_KEY else f"{NOTES[key % 12]} {'major' if key < 12 else 'minor'}"


def _all_keys(major: tuple, minor: tuple) -> np.ndarray:
    """Two rows for C (12,) -> a row for each key (24, 12)."""
    return np.array([np.roll(row, tonic) for row in (major, minor) for tonic in range(12)])


def _standardised(profile: tuple[float, ...]) -> tuple[float, ...]:
    centred = np.array(profile) - np.mean(profile)
    return tuple(centred / np.linalg.norm(centred))


_PROFILES = _all_keys(_standardised(MAJOR_PROFILE), _standardised(MINOR_PROFILE))  # (24, 12)
IN_KEY = _all_keys(*(tuple(i in scale for i in range(12)) for scale in (MAJOR_SCALE, MINOR_SCALE)))
"""(24, 12) whether a pitch class belongs to the scale of a key."""
