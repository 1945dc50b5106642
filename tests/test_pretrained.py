"""The models in the box: they load, they are small, they write music, and their cards say where they come from."""

import hashlib
import json

import numpy as np
import pytest

from musicvae.box import PRETRAINED, models
from musicvae.composer import load
from musicvae.evaluation.command import KINDS
from musicvae.evaluation.statistics import sample_statistics
from musicvae.model.config import PRIOR, WEIGHTS
from musicvae.music.midi import Song

NAMES = sorted(models())


def test_the_box_holds_melodies_and_drums_and_is_no_burden():
    assert {"drums-16", "drums-2", "melody-16", "melody-2", "trio-16"} <= set(NAMES)
    assert sum(p.stat().st_size for p in PRETRAINED.rglob("*.safetensors")) < 45e6


@pytest.mark.parametrize("name", NAMES)
def test_a_model_carries_a_card_with_licences_and_figures(name: str):
    folder = PRETRAINED / name
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card and "CC BY 4.0" in card and "musicvae train" in card
    test = models()[name].trained["test"]
    report = json.loads((folder / "evaluation.json").read_text())["reconstruction"]
    whole = report["mean"] or report["streams"][0]
    assert test["sampled_accuracy"] == pytest.approx(whole["sampled"]["accuracy"]["value"], abs=1e-3)
    for figures in report["streams"]:
        assert figures["sampled"]["onset_f1"]["low"] > figures["nothing"]["onset_f1"]["value"]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_page_says_what_was_measured(name: str):
    """Of the weights that are in the box, on all test windows."""
    root = PRETRAINED.parent.parent
    kept = json.loads((root / "paper" / "results" / f"{name}.json").read_text())
    for key, file in (("weights", WEIGHTS), ("prior", PRIOR)):
        path = PRETRAINED / name / file
        assert kept["stamp"][key] == (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None)
    config = models()[name]
    assert (kept["stamp"]["spread"], kept["stamp"]["rounds"]) == (config.spread, config.rounds)
    for stream in kept["reconstruction"]["streams"]:
        for way in ("sampled", "greedy_mu", "teacher_forced", "nothing"):
            assert f"{stream[way]['accuracy']['value']:.3f}" in (root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_a_prior_in_the_box_is_likelier_than_n_0_i_for_songs_it_did_not_learn_from(name: str):
    trained = models()[name].trained
    assert ("prior" in trained) == (PRETRAINED / name / PRIOR).is_file()
    assert "prior" not in trained or trained["prior"]["bits"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_music_and_not_one_note_repeated(name: str):
    composer = load(name)
    n = 64 if composer.bars == 2 else 24
    songs = composer.sample(n, temperature=0.5, seed=1)
    assert len({song.to_bytes() for song in songs}) > 0.9 * n
    tokens = np.stack([composer.representation.to_tokens(Song.read(song.to_bytes())) for song in songs])
    for figures in sample_statistics(tokens, KINDS[composer.representation.name]).streams:
        assert figures.one_note < 0.2
        assert 1 < figures.onsets_a_bar < 24
        if figures.name == "drums":
            hits = figures.hits_a_bar or {}
            assert hits["kick"] > 0.5 and hits["snare"] > 0.5
        else:
            assert figures.pitch_range and figures.pitch_range > 3
            assert figures.pitch_class_entropy and figures.pitch_class_entropy > 1


@pytest.mark.parametrize("name", NAMES)
def test_what_a_model_writes_it_can_read_and_give_back_better_than_by_chance(name: str):
    composer = load(name)
    song = composer.sample(1, temperature=0.5, seed=3)[0]
    own = composer.reconstruct(song).accuracy
    stranger = composer.representation.to_tokens(composer.sample(2, temperature=0.5, seed=9)[1])
    by_chance = (stranger == composer.representation.to_tokens(song)).all(axis=1).mean()
    assert own > by_chance
