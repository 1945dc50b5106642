"""Which track is the melody: by name, register, chords, and how often it plays; never a bass where there is another."""

import numpy as np
import pytest

from musicvae.music.melody_track import choose_melody
from musicvae.music.midi import Instrument, MidiError, Piece, Song, sorted_notes

SCALE = (0, 2, 4, 5, 7, 5, 4, 2)


def line(lowest: int, every: int = 4, bars: int = 8, chord: tuple[int, ...] = (0,)) -> list[tuple[int, int]]:
    """(start, pitch) of a scale up and down, a note or chord every so many steps."""
    return [(s, lowest + SCALE[s // every % 8] + c) for s in range(0, bars * 16, every) for c in chord]


def band(*tracks: tuple[str, int, list[tuple[int, int]]]) -> Song:
    rows = [(i, start, pitch, start + 2, 80) for i, (_, _, notes) in enumerate(tracks) for start, pitch in notes]
    players = tuple(Instrument(name, program, False) for name, program, _ in tracks)
    return Song(sorted_notes(*np.array(rows).T), players, (Piece(0, 128, 1),))


def chosen(*tracks: tuple[str, int, list[tuple[int, int]]]) -> tuple[int | None, str]:
    choice = choose_melody(band(*tracks), list(range(len(tracks))))
    return choice.instrument, choice.why


@pytest.mark.parametrize(
    "name",
    ["Melody", "melodie", "Mélodie", "Lead Guitar", "Vocal", "Vocals 1", "Gesang", "SingstimmeVoice", "Soprano", "Sop.",
     "Canto", "Solo flute", "Voix", "メロディ"],
)  # fmt: skip
def test_a_name_decides_in_many_languages(name):
    assert chosen(("high", 0, line(84)), (name, 0, line(60)), ("Bass", 33, line(36, 2))) == (1, f'named "{name}"')


@pytest.mark.parametrize(
    "name", ["Square Lead", "Lead 3 (Calliope)", "Lead 8 (Bass + Lead)", "Voice Bass", "Lead chords"]
)
def test_the_name_of_a_sound_is_no_role(name):
    assert chosen(("", 0, line(72)), (name, 0, line(50)))[0] == 0


def test_a_name_counts_for_nothing_where_the_track_hardly_plays():
    rows = [(0, s, 72, s + 2, 80) for s in range(0, 320, 5)] + [(0, 3, 74, 5, 80), (1, 0, 60, 2, 80), (1, 4, 62, 6, 80)]
    players = (Instrument("", 0, False), Instrument("Melody", 0, False))
    song = Song(sorted_notes(*np.array(rows).T), players, (Piece(0, 320, 1),))
    assert choose_melody(song, [0, 1]).instrument == 0


@pytest.mark.parametrize("program", range(32, 40))
def test_a_bass_is_never_the_melody_however_busy_and_high(program):
    assert chosen(("", program, line(80, 1)), ("", 0, line(55, 8)))[0] == 1
    assert chosen(("", program, line(40)))[0] == 0, "unless there is nothing else"


def test_a_low_track_or_one_named_bass_is_a_bass_of_any_program():
    assert chosen(("", 0, line(30, 1)), ("", 48, line(55, 8)))[0] == 1
    assert chosen(("Contrabass", 48, line(60, 1)), ("", 48, line(52, 8)))[0] == 1


def test_of_four_voices_the_soprano_sings_the_melody():
    voices = [("", 0, line(pitch)) for pitch in (48, 55, 60, 67)]
    index, why = chosen(*voices)
    assert index == 3 and "higher" in why


def test_a_voice_is_the_melody_of_a_song_with_piano():
    index, why = chosen(("", 0, line(70, 2, chord=(0, 4, 7))), ("", 68, line(66)), ("", 0, line(40)))
    assert index == 1 and "fewer chords" in why


def test_what_plays_for_a_bar_and_percussion_are_no_melody():
    assert chosen(("", 0, line(60)), ("", 0, line(84, bars=1)))[0] == 0
    assert chosen(("", 0, line(60)), ("", 116, line(84)), ("Drums", 0, line(84)))[0] == 0


@pytest.mark.parametrize("corpus", ["freedoom", "easyrpg"])
def test_no_bass_is_taken_in_real_files_that_have_another_track(corpora, corpus):
    checked = 0
    for path in sorted((corpora / corpus).glob("*.mid"))[::4]:
        try:
            song = Song.read(path)
        except MidiError:
            continue
        pitched = [i for i, p in enumerate(song.instruments) if not p.is_drum]
        middle = {i: np.median(song.notes.pitch[song.notes.instrument == i]) for i in pitched}
        others = [i for i in pitched if song.instruments[i].program not in range(32, 40) and middle[i] >= 48]
        if others:
            assert choose_melody(song, pitched).instrument in others, path
            checked += 1
    assert checked > 4
