"""The paper's figures with our models: sizes that are the model's own, pages that hold what they name, and reasons."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import MELODY, build, tunes, write

from musicvae.composer import load
from musicvae.model.checkpoint import save_run
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.vae import MusicVAE
from musicvae.model.vectors import ATTRIBUTES, save_vectors
from musicvae.music.midi import Song
from musicvae.music.representation import Melody
from musicvae.presets import preset

sys.path.append(str(Path(__file__).parent.parent / "paper"))
import figures
from scene import Missing, Scene, bending
from schematic import count_weights, draw_model

torch.set_num_threads(1)
SMALL = {"latent_size": 4, "encoder_units": 6, "encoder_layers": 1, "decoder_units": 6, "decoder_layers": 1}
CONDUCTED = {"bars": 16, "conductor_units": 6, "conductor_layers": 1, "condition_size": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Data sets of 2-bar melodies, by the name of their preset."""
    folder = tmp_path_factory.mktemp("data")
    build([write(folder / "midi", tunes(60))], MELODY, folder / "melody-2")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[str, str]:
    """A flat melody model with all attribute vectors, and a trio of sixteen bars; nothing has taught them."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for name, kind, config in (
        ("melody-2", "melody", ModelConfig((130,), steps=32, **SMALL)),
        ("trio-16", "trio", ModelConfig((130, 130, 512), steps=256, **SMALL, **CONDUCTED)),
    ):
        save_run(folder / name, MusicVAE(config), RunConfig(name=name, representation=kind, model=config))
    names = ("note-density", "c-major", "average-interval", "syncopation-8", "syncopation-16")
    save_vectors(folder / "melody-2" / ATTRIBUTES, {n: np.full(4, i, np.float32) for i, n in enumerate(names)})
    return str(folder / "melody-2"), str(folder / "trio-16")


def test_the_schematic_counts_the_weights_of_the_paper():
    """173 M for melodies of sixteen bars, 221 M for trios: the figures known of the original's own sizes."""
    melody, trio = (count_weights(preset(n).model("paper")) for n in ("melody-16", "trio-16"))
    assert round(sum(melody.values()) / 1e6) == 173 and round(sum(trio.values()) / 1e6) == 221
    assert melody["conductor"] == trio["conductor"] and trio["decoder"] > 2 * melody["decoder"]
    lstm, start, condition = 4 * 6 * (1 + 6) + 2 * 4 * 6, (4 + 1) * 2 * 6, (6 + 1) * 4  # SMALL, CONDUCTED
    conducted = ModelConfig((130,), steps=256, **SMALL, **CONDUCTED)
    assert count_weights(conducted)["conductor"] == lstm + start + condition
    config = ModelConfig((130,), steps=32, **SMALL)
    assert sum(count_weights(config).values()) == sum(p.numel() for p in MusicVAE(config).parameters())


def test_the_schematic_says_the_sizes_of_its_model():
    figure = draw_model(ModelConfig((130, 130, 512), steps=256, **SMALL, **CONDUCTED), "tiny")
    words = " ".join(text.get_text().replace("\n", " ") for text in figure.axes[0].texts)
    for said in ("256 steps of 130 + 130 + 512", "1 layer of 6 a direction", "4 numbers", "bar 16", "c16", "3 streams"):
        assert said in words, said
    flat = draw_model(ModelConfig((130,), steps=32, **SMALL), "flat")
    assert not any("conductor" in text.get_text() for text in flat.axes[0].texts)


def test_figures_are_drawn_with_what_is_there_and_the_others_say_why(data, models, tmp_path, monkeypatch, capsys):
    words = ["figures.py", "--data", data, "--models", *models, "--out", tmp_path, "--sound", "synth"]
    monkeypatch.setattr(sys, "argv", [str(w) for w in [*words, "--only", "2", "6", "10", "12"]])
    monkeypatch.setattr(figures, "EXTENDED", 3)
    figures.main()
    page, said = (tmp_path / "index.html").read_text(), capsys.readouterr().out
    linked = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert all((tmp_path / name).is_file() for name in linked)
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {*linked, "index.html"}
    assert "Figure 10: syncopation on sixteenths: pictures 1, sounds 4" in said
    assert "Figure 12: interpolation: pictures 3, sounds 3" in said
    assert "Figure 6: note density by degrees: not drawn: the test windows of melody-2 hold fewer than 1" in said
    row = Song.read(tmp_path / "figure-12" / "figure-12-sound-01.mid")
    assert row.bars == 8 * 2


def test_a_figure_without_data_or_model_is_named_with_the_reason(models, tmp_path, monkeypatch, capsys):
    words = ["figures.py", "--models", *models, "--out", str(tmp_path), "--only", "1", "12"]
    monkeypatch.setattr(sys, "argv", words)
    figures.main()
    said, page = capsys.readouterr().out, (tmp_path / "index.html").read_text()
    assert "Figure 1: latent averaging: not drawn: it needs test windows for melody-2 (see --data)" in said
    assert page.count("Not drawn: it needs test windows") == 2
    with pytest.raises(Missing, match="no model trio-2 or trio-4"):
        Scene(None, (), 0).composer("trio-2", "trio-4")


def test_originals_are_of_different_songs_and_fit(data, models):
    scene = Scene(data, models[:1], seed=1)
    composer = load(models[0])
    tokens, groups = scene.windows(composer)
    of = {window.tobytes(): group for window, group in zip(tokens.astype(np.int64), groups)}
    several = len(set(groups.tolist()))
    for seed in range(8):
        songs = Scene(data, models[:1], seed).originals(composer, several)
        found = [of[composer.representation.to_tokens(song).tobytes()] for song in songs]
        assert len(set(found)) == several > 1
    bent = bending(scene, "c-major", 3, 10)
    assert bent.original.notes.pitch.tolist() and bent.vector.tolist() == [1, 1, 1, 1]
    with pytest.raises(Missing, match="fewer than 1 that fit"):
        bending(scene, "c-major", 9, 9.5)
    with pytest.raises(Missing, match="no vector 'swing'"):
        bending(scene, "swing", 3, 10)


def test_marked_notes_are_the_syncopated_ones():
    tokens = np.zeros((32, 1), np.int64)
    tokens[[0, 3, 4, 5, 10, 16, 17, 22]] = 62
    song = Melody().to_song(tokens)
    assert song.notes.start[figures.off_beat(2, 1)(song)].tolist() == [3]
    assert song.notes.start[figures.off_beat(4, 2)(song)].tolist() == [10, 22]
    assert figures.beginning(song, 1).notes.start.tolist() == [0, 3, 4, 5, 10] and figures.beginning(song, 1).bars == 1
