"""What Python and a notebook see of songs and models: equality, reprs, files that are open, and no side effects."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import musicvae
from musicvae.composer import Composer
from musicvae.evaluation.reconstruction import draw_windows
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.objective import TrainingConfig
from musicvae.model.training import train
from musicvae.music.guard import MidiError
from musicvae.music.midi import Song
from musicvae.music.representation import Melody


def tune(*pitches: int) -> Song:
    tokens = np.zeros((32, 1), np.int64)
    tokens[: 2 * len(pitches) : 2, 0] = np.array(pitches) + 2
    return Melody().to_song(tokens)


def test_songs_are_equal_where_every_note_and_every_field_is():
    song = tune(60, 62, 64)
    assert song == tune(60, 62, 64) and hash(song) == hash(tune(60, 62, 64)) and len({song, tune(60, 62, 64)}) == 1
    others = [tune(60, 62, 65), tune(60, 62), song.with_tempo(90), replace(song, off_grid=1), replace(song, pieces=())]
    assert all(other != song for other in others) and len({song, *others}) == 6
    assert song != "song" and song != song.to_bytes()
    wide = replace(song, notes=type(song.notes)(*(column.astype(np.int64) for column in song.notes)))
    assert wide == song and hash(wide) == hash(song)


def test_a_song_is_read_from_paths_bytes_and_open_files_and_saved_to_them(tmp_path: Path):
    song, path = tune(60, 62), tmp_path / "a.mid"
    song.save(path)
    with path.open("rb") as file:
        found = [Song.read(file)]
    data, buffer = path.read_bytes(), io.BytesIO()
    song.save(buffer)
    assert buffer.getvalue() == data
    found += [Song.read(x) for x in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data))]
    assert set(found) == {Song.read(data)}
    with path.open(encoding="latin-1") as file, pytest.raises(ValueError, match="mode 'rb'"):
        Song.read(file)  # type: ignore[arg-type]
    with pytest.raises(MidiError, match=r"cannot be opened \(.*nothing.mid: No such file"):
        Song.read(tmp_path / "nothing.mid")


def test_commands_read_standard_input(musicvae, monkeypatch, tmp_path: Path):
    class Input:
        buffer = io.BytesIO(tune(60, 62, 64).to_bytes())

    monkeypatch.setattr("sys.stdin", Input)
    code, out, _ = musicvae("inspect", "-")
    assert code == 0 and "3 notes" in out
    assert musicvae("inspect", "-") == (1, "", "musicvae inspect: -: the file holds no bytes\n")
    Input.buffer.seek(0)
    code, out, _ = musicvae("reconstruct", "melody-2", "-", "--out", tmp_path / "out")
    assert code == 0 and [path.name for path in (tmp_path / "out").iterdir()] == ["song-melody-2.mid"]


def test_a_repr_is_one_line_and_a_notebook_draws_a_song():
    composer, song = musicvae.load("melody-2"), tune(60, 62, 64)
    assert repr(song) == "<Song: 2 bars, 3 notes, 120 beats a minute; tracks: 1 'melody'>"
    assert repr(composer) == "<Composer melody-2: melody-90 of 2 bars, z of 96 numbers, on cpu>"
    shown = '<Encoding: mu and sigma of shape (1, 96), one row a window; track 1 "melody">'
    assert repr(composer.encode(song)) == shown
    assert song._repr_html_().startswith("<svg ") and song._repr_html_().count("v3H") == 3  # notes


@pytest.mark.parametrize("name", ["melody-2", "trio-16"])
def test_nothing_uses_up_random_numbers_of_torch(name: str):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    composer = Composer.from_pretrained(name)
    songs = composer.sample(2, seed=1)
    assert composer.prior is not None or name != "melody-2"
    composer.decode(composer.encode(songs[0]).mu)
    composer.interpolate(songs[0], songs[1], 3)
    composer.vary(songs[0], 2)
    draw_windows(10, 5, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_measuring_uses_up_no_random_numbers_of_torch(data, tmp_path: Path, musicvae):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert musicvae("evaluate", "melody-2", data.folder, "--windows", 8)[0] == 0
    vectors = tmp_path / "learnt.safetensors"
    assert musicvae("attribute", "learn", "melody-2", data.folder, "--windows", 64, "--out", vectors)[0] == 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_training_uses_up_no_random_numbers_of_torch(tmp_path: Path):
    tokens = np.random.default_rng(0).integers(0, 130, (8, 32, 1)).astype(np.uint16)
    sizes = ModelConfig((130,), 32, latent_size=4, encoder_units=4, decoder_units=4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for precision in ("fp32", "bf16"):
        config = TrainingConfig(steps=2, batch_size=4, validation_windows=4, token_dropout=0.5, precision=precision)
        train(RunConfig(model=sizes), config, tokens, tokens, tmp_path / precision, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_readme_that_is_there_stays(tmp_path: Path):
    composer = musicvae.load("melody-2")
    for _ in range(2):  # into an empty folder with a file of one's own, then over a model
        (tmp_path / "README.md").write_text("my own words")
        composer.save_pretrained(tmp_path, half=True)
        assert (tmp_path / "README.md").read_text() == "my own words"


def test_the_package_is_typed():
    assert (Path(musicvae.__file__).parent / "py.typed").is_file()
