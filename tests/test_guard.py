"""Strange files: what is refused and why, and what does no harm."""

import random
import tracemalloc

import pytest
import smf
from fuzz_midi import mutated
from hearing import BAR, C_D_E, TUNE, assert_same, columns, heard
from smf import chunk, file, header, notes, off, on, quantity, track

from musicvae.music.guard import parse
from musicvae.music.metre import MAX_BARS, MAX_STEPS
from musicvae.music.midi import MidiError, Song, to_songs
from musicvae.music.reasons import MAX_BYTES, MAX_INSTRUMENTS, REASONS

# --- maladies: what cannot be used, and why ----------------------------------------------------------------------

LONG = (1 << 28) - 1  # the longest delta time
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
    in_archives = {"nested", "link", "same-name"}  # see test_dataset.py
    assert {reason for _, reason in UNUSABLE.values()} | {"unreadable"} | in_archives == REASONS.keys()


HARMLESS = {
    "as it should be": file(track(*TUNE)),
    "format 0": file(track(*TUNE), kind=0),
    "a longer header": b"MThd\0\0\0\x08\0\1\0\1\1\xe0\0\0" + track(*TUNE),
    "a wrong count of tracks": header(700) + track(*TUNE),
    "a count of no tracks": header(0) + track(*TUNE),
    "RIFF RMID": smf.riff(file(track(*TUNE))),
    "RIFF with a large odd chunk before": smf.riff(file(track(*TUNE)), (b"DISP", b"MThd" + bytes(4097))),
    "RIFF with a list before": smf.riff(file(track(*TUNE)), (b"LIST", b"INFOINAM\2\0\0\0a\0"), (b"DISP", b"abc")),
    "MacBinary": smf.macbinary(file(track(*TUNE))),
    "an unknown chunk before": header(1) + chunk(b"XFIH", b"abc") + track(*TUNE),
    "zeros behind": file(track(*TUNE)) + bytes(1000),
    "rubbish behind": file(track(*TUNE)) + b"<!DOCTYPE html><html>",
    "no end of track": file(chunk(b"MTrk", track(*TUNE)[8:-4])),
    "tempo 0": file(track((0, smf.meta(0x51, b"\0\0\0")), *TUNE)),
    "time signature 0/4": file(track((0, smf.signature(0)), *TUNE)),
    "time signature 4/2^255": file(track((0, smf.signature(4, 255)), *TUNE)),
    "a sysex": file(track((0, b"\xf0\x03\x01\x02\xf7"), *TUNE)),
    "an empty track beside": file(track(), track(*TUNE), track()),
    "a silent track to 2^28": file(track(*TUNE), track(end=0)),
}


@pytest.mark.parametrize("oddity", HARMLESS)
def test_what_does_no_harm_is_read(oddity):
    assert_same(Song.read(HARMLESS[oddity]), Song.read(file(track(*TUNE))))


def test_stray_bytes_are_bent_into_range():
    song = Song.read(file(track((0, smf.program(230)), (0, on(60, 200)), (480, off(60)))))
    assert song.instruments[0].program == 127 and columns(song) == [(0, 0, 60, 4, 127)]


@pytest.mark.parametrize("name, shown", [("Flöte".encode(), "Flöte"), (b"Fl\xf6te", "Flöte"), (b"\xff\xfe\x00", None)])
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


# --- many at once, and damage -----------------------------------------------------------------------------------------


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
