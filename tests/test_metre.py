"""Time signatures: what is in 4/4 is kept and begins a bar, and all else is dropped by name."""

import pytest
import smf
from hearing import BAR, C_D_E, TUNE, heard
from smf import file, notes, off, on, track

from musicvae.music.metre import MAX_BARS, MAX_STEPS
from musicvae.music.midi import MidiError, Piece, Song


def test_a_repeated_signature_on_a_bar_line_cuts_nothing():
    again = [(0, smf.signature(4)), (BAR, smf.signature(4)), (BAR + 1, smf.signature(2, 1))]
    song = Song.read(file(track(*again, end=2 * BAR), track(*notes((14, 60, 8)))))
    assert song.pieces == (Piece(0, 32, 1),) and song.dropped == ()
    assert heard(song) == [(14, 60, 22)]


def test_what_is_not_4_4_is_dropped_by_name():
    metres = track((0, smf.signature(4)), (16 * BAR, smf.signature(3)), end=17 * BAR)
    song = Song.read(file(metres, track(*notes((0, 60, 4), (255, 61, 9), (256, 62, 4)))))
    assert song.dropped == ("3/4 from bar 17",)
    assert song.pieces == (Piece(0, 256, 1),)
    assert heard(song) == [(0, 60, 4), (255, 61, 256)]  # cut where the metre ends; and no D


def test_pieces_lie_one_after_another():
    metres = [(0, smf.signature(4)), (2 * BAR, smf.signature(6, 3)), (2 * BAR + 1440, smf.signature(4))]
    melody = notes((0, 60, 1), (32, 61, 1), (44, 62, 1), (45, 63, 1))  # the 6/8 bar is steps 32 to 43
    song = Song.read(file(track(*metres), track(*melody)))
    assert song.pieces == (Piece(0, 32, 1), Piece(32, 48, 4))
    assert song.dropped == ("6/8 from bar 3",)
    assert heard(song) == [(0, 60, 1), (32, 62, 33), (33, 63, 34)]


def test_a_signature_in_the_middle_of_a_bar_begins_a_bar():
    metres = [(960, smf.signature(3)), (960 + 1440, smf.signature(4))]
    song = Song.read(file(track(*metres), track(*notes((0, 60, 1), (20, 62, 16)))))
    assert song.pieces == (Piece(0, 16, 1), Piece(16, 32, 3))  # half a bar, padded; then the bar after the 3/4
    assert heard(song) == [(0, 60, 1), (16, 62, 32)]


def test_an_onset_just_before_a_metre_belongs_to_it():
    metres = track((BAR, smf.signature(3)), (BAR + 1440, smf.signature(4)), end=4 * BAR)
    early = [(BAR + 1440 - 60, on(72)), (BAR + 1500, off(72)), (BAR + 1440 - 61, on(40)), (BAR + 1500, off(40))]
    assert heard(Song.read(file(metres, track(*notes((0, 60, 1)), *early)))) == [(0, 60, 1), (16, 72, 17)]


@pytest.mark.parametrize("numerator, power", [(1, 0), (2, 1), (4, 2), (8, 3), (16, 4)])
def test_bars_of_four_quarters_are_in_4_4(numerator, power):
    assert heard(Song.read(file(track((0, smf.signature(numerator, power)), *TUNE)))) == C_D_E


@pytest.mark.parametrize("again", [smf.signature(4), smf.signature(2, 1)])
def test_a_repeated_signature_after_a_pickup_begins_a_bar(again):
    song = Song.read(file(track((0, smf.signature(4)), (480, again)), track(*notes((0, 60, 4), (4, 62, 4)))))
    assert song.pieces == (Piece(0, 16, 1), Piece(16, 32, 2)) and song.dropped == ()
    assert heard(song) == [(0, 60, 4), (16, 62, 20)]


def test_the_last_of_two_signatures_at_one_time_counts():
    assert heard(Song.read(file(track((0, smf.signature(3)), (0, smf.signature(4)), *TUNE)))) == C_D_E


@pytest.mark.parametrize("power, numerator, name", [(1, 3, "3/2"), (3, 6, "6/8"), (2, 3, "3/4")])
def test_a_song_without_4_4_says_what_it_has(power, numerator, name):
    with pytest.raises(
        MidiError, match=f"no notes in 4/4, which is all that is understood .{name} from bar 1"
    ) as error:
        Song.read(file(track((0, smf.signature(numerator, power)), *TUNE)))
    assert error.value.reason == "no-4/4"


def test_the_tempo_of_a_dropped_metre_holds_afterwards():
    changes = [(0, smf.signature(3)), (0, smf.tempo(50)), (480, smf.tempo(70)), (1440, smf.signature(4))]
    song = Song.read(file(track(*changes), track(*notes((12, 60, 4)))))
    assert song.tempos == ((0, pytest.approx(70, abs=1e-4)),)


def test_bars_never_outnumber_the_steps_that_a_song_may_have():
    """A sixteenth of 4/4, a sixteenth of 1/16, and so on: each of the first is padded to a bar."""
    changes = [(tick, smf.signature(4) if tick % 2 else smf.signature(1, 4)) for tick in range(MAX_BARS - 1)]
    beats = [event for tick in range(0, 25_000, 5) for event in ((tick, on(60)), (tick + 1, off(60)))]
    for ticks in (4, 1):
        song = Song.read(file(track(*changes), track(*beats), division=ticks))
        assert song.steps <= MAX_STEPS and song.notes.start.max() < song.steps
        assert song.notes.end.max() <= song.steps
