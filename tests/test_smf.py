"""MIDI as players read it: chunks, system messages, notes without ends, channels of the whole file, names."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import smf
from hearing import TUNE, heard
from hypothesis import given, settings
from smf import chunk, file, off, on, track
from test_midi import files

from musicvae.music import guard
from musicvae.music.channels import Parsed
from musicvae.music.midi import Song
from musicvae.music.reasons import MidiError
from musicvae.music.smf import read_header, unwrapped

CASES = Path(__file__).parent.parent.parent / "shared" / "fixtures" / "midi-cases"
EIGHT = [event for i in range(8) for event in ((240 * i, on(60 + i)), (240 * i + 240, off(60 + i)))]


def events(song: Song) -> list[tuple[int, int, int]]:
    """Start, pitch and end of all notes."""
    return sorted(zip(*(c.tolist() for c in (song.notes.start, song.notes.pitch, song.notes.end))))


def counts(song: Song) -> tuple[int, int]:
    """Notes of pitched instruments, and hits."""
    drums = np.array([player.is_drum for player in song.instruments], bool)[song.notes.instrument]
    return int((~drums).sum()), int(drums.sum())


# --- the cases of a collection of such files -----------------------------------------------------------------------


def cases() -> list[tuple[str, dict]]:
    return sorted(json.loads((CASES / "expected.json").read_text()).items()) if CASES.is_dir() else []


@pytest.mark.skipif(
    not CASES.is_dir(), reason="the collection of small MIDI files is absent: ../shared/fixtures/midi-cases"
)
@pytest.mark.parametrize("name, expected", cases(), ids=[name for name, _ in cases()])
def test_each_case_is_read_as_players_read_it(name: str, expected: dict):
    try:
        song = Song.read(CASES / f"{name}.mid")
    except MidiError as error:
        assert expected.get("or_refused") or error.reason == expected.get("refused")
        return
    assert "refused" not in expected
    pitched, hits = counts(song)
    assert pitched == expected.get("notes", pitched) and hits == expected.get("drums", hits)
    assert song.bars == expected.get("bars", song.bars)
    assert song.notes.start.min() == expected.get("first_step", song.notes.start.min())
    if "first_bar_tick" in expected:  # the first full bar begins a stretch of its own, after the bar of the pick-up
        assert [piece.source_bar for piece in song.pieces] == [1, 2] and song.pieces[1].start == 16
    if expected.get("trio"):
        from musicvae.music.representation import representation
        from musicvae.music.windows import find_windows

        assert len(find_windows([song], representation("trio"), 2).tokens)


# --- chunks --------------------------------------------------------------------------------------------------------


def claimed(body: bytes, more: int) -> bytes:
    """A track chunk whose header claims so many bytes more than it has."""
    return b"MTrk" + (len(body) + more).to_bytes(4, "big") + body


TWO = (track(*TUNE)[8:], track(*TUNE)[8:])
CHUNKS = {
    "claims more than there is, in the middle": file(claimed(TWO[0], 40), claimed(TWO[1], 0)),
    "claims less than there is": file(claimed(TWO[0], -5), claimed(TWO[1], 0)),
    "each claims four more": file(claimed(TWO[0], 4), claimed(TWO[1], 4)),
    "padding between": file(track(*TUNE), bytes(7), track(*TUNE)),
    "left-over bytes between": file(track(*TUNE), b"\x13\x37\xff\x00rest", track(*TUNE)),
    "left-over bytes that look like a chunk": file(track(*TUNE), b"junk\0\0\0\x40", track(*TUNE)),
    "padding inside the track": file(claimed(TWO[0] + bytes(5), 0), track(*TUNE)),
    "the next track inside of what is claimed": file(claimed(TWO[0], 8 + len(TWO[1])), track(*TUNE)),
    "a chunk of another kind between": file(track(*TUNE), chunk(b"XFIH", b"\x90\x3c\x40"), track(*TUNE)),
    "zeros behind": file(track(*TUNE), track(*TUNE)) + bytes(100),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_no_track_is_lost_whatever_its_header_claims(name: str):
    song = Song.read(CHUNKS[name])
    assert len(song.notes.start) == 2 * len(heard(Song.read(file(track(*TUNE)))))


def test_notes_behind_the_end_of_a_track_are_no_silent_loss():
    body = track(*TUNE)[8:] + b"\0\x90\x3c\x40\x10\x80\x3c\x40"
    with pytest.raises(MidiError, match="after the end of track 1"):
        Song.read(file(claimed(body, 0)))


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_file_cut_short_is_refused_by_name(cut: int):
    whole = file(track(*TUNE), track(*TUNE))
    with pytest.raises(MidiError) as error:
        Song.read(whole[:-cut])
    assert error.value.reason in ("truncated", "malformed")


def test_riff_is_walked_chunk_by_chunk():
    inside = file(track(*TUNE))
    wrapped = smf.riff(inside, (b"DISP", b"MThd" + bytes(4095)), (b"LIST", b"odd"))
    assert heard(Song.read(wrapped)) == heard(Song.read(inside))


# --- system messages -----------------------------------------------------------------------------------------------

WHOLE, PARTS = b"\xf0\x05\x7e\x7f\x09\x01\xf7", b"\xf0\x03\x7e\x7f\x09\x08\xf7\x02\x01\xf7"
MESSAGES = {f"status {status:x}": bytes([status]) for status in (0xF4, 0xF5, 0xF6, *range(0xF8, 0xFF))}
MESSAGES |= {"time code": b"\xf1\x21", "song position": b"\xf2\x01\x02", "song select": b"\xf3\x01"}
MESSAGES |= {"exclusive": WHOLE, "exclusive in parts": PARTS, "text": b"\xff\x01\x03\xf0\x90\xc0"}


@pytest.mark.parametrize("name", MESSAGES)
def test_running_status_goes_on_after_a_system_message(name: str):
    """Note-on, the message, and a note-off of the same status; then a second note."""
    body = b"\0\x90\x3c\x40\x00" + MESSAGES[name] + b"\x83\x60\x3c\x00\0\x3e\x40\x83\x60\x3e\0\0" + smf.END
    song = Song.read(file(chunk(b"MTrk", body)))
    assert [(p, e - s) for s, p, e in events(song)] == [(60, 4), (62, 4)]


def test_a_real_time_message_may_stand_inside_another():
    song = Song.read(file(chunk(b"MTrk", b"\0\x90\xf8\x3c\xfe\x40\x83\x60\x80\x3c\0\0" + smf.END)))
    assert events(song) == [(0, 60, 4)]


def test_an_escaped_note_is_played():
    body = b"\0\xf7\x03\x90\x3c\x40\x83\x60\xf7\x03\x80\x3c\x40\0" + smf.END
    assert events(Song.read(file(chunk(b"MTrk", body)))) == [(0, 60, 4)]


# --- notes ---------------------------------------------------------------------------------------------------------


def test_a_note_without_an_end_ends_with_the_next_of_its_pitch_or_the_track():
    song = Song.read(file(track((0, on(60)), (480, on(60)), (960, on(60)), end=1440)))
    assert events(song) == [(0, 60, 4), (4, 60, 8), (8, 60, 12)]


def test_one_lost_end_does_not_shift_the_others():
    song = Song.read(file(track((0, on(60)), (480, on(60)), (960, off(60)), (960, on(60)), (1440, off(60)))))
    assert events(song) == [(0, 60, 4), (4, 60, 8), (8, 60, 12)]


def test_an_end_may_stand_in_another_track_of_the_channel():
    song = Song.read(file(track((0, on(60)), (480, on(62))), track((480, off(60)), (960, off(62)))))
    assert events(song) == [(0, 60, 4), (4, 62, 8)]


def test_a_hit_needs_no_end():
    song = Song.read(file(track(*((120 * i, on(36, channel=9)) for i in range(16)))))
    assert events(song) == [(i, 36, i + 1) for i in range(16)]


@pytest.mark.parametrize("channel", [0, 9])
def test_a_file_whose_notes_never_end_is_not_silent(channel: int):
    assert len(Song.read(file(track((0, on(60, channel=channel)), end=1920))).notes.start) == 1


# --- channels of the whole file ------------------------------------------------------------------------------------


def control(number: int, value: int, channel: int = 0) -> bytes:
    return bytes([0xB0 | channel, number, value])


def test_a_program_in_one_track_counts_in_all():
    song = Song.read(
        file(track((0, smf.program(33)), (1920, smf.program(0))), track(*TUNE, (1920, on(70)), (2400, off(70))))
    )
    assert [player.program for player in song.instruments] == [0, 33]


def test_the_program_of_a_track_of_its_own_channel_stays():
    song = Song.read(file(track((0, smf.program(5, 1)), (0, on(60, channel=1)), (480, off(60, 1))), track(*TUNE)))
    assert [player.program for player in song.instruments] == [5, 0]


def test_ports_have_channels_of_their_own():
    port = smf.meta(0x21, b"\1")
    song = Song.read(file(track((0, smf.program(40)), *TUNE), track((0, port), (0, smf.program(50)), *TUNE)))
    assert [player.program for player in song.instruments] == [40, 50]


DRUMS = {
    "channel 10": (9, []),
    "GM2 bank": (2, [(0, control(0, 120, 2)), (0, smf.program(0, 2))]),
    "XG drum bank": (3, [(0, control(0, 127, 3)), (0, smf.program(0, 3))]),
    "XG effects bank, running status": (3, [(0, control(7, 100, 3)), (0, b"\x00\x7e"), (0, smf.program(0, 3))]),
    "GS part mode": (4, [(0, b"\xf0\x0a\x41\x10\x42\x12\x40\x15\x15\x02\x14\xf7")]),
}


@pytest.mark.parametrize("name", DRUMS)
def test_what_makes_a_channel_a_drum_kit(name: str):
    channel, before = DRUMS[name]
    song = Song.read(file(track(*before, (240, on(36, channel=channel)), (480, off(36, channel)))))
    assert [player.is_drum for player in song.instruments] == [True]


def test_a_melodic_bank_of_gm2_makes_channel_10_an_instrument():
    song = Song.read(
        file(track((0, control(0, 121, 9)), (0, smf.program(0, 9)), (9, on(60, channel=9)), (480, off(60, 9))))
    )
    assert not song.instruments[0].is_drum


@pytest.mark.parametrize(
    "name, is_kit", [("Drums", True), ("Drum Kit 2", True), ("Steel Drums", False), ("Lead", False)]
)
def test_a_kit_by_its_name_where_nothing_plays_on_channel_10(name: str, is_kit: bool):
    hits = [event for i in range(8) for event in ((240 * i, on(36)), (240 * i + 60, off(36)))]
    assert Song.read(file(track((0, smf.name(name)), *hits))).instruments[0].is_drum is is_kit


def test_one_program_over_two_channels_of_a_track_is_one_instrument():
    both = [
        (0, smf.program(27, 0)),
        (0, smf.program(27, 1)),
        (0, on(60)),
        (480, off(60)),
        (480, on(64, channel=1)),
        (960, off(64, 1)),
    ]
    assert len(Song.read(file(track(*both))).instruments) == 1


def test_a_controller_of_many_dimensions_is_one_instrument():
    line = [e for i in range(15) for e in ((240 * i, on(60 + i, channel=1 + i)), (240 * i + 240, off(60 + i, 1 + i)))]
    announced = [(0, control(101, 0)), (0, control(100, 6)), (0, control(6, 15))]
    for before in ([], announced):
        song = Song.read(file(track(*before, *line)))
        assert [player.is_drum for player in song.instruments] == [False] and len(song.notes.start) == 15


@pytest.mark.parametrize(
    "first, second, read",
    [((4, 2), (3, 2), False), ((3, 2), (4, 2), True), ((3, 2), (2, 1), True), ((3, 2), (8, 3), True)],
)
def test_of_two_signatures_at_a_tick_the_later_counts_also_across_tracks(first, second, read: bool):
    for data in (
        file(track((0, smf.signature(*first)), (0, smf.signature(*second)), *EIGHT)),
        file(track((0, smf.signature(*first))), track((0, smf.signature(*second)), *EIGHT)),
    ):
        if read:
            assert len(Song.read(data).notes.start) == 8
        else:
            with pytest.raises(MidiError, match="4/4"):
                Song.read(data)


# --- names ---------------------------------------------------------------------------------------------------------

NAMES = {
    "ASCII": (b"Lead [/x]", "Lead [/x]"),
    "UTF-8": ("Flöte".encode(), "Flöte"),
    "UTF-16": ("\ufeffFlöte".encode("utf-16-le"), "Flöte"),
    "Shift-JIS": ("メロディ".encode("shift_jis"), "メロディ"),
    "Latin-1": ("Trompète".encode("latin-1"), "Trompète"),
    "a terminal escape": (b"\x1b[31mred\x07", "[31mred"),
    "line ends": (b" a\r\nb\0", "a  b"),
    "direction marks": ("a\u202eb".encode(), "ab"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_read_and_can_be_printed(name: str):
    data, shown = NAMES[name]
    assert Song.read(file(track((0, smf.name(data)), *TUNE))).instruments[0].name == shown


# --- both ways of reading ------------------------------------------------------------------------------------------


def both(data: bytes) -> tuple[Parsed | None, Parsed]:
    data = unwrapped(data)
    header = read_header(data)
    return guard.plainly(data, header), guard.carefully(data, header)


def assert_both_agree(data: bytes) -> bool:
    """Whether symusic was trusted; if so, both ways must give the same notes, instruments, metres and tempos."""
    plain, careful = both(data)
    if plain is None:
        return False
    assert plain._replace(notes=[]) == careful._replace(notes=[])
    for ours, theirs in zip(plain.notes, careful.notes, strict=True):
        rows = [np.stack([n[c].astype(int) for c in ("time", "pitch", "duration", "velocity")]) for n in (ours, theirs)]
        assert np.array_equal(*(r[:, np.lexsort(r[::-1])] for r in rows))
    return True


@settings(max_examples=100, deadline=None)
@given(files())
def test_both_ways_agree_on_any_file(data: bytes):
    assert_both_agree(data)


def test_both_ways_agree_on_real_files(real_files: list[Path]):
    chosen = random.Random(5).sample(real_files, 250)
    trusted = sum(assert_both_agree(path.read_bytes()) for path in chosen)
    assert trusted > 200
