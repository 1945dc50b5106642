"""A person says which track is the melody and which the drums: by number or name, for a song or a data set."""

import json
from pathlib import Path

import numpy as np
import pytest
from folders import build

from musicvae.music.cutting import cut
from musicvae.music.grouping import SPLITS
from musicvae.music.mapping import DatasetSettings
from musicvae.music.midi import Instrument, Piece, Song, sorted_notes
from musicvae.music.representation import Drums, Melody, Trio
from musicvae.music.roles import Roles, with_roles
from musicvae.music.windows import find_windows

CASES = Path(__file__).parent.parent.parent / "shared" / "fixtures" / "midi-cases"
PLAYERS = (
    Instrument("Flute", 73, False), Instrument("Bass", 33, False), Instrument("Kit", 0, True),
    Instrument("Loop", 0, False), Instrument("Loop", 0, True),
)  # fmt: skip


def band() -> Song:
    pitches = (72, 40, 36, 38, 42)
    rows = [(i, s, pitch, s + 2, 80) for i, pitch in enumerate(pitches) for s in range(i, 64, 8)]
    return Song(sorted_notes(*np.array(rows).T), PLAYERS, (Piece(0, 64, 1),))


def test_the_drums_named_are_all_the_drums():
    for track in ("4", "3"):
        song = with_roles(band(), Drums(), Roles(drums=(track,)))
        assert np.array_equal(np.flatnonzero(Drums().to_tokens(song)[:, 0]), np.arange(int(track) - 1, 64, 8))


def test_a_trio_takes_the_melody_named_with_every_bass():
    song = with_roles(band(), Trio(), Roles(melody=("flute",), drums=("Kit",)))
    windows = find_windows([song], Trio(), 2)
    assert set(windows.instrument.tolist()) == {0} and (windows.tokens[0, ::8, 0] == 74).all()


def test_a_melody_may_be_a_track_of_channel_10():
    song = with_roles(band(), Melody(), Roles(melody=("5",)))
    assert set(find_windows([song], Melody(), 2).instrument.tolist()) == {4}
    assert cut(song, Melody(), 2).chosen == 'track 5 "Loop"'
    assert not song.instruments[4].is_drum


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (Roles(melody=("harp",)), 'no track \'harp\'; there are 1 "Flute", 2 "Bass"'),
        (Roles(melody=("0",)), "no track '0'"),
        (Roles(drums=("loop",)), "tracks 4, 5 are all named 'loop'; give a number"),
        (Roles(melody=("3",), drums=("Kit",)), "track 3 cannot be the melody and the drums"),
    ],
)
def test_unknown_and_ambiguous_names_are_refused(roles, message):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        with_roles(band(), Melody(), roles)
    assert message in str(error.value)


def test_a_data_set_takes_names(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    band().save(folder / "a.mid")
    data = build([folder], DatasetSettings("melody", 2, melody=("flute",)), tmp_path / "out")
    found = [i for split in SPLITS for i in data.rows(split)["instrument"].to_pylist()]
    assert set(found) == {0}
    with pytest.raises(ValueError, match=r"no track is named 'Harp'; the names there are most of: \"Loop\" \(2\)"):
        build([folder], DatasetSettings("melody", 2, melody=("Harp",)), tmp_path / "other")


@pytest.mark.skipif(not CASES.is_dir(), reason="no folder of MIDI cases beside the checkout")
def test_options_on_files_that_say_otherwise(musicvae, tmp_path):
    code, out, _ = musicvae("inspect", CASES / "drums-channel-1.mid", "--drums", "Drums", "--json")
    assert code == 0 and json.loads(out)["drums"]["2 bars"] > 0 and json.loads(out)["tracks"][0]["drums"]
    trumpet = CASES / "piano-on-channel-10.mid"
    code, out, _ = musicvae("inspect", trumpet, "--melody", 1, "--json")
    found = json.loads(out)
    assert found["tracks"][0]["notes"] == 16 and not found["tracks"][0]["drums"] and found["melody_track"] == 1
    for option in ("--melody", "--track"):
        assert musicvae("reconstruct", "melody-2", trumpet, option, "Trumpet", "--out", tmp_path / option)[0] == 0
    assert (
        musicvae("reconstruct", "drums-2", CASES / "drums-channel-1.mid", "--track", 1, "--out", tmp_path / "beat")[0]
        == 0
    )


@pytest.mark.skipif(not CASES.is_dir(), reason="no folder of MIDI cases beside the checkout")
@pytest.mark.parametrize("case", ["far-end", "held-over-the-bar"])
@pytest.mark.parametrize("model", ["melody-2", "melody-16"])
def test_silence_stays_silent(case, model, musicvae, tmp_path):
    code, _, _ = musicvae("reconstruct", model, CASES / f"{case}.mid", "--pad", "--out", tmp_path)
    before, after = Song.read(CASES / f"{case}.mid"), Song.read(next(tmp_path.glob("*.mid")))
    assert code == 0 and after.bars == before.bars
    if case == "far-end":
        assert after.notes.end.max() <= before.notes.end.max() + 16
