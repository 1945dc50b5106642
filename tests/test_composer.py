"""Notes in, notes out: what a musician can rely on, with a small model of random weights."""

import numpy as np
import pytest
import torch

from musicvae.box import find_model
from musicvae.composer import Composer, load
from musicvae.model.checkpoint import save_run
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.vae import MusicVAE
from musicvae.music.midi import Song
from musicvae.music.representation import representation

WIDTHS = {
    "latent_size": 8,
    "encoder_units": 12,
    "encoder_layers": 1,
    "conductor_units": 12,
    "condition_size": 8,
    "decoder_units": 12,
}


def make_composer(name: str = "melody", bars: int = 2, flat: bool = True) -> Composer:
    kind = representation(name)
    torch.manual_seed(7)
    config = ModelConfig(kind.vocab_sizes, steps=16 * bars, bars=1 if flat else bars, **WIDTHS)
    return Composer(MusicVAE(config).eval(), RunConfig(name="test", representation=name, model=config), kind)


def scale(bars: int, kind: str = "melody") -> Song:
    """Quarter notes upwards, one a beat; on drums a kick on each."""
    tokens = np.zeros((16 * bars, 1), np.int64)
    tokens[::4, 0] = 1 if kind == "drums" else 62 + np.arange(4 * bars) % 12
    return representation(kind).to_song(tokens, tempo=90)


def same(a: Song, b: Song) -> bool:
    return a.pieces == b.pieces and all(np.array_equal(x, y) for x, y in zip(a.notes, b.notes))


def test_the_same_seed_writes_the_same_songs_and_another_seed_others():
    composer = make_composer()
    once, again, other = (composer.sample(3, temperature=1, seed=s) for s in (1, 1, 2))
    assert all(same(a, b) for a, b in zip(once, again))
    assert not all(same(a, b) for a, b in zip(once, other))


def test_how_many_are_asked_for_changes_none_of_them():
    composer = make_composer()
    assert all(same(a, b) for a, b in zip(composer.sample(2, 1.0, 5), composer.sample(200, 1.0, 5)))


@pytest.mark.parametrize(
    ("name", "bars", "flat"),
    [("melody", 2, True), ("drums", 2, True), ("melody", 16, False), ("trio", 16, False), ("melody-90", 2, True)],
)
def test_what_the_model_writes_can_be_read_and_encoded_again(name: str, bars: int, flat: bool):
    composer = make_composer(name, bars, flat)
    for song in composer.sample(4, temperature=1.0, seed=3):
        read = Song.read(song.to_bytes())
        assert read.bars == bars
        encoding = composer.encode(read)
        assert encoding.posterior.mu.shape == encoding.posterior.sigma.shape == (1, 8)
        assert (encoding.posterior.sigma > 0).all()
        assert np.array_equal(encoding.tokens[0], composer.representation.to_tokens(song))


def test_a_long_song_is_cut_into_windows_and_joined_again():
    composer = make_composer()
    result = composer.reconstruct(scale(5))
    assert [tuple(s) for s in result.encoding.spans] == [(0, 2), (2, 2), (4, 1)]
    assert result.song.bars == 5
    assert result.song.tempo == 90
    assert 0 <= result.accuracy <= 1


def test_each_window_of_a_song_is_encoded_as_if_it_stood_alone():
    composer = make_composer()
    whole = composer.encode(scale(4)).posterior.mu
    second = composer.encode(scale(4), bar=2).posterior.mu
    np.testing.assert_allclose(whole[1:], second, atol=1e-6)


def test_the_reported_accuracy_is_the_share_of_steps_that_came_back():
    composer, song = make_composer(), scale(4)
    result = composer.reconstruct(song)
    before, after = composer.representation.to_tokens(song), composer.representation.to_tokens(result.song)
    # joining may turn a note held over a cut into another token at the cut; nothing else differs
    assert abs(result.accuracy - (before == after).mean()) <= 1 / 64


def test_rests_stay_rests_and_the_first_window_with_a_note_stands_for_the_song():
    composer, song = make_composer(), scale(2)
    tokens = np.concatenate([np.zeros((64, 1), np.int64), composer.representation.to_tokens(song)])
    late = composer.representation.to_song(tokens)
    back = composer.reconstruct(late)
    assert back.song.bars == 6 and (back.song.notes.start >= 64).all()
    assert back.accuracy == composer.reconstruct(song).accuracy
    assert composer.phrase(late).span.bar == 4 and composer.phrase(late, bar=1).span.bar == 3
    np.testing.assert_array_equal(composer.phrase(late).mu, composer.phrase(song).mu)


def test_decode_plays_one_vector_differently_each_time_but_temperature_zero_does_not():
    composer = make_composer()
    z = np.repeat(np.random.default_rng(0).normal(size=(1, 8)), 6, axis=0)
    played = composer.decode_tokens(z, temperature=1.0)
    likely = composer.decode_tokens(z, temperature=0.0)
    assert len(np.unique(played, axis=0)) > 1
    assert len(np.unique(likely, axis=0)) == 1


def test_a_song_that_is_too_short_says_so_and_can_be_padded():
    composer = make_composer("melody", 16, flat=False)
    with pytest.raises(ValueError, match=r"no melody of 16 bars in 4/4 \(longest found: 3 bars\).*--pad.*2-bar"):
        composer.encode(scale(3))
    assert composer.reconstruct(scale(3), pad=True).song.bars == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.zeros((2, 7))}, r"shape \(2, 7\).*\(N, 8\)"),
        ({"z": np.zeros(8)}, r"shape \(8,\)"),
        ({"z": np.full((1, 8), np.nan)}, "not finite"),
        ({"z": np.zeros((1, 8)), "temperature": -1}, "temperature of -1"),
        ({"z": np.zeros((1, 8)), "temperature": float("nan")}, "temperature of nan"),
    ],
)
def test_vectors_that_are_none_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make_composer().decode(**change)


def test_drums_for_a_melody_model_and_the_other_way_round_say_what_is_missing():
    with pytest.raises(ValueError, match="no melody"):
        make_composer().encode(scale(2, "drums"))
    with pytest.raises(ValueError, match="no drums"):
        make_composer("drums").encode(scale(2))


def test_a_track_that_does_not_exist_and_a_bar_after_the_end_are_named():
    with pytest.raises(ValueError, match=r"track 5 cannot be the melody; tracks that can: 1"):
        make_composer().encode(scale(2), instrument=4)
    with pytest.raises(ValueError, match="no bar 3; the song has bars 1 to 2"):
        make_composer().encode(scale(2), bar=2)


@pytest.mark.parametrize("change", [{"representation": "drums"}, {"representation": "trio"}])
def test_a_run_whose_music_is_not_its_models_is_refused(tmp_path, change):
    model = MusicVAE(ModelConfig((130,), 32, latent_size=4, encoder_units=4, decoder_units=4))
    save_run(tmp_path, model, RunConfig(representation="melody", model=model.config))
    assert load(tmp_path).steps == 32
    save_run(tmp_path, model, RunConfig(**{"model": model.config, **change}))
    with pytest.raises(ValueError, match="vocab_sizes \\(130,\\) and 32 steps"):
        load(tmp_path)
    odd = MusicVAE(ModelConfig((130,), 8, latent_size=4, encoder_units=4, decoder_units=4))
    save_run(tmp_path, odd, RunConfig(representation="melody", model=odd.config))
    with pytest.raises(ValueError, match="whole bars of 16 steps"):
        load(tmp_path)


def test_load_takes_a_run_folder_and_lists_the_box_otherwise(tmp_path):
    composer = make_composer()
    save_run(tmp_path / "run", composer.model, composer.config, half=True)
    loaded = load(tmp_path / "run")
    assert loaded.config.name == "test"
    np.testing.assert_allclose(loaded.encode(scale(2)).posterior.mu, composer.encode(scale(2)).posterior.mu, atol=1e-2)
    with pytest.raises(ValueError, match=r"no model 'mellody'.*in the box are"):
        find_model("mellody")
