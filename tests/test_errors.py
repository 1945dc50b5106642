"""Kinds of errors, each on a few notes that can be counted by hand."""

import math

import numpy as np
import pytest

from musicvae.evaluation.errors import ERRORS, measure_errors

OFF = 1
C4, D4, E4, F4, FSHARP4, G4, C5 = (2 + pitch for pitch in (60, 62, 64, 65, 66, 67, 72))
SCALE = (C4, D4, E4, F4, G4, C4, E4, G4)  # makes the key of a window C major
KICK, SNARE = 1, 2


def window(*tokens: int, steps: int = 32) -> np.ndarray:
    return np.array([*tokens, *[0] * (steps - len(tokens))])


def in_c(*tokens: int) -> np.ndarray:
    """The tokens, and after them a bar in C major that settles the key."""
    return np.concatenate([window(*tokens, steps=24), SCALE])


def kinds(written: np.ndarray, truth: np.ndarray, kind: str = "melody") -> dict[str, float]:
    """How many wrong steps there are of each kind, those of which there are any."""
    (stream,) = measure_errors(written[None, :, None], truth[None, :, None], np.zeros(1), (kind,))
    assert stream.wrong == (written != truth).sum() and stream.steps == len(truth)
    assert list(stream.kinds) == list(ERRORS[kind])
    counts = {name: round(share.value * stream.wrong) for name, share in stream.kinds.items() if share.value}
    assert sum(counts.values()) == stream.wrong
    return counts


@pytest.mark.parametrize(
    ("truth", "written", "wrong"),
    [
        pytest.param((C4, 0, OFF), (C4, 0, 0, 0, OFF), {"length": 2}, id="held two steps longer"),
        pytest.param((C4, 0, OFF, 0, D4), (C4, 0, 0, 0, D4), {"length": 1}, id="held until the next note"),
        pytest.param((C4, 0, 0, 0, D4), (C4, OFF, 0, 0, D4), {"length": 1}, id="cut before the next note"),
        pytest.param((C4, 0, OFF), (C4, 0, 0, 0, 0, 0, OFF), {"length": 2}, id="a beat longer"),
        pytest.param((C4, 0, OFF), (C4, 0, 0, 0, 0, 0, 0, OFF), {"other": 2}, id="a step more than a beat longer"),
        pytest.param((C4, 0, 0, OFF), (0, C4, 0, OFF), {"length": 2}, id="begun a step late"),
        pytest.param((0, C4, 0, OFF), (C4, 0, OFF, 0), {"length": 4}, id="both ends a step early"),
        pytest.param((C4, OFF), (0, 0, C4, OFF), {"missed": 1, "other": 1, "added": 2}, id="never together"),
        pytest.param((C4, 0, 0, 0, C4, 0, OFF), (C4, 0, 0, 0, 0, 0, OFF), {"missed": 1}, id="a repeat tied over"),
        pytest.param((C4, 0, C4), (C4, OFF, C4), {"length": 1}, id="an off between repeats"),
    ],
)
def test_a_note_shortened_or_lengthened(truth, written, wrong):
    assert kinds(in_c(*written), in_c(*truth)) == wrong


def test_another_octave_but_not_another_pitch():
    assert kinds(in_c(C5, 0, E4), in_c(C4, 0, E4)) == {"octave": 1}
    assert kinds(in_c(C4, 0, C5 + 12), in_c(C4, 0, C4)) == {"octave": 1}
    assert kinds(in_c(D4, 0, E4), in_c(C4, 0, E4)) == {"pitch": 1}


def test_an_added_note_in_the_key_with_its_off():
    assert kinds(in_c(C4, 0, G4, OFF), in_c(C4)) == {"added": 2}
    assert kinds(in_c(C4, 0, FSHARP4, OFF), in_c(C4)) == {"other": 2}  # not in C major
    assert kinds(in_c(C4, 0, G4, OFF), in_c(C4, 0, 0, OFF)) == {"added": 1}  # the off is right
    assert kinds(in_c(C4, 0, G4), in_c(C4, 0, OFF)) == {"added": 1}  # instead of an off


def test_a_silent_window_has_no_key_to_add_to():
    assert kinds(window(C4, 0, G4), window()) == {"other": 2}


def test_the_key_follows_the_window_and_the_lowest_pitch():
    up = np.concatenate([window(C4 + 2, steps=24), np.array(SCALE) + 2])  # D major
    added = up.copy()
    added[2] = FSHARP4
    assert kinds(added, up) == {"added": 1}
    original = np.where(up >= 2, up - 21, up)  # the same melody in tokens that begin with MIDI pitch 21
    extra = np.where(added >= 2, added - 21, added)
    right, wrong = (
        measure_errors(extra[None, :, None], original[None, :, None], np.zeros(1), ("melody",), lowest=lowest)
        for lowest in (21, 20)
    )
    assert right[0].kinds["added"].value == wrong[0].kinds["added"].value == 1  # a key knows no absolute pitch


def test_the_key_of_a_trio_is_that_of_melody_and_bass_together():
    trio = ("melody", "melody", "drums")
    truth = np.stack([window(E4, OFF), np.tile(SCALE, 4), window(KICK)], -1)[None]  # the bass in C major
    written = truth.copy()
    written[0, 4, 0] = FSHARP4  # in the key of the melody's only note, but not in that of both
    written[0, [6, 8, 10], 0] = F4
    written[0, 1, 2] = KICK
    errors = measure_errors(written, truth, np.zeros(1), trio)
    assert [stream.name for stream in errors] == ["melody", "bass", "drums"]
    assert {kind: share.value for kind, share in errors[0].kinds.items() if share.value} == {
        "added": 3 / 4,
        "other": 1 / 4,
    }
    assert errors[1].wrong == 0 and all(math.isnan(share.value) for share in errors[1].kinds.values())
    assert errors[2].kinds["added"].value == 1


def test_drums_lack_hits_or_have_too_many():
    truth, written = window(KICK + SNARE, KICK, KICK, 0), window(KICK, KICK + SNARE, SNARE, 0, SNARE)
    assert kinds(written, truth, "drums") == {"missed": 1, "added": 2, "other": 1}


def test_shares_are_over_all_windows_with_an_interval_over_groups():
    truth = np.stack([in_c(C4, 0, E4)] * 4)[..., None]
    written = truth.copy()
    written[0, 0] = written[1, 0] = written[1, 2] = C5  # octave; octave and other
    (stream,) = measure_errors(written, truth, np.arange(4), ("melody",))
    octave = stream.kinds["octave"]
    assert stream.wrong == 3 and octave.value == pytest.approx(2 / 3)
    assert octave.low is not None and octave.low < octave.value < octave.high


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        measure_errors(window()[None, :, None], window(steps=16)[None, :, None], np.zeros(1), ("melody",))
