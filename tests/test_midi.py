"""MIDI bytes <-> Song: what is read, as another reader says it, and what is written."""

import random
from pathlib import Path

import numpy as np
import oracle
import pytest
import smf
from hearing import C_D_E, TUNE, assert_same, columns, heard
from hypothesis import given, settings
from hypothesis import strategies as st
from smf import file, notes, off, on, track

from musicvae.music.metre import MAX_STEPS
from musicvae.music.midi import Instrument, MidiError, Notes, Piece, Song, join, sorted_notes
from musicvae.music.reasons import MAX_INSTRUMENTS

# --- facts -----------------------------------------------------------------------------------------------------


def test_a_step_is_a_sixteenth():
    song = Song.read(file(track(*TUNE)))
    assert heard(song) == C_D_E
    assert song.bars == 1 and song.tempo == 120 and song.off_grid == 0


@pytest.mark.parametrize("division", [1, 24, 96, 384, 480, 32767])
def test_the_grid_hangs_on_ticks_of_any_size(division):
    quarters = file(track(*notes((0, 60, 4), (4, 62, 4), (8, 64, 8), quarter=division)), division=division)
    assert heard(Song.read(quarters)) == C_D_E


@pytest.mark.parametrize(
    "tick, step", [(0, 0), (59, 0), (60, 1), (61, 1), (179, 1), (180, 2), (16 * 120 - 60, 16)], ids=str
)
def test_onsets_go_to_the_nearest_step_and_halves_up(tick, step):
    song = Song.read(file(track((tick, on(60)), (tick + 120, off(60)))))
    assert song.notes.start.tolist() == [step]
    assert song.off_grid == (abs((tick + 60) % 120 - 60) > 6)  # a twentieth of a step is no more than rounding


@pytest.mark.parametrize("held, end", [(0, 1), (1, 1), (59, 1), (179, 1), (180, 2), (240, 2)])
def test_a_note_lasts_at_least_one_step(held, end):
    assert Song.read(file(track((0, on(60)), (held, off(60))))).notes.end.tolist() == [end]


def test_an_instrument_is_a_track_a_channel_and_a_program():
    one = track((0, smf.name("Duo")), (0, smf.program(5)), (960, smf.program(40)), *notes((0, 60, 4), (8, 62, 4)))
    two = track((0, smf.name("Kit")), *notes((0, 36, 1), channel=9), *notes((0, 50, 1), channel=3))
    song = Song.read(file(one, two))
    assert set(song.instruments) == {
        Instrument("Duo", 5, False),
        Instrument("Duo", 40, False),
        Instrument("Kit", 0, True),
        Instrument("Kit", 0, False),
    }
    assert {(song.instruments[i], p) for i, p in zip(song.notes.instrument, song.notes.pitch)} == {
        (Instrument("Duo", 5, False), 60),
        (Instrument("Duo", 40, False), 62),
        (Instrument("Kit", 0, True), 36),
        (Instrument("Kit", 0, False), 50),
    }


def test_velocity_zero_ends_a_note():
    assert heard(Song.read(file(track((0, on(60)), (240, on(60, 0)))))) == [(0, 60, 2)]


def test_of_two_equal_notes_the_older_ends_first():
    twice = track((0, on(60, 1)), (120, on(60, 2)), (240, off(60)), (480, off(60)))
    assert columns(Song.read(file(twice))) == [(0, 0, 60, 2, 1), (0, 1, 60, 4, 2)]


def test_the_last_bar_is_padded():
    assert Song.read(file(track(*notes((16, 60, 1))))).pieces == (Piece(0, 32, 1),)


def test_a_tempo_never_moves_a_bar_line():
    fast = [(0, smf.tempo(60)), (240, smf.tempo(300)), (1920, smf.tempo(90))]
    song = Song.read(file(track(*fast, end=3840), track(*TUNE)))
    assert heard(song) == C_D_E
    assert song.tempos == ((0, 60.0), (2, 300.0), (16, pytest.approx(90, abs=1e-4)))
    assert [song.tempo_at(s) for s in (0, 1, 2, 15, 16, 99)] == pytest.approx([60, 60, 300, 300, 90, 90], abs=1e-4)


def test_tempos_behind_the_end_of_the_song_are_left_out():
    song = Song.read(file(track((0, smf.tempo(60)), (480 * 400, smf.tempo(200))), track(*TUNE)))
    assert song.tempos == ((0, 60.0),)


# --- the oracle -------------------------------------------------------------------------------------------------------


def assert_as_mido_says(data: bytes | Path) -> None:
    song = Song.read(data)
    expected = oracle.read(data)
    found = sorted((*song.instruments[i], *rest) for i, *rest in columns(song))
    assert found == expected.notes
    assert [(p.end - p.start) // 16 for p in song.pieces] == expected.bars
    assert [p.source_bar for p in song.pieces] == expected.source_bars
    assert [s for s, _ in song.tempos] == [s for s, _ in expected.tempos]
    assert [bpm for _, bpm in song.tempos] == pytest.approx([bpm for _, bpm in expected.tempos], rel=1e-6)


def test_real_files_are_as_mido_says(real_files):
    read = 0
    sample = random.Random(7).sample(real_files, 50)
    for path in sample:
        if path.stat().st_size < 20_000:
            try:
                assert_as_mido_says(path)
                read += 1
            except MidiError:
                assert not oracle.read(path).notes
    assert read > 20


@st.composite
def files(draw) -> bytes:
    """Small files with notes off the grid, metres, tempos and programs at odd places."""
    division = draw(st.sampled_from([1, 7, 24, 96, 480]))
    tick = st.integers(0, 40 * division)
    metres = draw(
        st.lists(
            st.tuples(tick, st.sampled_from([(4, 2), (4, 2), (3, 2), (6, 3), (4, 3)])),
            max_size=4,
            unique_by=lambda m: m[0],
        )
    )
    tempos = draw(st.lists(st.tuples(tick, st.integers(40, 300)), max_size=3, unique_by=lambda m: m[0]))
    conductor = [(t, smf.signature(*m)) for t, m in metres] + [(t, smf.tempo(bpm)) for t, bpm in tempos]
    tracks = [track(*conductor)]
    for _ in range(draw(st.integers(1, 3))):
        events = []
        for pitch in draw(st.lists(st.integers(30, 90), min_size=1, max_size=8, unique=True)):
            start, held = draw(tick), draw(st.integers(0, 9 * division))
            events += [
                (start, on(pitch, draw(st.integers(1, 127)), draw(st.sampled_from([0, 9])))),
            ]
            events += [(start + held, off(pitch, events[-1][1][0] & 15))]
        tracks.append(track(*events, end=draw(st.integers(0, 90 * division)) + 50 * division))
    return file(*tracks, division=division)


@settings(max_examples=100, deadline=None)
@given(files())
def test_any_file_is_as_mido_says(data):
    try:
        assert_as_mido_says(data)
    except MidiError as error:
        assert error.reason == "no-4/4" and not oracle.read(data).notes


# --- writing -----------------------------------------------------------------------------------------------------


@st.composite
def songs(draw) -> Song:
    """Any song that a file can say: notes of one pitch and instrument do not overlap."""
    bars = draw(st.integers(1, 6))
    names = st.text(max_size=6).filter(str.isprintable).map(str.strip)
    players = draw(
        st.lists(
            st.builds(Instrument, names, st.integers(0, 127), st.booleans()),
            min_size=1,
            max_size=18,
        )
    )
    rows = []
    for i in range(len(players)):
        for pitch in draw(st.lists(st.integers(0, 127), min_size=1, max_size=4, unique=True)):
            cuts = sorted(draw(st.lists(st.integers(0, bars * 16), min_size=2, max_size=6, unique=True)))
            rows += [(i, a, pitch, b, draw(st.integers(1, 127))) for a, b in zip(cuts[::2], cuts[1::2])]
    tempos = draw(st.dictionaries(st.integers(1, bars * 16 - 1), st.integers(4, 1000), max_size=3))
    line = [(0, float(draw(st.integers(4, 1000))))] + sorted((s, float(bpm)) for s, bpm in tempos.items())
    steady = tuple(t for i, t in enumerate(line) if i == 0 or t[1] != line[i - 1][1])
    return Song(sorted_notes(*np.array(rows).T), tuple(players), (Piece(0, bars * 16, 1),), steady)


@settings(max_examples=60, deadline=None)
@given(songs())
def test_what_is_written_is_read_again(song):
    back = Song.read(song.to_bytes())
    assert columns(back) == columns(song)
    assert back.instruments == song.instruments and back.pieces == song.pieces
    assert [s for s, _ in back.tempos] == [s for s, _ in song.tempos]
    assert [bpm for _, bpm in back.tempos] == pytest.approx([bpm for _, bpm in song.tempos], rel=1e-3)


def test_more_than_fifteen_players_stay_apart():
    players = tuple(Instrument(f"{i}", i, False) for i in range(40))
    rows = np.array([(i, 0, 60, 4, 100) for i in range(40)]).T
    song = Song.read(Song(sorted_notes(*rows), players, (Piece(0, 16, 1),)).to_bytes())
    assert song.instruments == players


def test_the_end_of_the_track_is_the_last_step():
    song = Song(sorted_notes([0], [0], [60], [4], [100]), (Instrument("", 0, False),), (Piece(0, 64, 1),))
    import io

    import mido

    for line in mido.MidiFile(file=io.BytesIO(song.to_bytes())).tracks:
        assert sum(message.time for message in line) == 64 * 120 and line[-1].type == "end_of_track"


def test_silence_survives():
    nothing = Song(sorted_notes(*[np.zeros(0, int)] * 5), (), (Piece(0, 32, 1),))
    assert Song.read(nothing.to_bytes()).bars == 2
    quiet_end = Song(sorted_notes([0], [0], [60], [4], [100]), (Instrument("", 0, False),), (Piece(0, 80, 1),))
    assert Song.read(quiet_end.to_bytes()).bars == 5


def test_a_tempo_can_be_set(tmp_path):
    song = Song.read(file(track((0, smf.tempo(60)), (960, smf.tempo(90)), *TUNE))).with_tempo(200)
    assert Song.read(song.to_bytes()).tempos == ((0, 200.0),)
    for wrong in (0, 3.9, 1001, float("nan"), -1):
        with pytest.raises(ValueError, match="allowed are 4 to 1000"):
            song.with_tempo(wrong)


def test_the_slowest_tempo_can_be_written():
    song = Song.read(file(track(*TUNE))).with_tempo(4)
    assert Song.read(song.to_bytes()).tempo == pytest.approx(4, rel=0.2)


def test_saving_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "song.mid"
    song = Song.read(file(track(*TUNE)))
    song.save(path)
    assert_same(Song.read(path), song)
    before = path.read_bytes()

    def full(self, data):
        with self.open("wb") as disk:
            disk.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        song.with_tempo(60).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["song.mid"]


def test_songs_are_joined_at_their_bar_lines():
    one, two = Song.read(file(track(*TUNE))), Song.read(file(track(*notes((20, 70, 4)))))
    both = join([one, two, one])
    assert both.pieces == (Piece(0, 64, 1),)
    assert heard(both) == [*C_D_E, (36, 70, 40), *((a + 48, p, b + 48) for a, p, b in C_D_E)]


def test_notes_are_sorted_by_all_they_have():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, [5, 300, 128, 200, 128], (2000, 5))
    rows[:, 3] += rows[:, 1] + 1
    rows[:50] = rows[50:100]
    rows[0] = [MAX_INSTRUMENTS - 1, MAX_STEPS - 1, 127, 2 * MAX_STEPS - 1, 127]  # the largest of each
    expected = rows[np.lexsort(rows.T[[4, 3, 2, 1, 0]])]
    assert np.array_equal(np.stack(sorted_notes(*rows.T), axis=1), expected)
    assert all(c.dtype == np.int32 for c in sorted_notes(*rows.T))
    assert isinstance(sorted_notes(*rows.T), Notes)
