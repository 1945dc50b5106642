"""MIDI bytes <-> Song: what is read, what is refused and why, and what is written."""

import random
import tracemalloc
from pathlib import Path

import numpy as np
import oracle
import pytest
import smf
from fuzz_midi import mutated
from hypothesis import given, settings
from hypothesis import strategies as st
from smf import chunk, file, header, notes, off, on, quantity, track

from musicvae.music.guard import MAX_BYTES, MAX_INSTRUMENTS, REASONS, parse
from musicvae.music.metre import MAX_BARS, MAX_STEPS
from musicvae.music.midi import Instrument, MidiError, Notes, Piece, Song, join, sorted_notes, to_songs

TUNE = notes((0, 60, 4), (4, 62, 4), (8, 64, 8))  # C D E
LONG = (1 << 28) - 1  # the longest delta time


def columns(song: Song) -> list[tuple[int, ...]]:
    """(instrument, start, pitch, end, velocity) of each note."""
    return list(zip(*(column.tolist() for column in song.notes)))


def heard(song: Song) -> list[tuple[int, int, int]]:
    """(start, pitch, end) of each note."""
    return [(start, pitch, end) for _, start, pitch, end, _ in columns(song)]


C_D_E = [(0, 60, 4), (4, 62, 8), (8, 64, 16)]


def assert_same(one: Song, other: Song) -> None:
    assert columns(one) == columns(other)
    assert one.instruments == other.instruments
    assert (one.pieces, one.dropped, one.off_grid) == (other.pieces, other.dropped, other.off_grid)
    assert one.tempos == other.tempos


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
    assert song.off_grid == (tick % 120 != 0)


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


# --- metre -----------------------------------------------------------------------------------------------------

BAR = 1920  # ticks


def test_a_repeated_signature_cuts_nothing():
    again = [(0, smf.signature(4)), (BAR, smf.signature(4)), (BAR + 240, smf.signature(4))]
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


def test_the_last_of_two_signatures_at_one_time_counts():
    assert heard(Song.read(file(track((0, smf.signature(3)), (0, smf.signature(4)), *TUNE)))) == C_D_E


@pytest.mark.parametrize("power, numerator, name", [(1, 2, "2/2"), (3, 8, "8/8"), (2, 3, "3/4")])
def test_a_song_without_4_4_says_what_it_has(power, numerator, name):
    with pytest.raises(MidiError, match=f"no notes in 4/4 .{name} from bar 1") as error:
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


# --- maladies: what cannot be used, and why ----------------------------------------------------------------------

TOO_MANY = [track(*notes((0, 60, 1))) for _ in range(MAX_INSTRUMENTS + 1)]
UNUSABLE = {
    "nothing at all": (b"", "empty"),
    "a photograph": (b"\xff\xd8\xff\xe0" + bytes(400), "not-midi"),
    "a header far behind": (bytes(2000) + file(track(*TUNE)), "not-midi"),
    "one letter of a header": (b"M", "not-midi"),
    "half a header": (file(track(*TUNE))[:10], "bad-header"),
    "a header too short": (b"MThd\0\0\0\4\0\1\0\1" + track(*TUNE), "bad-header"),
    "no ticks in a quarter": (file(track(*TUNE), division=0), "bad-header"),
    "format 3": (file(track(*TUNE), kind=3), "bad-header"),
    "25 film frames": (file(track(*TUNE), division=0xE728), "smpte"),
    "30 film frames": (file(track(*TUNE), division=0xE204), "smpte"),
    "a bag of patterns": (file(track(*TUNE), track(*TUNE), kind=2), "format-2"),
    "a header alone": (header(1), "no-tracks"),
    "strangers only": (header(1) + chunk(b"XFIH", b"abc"), "no-tracks"),
    "the last byte lost": (file(track(*TUNE))[:-1], "truncated"),
    "half the second track lost": (file(track(*TUNE), track(*TUNE))[:80], "truncated"),
    "a track of 4 GiB": (header(1) + b"MTrk\xff\xff\xff\xff" + bytes(50), "truncated"),
    "data without a status": (file(chunk(b"MTrk", b"\0\x3c\x40\0" + smf.END)), "malformed"),
    "a note cut in two": (file(chunk(b"MTrk", b"\0\x90\x3c")), "malformed"),
    "an endless delta time": (file(chunk(b"MTrk", b"\xff" * 40)), "malformed"),
    "text longer than its track": (file(chunk(b"MTrk", b"\0\xff\x01\x7fab")), "malformed"),
    "twenty deltas of 2^28": (
        file(chunk(b"MTrk", (quantity(LONG) + on(60) + b"\1" + off(60)) * 20 + b"\0" + smf.END)),
        "bad-times",
    ),
    "a note in bar 10,001": (file(track(*notes((16 * MAX_BARS, 60, 1)))), "too-long"),
    "a note rounded into bar 10,001": (file(track(*notes((16 * MAX_BARS - 0.5, 60, 1)))), "too-long"),
    "a note after 2^28": (file(track(*notes((0, 60, 1)), (LONG - 9, on(60)), (LONG, off(60)))), "too-long"),
    "8,192 tracks": (file(*TOO_MANY), "too-many-instruments"),
    "a new metre at every tick": (
        file(track(*((t, smf.signature(3 + t % 2)) for t in range(10_001)), *TUNE)),
        "too-many-metres",
    ),
    "an empty track": (file(track()), "no-notes"),
    "a note that never ends": (file(track((0, on(60)))), "no-notes"),
    "ends without notes": (file(track((0, off(60)))), "no-notes"),
    "a waltz": (file(track((0, smf.signature(3)), *TUNE)), "no-4/4"),
    "4/4 where nobody plays": (file(track((0, smf.signature(3)), (5760, smf.signature(4)), *TUNE, end=9600)), "no-4/4"),
    "5 MiB": (file(track(*TUNE)) + bytes(5 << 20), "too-large"),
}


@pytest.mark.parametrize("malady", UNUSABLE)
def test_every_unusable_file_has_a_reason(malady):
    data, reason = UNUSABLE[malady]
    with pytest.raises(MidiError) as error:
        Song.read(data)
    assert error.value.reason == reason
    assert REASONS[reason] in str(error.value)


def test_every_reason_has_a_malady(tmp_path):
    for path in (tmp_path / "absent.mid", tmp_path):
        with pytest.raises(MidiError) as error:
            Song.read(path)
        assert error.value.reason == "unreadable"
    assert {reason for _, reason in UNUSABLE.values()} | {"unreadable"} == REASONS.keys()


HARMLESS = {
    "as it should be": file(track(*TUNE)),
    "format 0": file(track(*TUNE), kind=0),
    "a longer header": b"MThd\0\0\0\x08\0\1\0\1\1\xe0\0\0" + track(*TUNE),
    "a wrong count of tracks": header(700) + track(*TUNE),
    "a count of no tracks": header(0) + track(*TUNE),
    "RIFF RMID": smf.riff(file(track(*TUNE))),
    "MacBinary": smf.macbinary(file(track(*TUNE))),
    "an unknown chunk before": header(1) + chunk(b"XFIH", b"abc") + track(*TUNE),
    "zeros behind": file(track(*TUNE)) + bytes(1000),
    "rubbish behind": file(track(*TUNE)) + b"<!DOCTYPE html><html>",
    "no end of track": file(chunk(b"MTrk", track(*TUNE)[8:-4])),
    "tempo 0": file(track((0, smf.meta(0x51, b"\0\0\0")), *TUNE)),
    "time signature 0/4": file(track((0, smf.signature(0)), *TUNE)),
    "time signature 4/2^255": file(track((0, smf.signature(4, 255)), *TUNE)),
    "a sysex": file(track((0, b"\xf0\x03\x01\x02\xf7"), *TUNE)),
    "a note that never ends beside": file(track((0, on(70)), *TUNE)),
    "an empty track beside": file(track(), track(*TUNE), track()),
    "a silent track to 2^28": file(track(*TUNE), track(end=0)),
}


@pytest.mark.parametrize("oddity", HARMLESS)
def test_what_does_no_harm_is_read(oddity):
    assert_same(Song.read(HARMLESS[oddity]), Song.read(file(track(*TUNE))))


def test_stray_bytes_are_bent_into_range():
    song = Song.read(file(track((0, smf.program(230)), (0, on(60, 200)), (480, off(60)))))
    assert song.instruments[0].program == 127 and columns(song) == [(0, 0, 60, 4, 127)]


@pytest.mark.parametrize(
    "name, shown", [("Flöte".encode(), "Flöte"), (b"Fl\xf6te", "Fl\ufffdte"), (b"\xff\xfe\x00", None)]
)
def test_names_may_be_in_any_encoding(name, shown):
    song = Song.read(file(track((0, smf.name(name)), *TUNE)))
    assert shown is None or song.instruments[0].name == shown
    song.instruments[0].name.encode()  # so that it can be printed and stored
    assert heard(Song.read(song.to_bytes())) == C_D_E


def test_thousands_of_instruments_are_kept_apart():
    song = Song.read(file(*TOO_MANY[:MAX_INSTRUMENTS]))
    assert song.notes.instrument.tolist() == list(range(MAX_INSTRUMENTS))


def test_a_delta_of_2_to_the_28_costs_nothing():
    held = file(chunk(b"MTrk", b"\0" + on(60) + quantity(LONG) + off(60) + b"\0" + smf.END))
    tail = file(track(*TUNE, end=LONG))
    tracemalloc.start()
    song, quiet = Song.read(held), Song.read(tail)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert heard(song) == [(0, 60, MAX_STEPS)] and song.bars == MAX_BARS
    assert quiet.bars == 17  # of the silence at the end one to sixteen bars are kept
    assert used < 1 << 20


def test_a_file_is_read_no_further_than_it_may_be_long(tmp_path):
    path = tmp_path / "huge.mid"
    with path.open("wb") as sparse:
        sparse.write(file(track(*TUNE)))
        sparse.truncate(8 << 30)
    with pytest.raises(MidiError, match="larger than 4 MiB"):
        Song.read(path)


def test_4_mib_of_notes_are_read():
    body = b"\0\x90\x3c\x64" + b"\1\x3c\0\0\x3c\x64" * ((MAX_BYTES - 100) // 6)
    song = Song.read(file(chunk(b"MTrk", body + b"\1\x3c\0\0" + smf.END)))
    assert len(song.notes.start) == (MAX_BYTES - 100) // 6 + 1


# --- many at once, and the oracle --------------------------------------------------------------------------------


def test_many_files_at_once_are_as_each_alone():
    whole = list(HARMLESS.values()) + [
        file(track((0, smf.signature(4)), (BAR, smf.signature(3)), (2 * BAR, smf.signature(4)), *TUNE, end=3 * BAR)),
        file(track(end=BAR)),
        file(track((0, smf.signature(3)), *TUNE)),
        file(track(*notes((16 * MAX_BARS, 60, 1)))),
        file(track(*notes((1, 50, 2), quarter=96)), division=96),
        file(track()),
    ]
    random.Random(1).shuffle(whole)
    together = to_songs([parse(data) for data in whole])
    assert len(together) == len(whole)
    for data, found in zip(whole, together):
        try:
            assert_same(Song.read(data), found)
        except MidiError as error:
            assert (error.reason, error.detail) == (found.reason, found.detail)
    assert to_songs([]) == []


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
    players = draw(
        st.lists(
            st.builds(Instrument, st.text(max_size=6).filter(str.isprintable), st.integers(0, 127), st.booleans()),
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


# --- damage ------------------------------------------------------------------------------------------------------


def test_damaged_files_give_a_song_or_a_reason():
    seeds = [*HARMLESS.values(), *(data for data, _ in UNUSABLE.values() if len(data) < 5000)]
    outcomes = {"song": 0}
    for n in range(1500):
        try:
            song = Song.read(mutated(seeds, n))
        except MidiError as error:
            outcomes[error.reason] = outcomes.get(error.reason, 0) + 1
        else:
            outcomes["song"] += 1
            assert song.notes.start.min(initial=0) >= 0
            assert song.notes.end.max(initial=0) <= song.steps <= MAX_STEPS
            assert (song.notes.end > song.notes.start).all()
            assert ((song.notes.pitch >= 0) & (song.notes.pitch < 128)).all()
            assert song.notes.instrument.max(initial=-1) < max(len(song.instruments), 1)
    assert outcomes["song"] > 100 and len(outcomes) > 6, outcomes
