"""The latent space from Python and the command line: interpolations, averages, variations, grids, bent songs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders import write
from smf import file, notes, track

from musicvae.composer import Composer, load
from musicvae.model.latent import slerp
from musicvae.model.vectors import ATTRIBUTES, save_vectors
from musicvae.music.attributes import measure
from musicvae.music.cutting import cut, paste
from musicvae.music.midi import Piece, Song, join
from musicvae.music.representation import Melody

TUNES = {  # of one, two and four windows of two bars
    "a": [(0, 60, 4), (4, 64, 4), (8, 67, 8), (16, 65, 4), (20, 64, 4), (24, 62, 8)],
    "b": [(step, 72 - step % 5, 2) for step in range(0, 64, 2)],
    "c": [(step, 48 + step % 7, 1) for step in range(0, 128, 3)],
    "d": [(0, 70, 16), (16, 69, 16), (32, 67, 30)],
}
TEMPOS = {"a": 80.0, "b": 120.0, "c": 80.0, "d": 150.0}


@pytest.fixture(scope="module")
def composer() -> Composer:
    return load("melody-2")


@pytest.fixture(scope="module")
def midi(tmp_path_factory) -> Path:
    songs = {name: Song.read(file(track(*notes(*line)))).with_tempo(TEMPOS[name]) for name, line in TUNES.items()}
    return write(tmp_path_factory.mktemp("midi"), {f"{name}.mid": song.to_bytes() for name, song in songs.items()})


@pytest.fixture(scope="module")
def tunes(midi) -> dict[str, Song]:
    return {name: Song.read(midi / f"{name}.mid") for name in TUNES}


def same(a: Song, b: Song) -> bool:
    return a.pieces == b.pieces and a.tempos == b.tempos and all(np.array_equal(x, y) for x, y in zip(a.notes, b.notes))


def first_window(composer: Composer, song: Song) -> Song:
    """The reconstruction of the first two bars alone."""
    tokens = composer.representation.to_tokens(song)[:32]
    return composer.reconstruct(composer.representation.to_song(tokens, song.tempo)).song


# --- Python ------------------------------------------------------------------------------------------------------


def test_the_ends_of_an_interpolation_are_reconstructions_and_the_tempo_goes_along(composer, tunes):
    way = composer.interpolate(tunes["a"], tunes["b"], 5)
    assert len(way) == 5 and same(way[0], first_window(composer, tunes["a"]))
    assert same(way[-1], first_window(composer, tunes["b"]))
    assert [song.tempo for song in way] == [80, 90, 100, 110, 120]


def test_the_ends_are_reconstructions_at_any_temperature(composer, tunes):
    short = composer.representation.to_song(composer.representation.to_tokens(tunes["b"])[:32], 120)
    way = composer.interpolate(tunes["a"], short, 3, temperature=1.0, seed=5)
    for end, song in ((way[0], tunes["a"]), (way[-1], short)):
        assert same(end, composer.reconstruct(song, temperature=1.0, seed=5).song)


def test_a_straight_way_and_a_turning_one_have_the_same_ends_only(composer, tunes):
    turning, straight = (composer.interpolate(tunes["a"], tunes["d"], 9, linear=flag) for flag in (False, True))
    assert same(turning[0], straight[0]) and same(turning[-1], straight[-1])
    assert not all(same(x, y) for x, y in zip(turning, straight))


def test_the_edges_of_a_grid_are_interpolations(composer, tunes):
    a, b, c, d = (tunes[name] for name in "abcd")
    rows = composer.grid([a, b, c, d], 3)
    edges = [(rows[0], a, b), (rows[-1], c, d), ([r[0] for r in rows], a, c), ([r[-1] for r in rows], b, d)]
    for edge, start, end in edges:
        assert all(same(x, y) for x, y in zip(edge, composer.interpolate(start, end, 3)))


def test_an_average_with_all_weight_on_one_song_is_its_reconstruction(composer, tunes):
    alone = composer.average([tunes["a"], tunes["b"]], [0, 2])
    assert same(alone, first_window(composer, tunes["b"]))
    assert composer.average([tunes["a"], tunes["b"]]).tempo == 100


def test_variations_go_from_the_reconstruction_to_draws_of_the_prior(composer, tunes):
    none, some, all_the_way = (composer.vary(tunes["a"], 3, amount, seed=7) for amount in (0.0, 0.5, 1.0))
    assert all(same(song, first_window(composer, tunes["a"])) for song in none)
    drawn = composer.sample(3, temperature=0, seed=7, tempo=tunes["a"].tempo)
    assert all(same(x, y) for x, y in zip(all_the_way, drawn))
    mu, prior = composer.phrase(tunes["a"]).mu, composer.draw(3, seed=7)
    halfway = composer.decode(slerp(mu, prior, 0.5), temperature=0, tempo=80)
    assert all(same(x, y) for x, y in zip(some, halfway))
    with pytest.raises(ValueError, match=r"amount of 1\.5"):
        composer.vary(tunes["a"], 3, 1.5)


def test_variations_that_are_none_are_told_of(musicvae, midi, tmp_path):
    words = ("vary", "melody-2", midi / "a.mid", "-n", 3, "--amount")
    code, said, _ = musicvae(*words, 0.0, "--out", tmp_path / "none")
    assert code == 0 and "only 1 of 3 differ; for more, an --amount above 0 or a --temperature above 0" in said
    code, said, _ = musicvae(*words, 1.0, "--out", tmp_path / "all")
    assert code == 0 and "differ" not in said


def test_a_shift_by_nothing_is_a_reconstruction_and_shifts_add_up(composer, tunes):
    assert same(composer.shift(tunes["c"], {}).song, composer.reconstruct(tunes["c"]).song)
    x, y = np.random.default_rng(0).normal(size=(2, composer.latent_size))
    vectors = {"x": x, "y": y, "both": x - 0.5 * y}
    apart = composer.shift(tunes["c"], {"x": 1, "y": -0.5}, vectors=vectors).song
    assert same(apart, composer.shift(tunes["c"], {"both": 1}, vectors=vectors).song)
    assert not same(apart, composer.reconstruct(tunes["c"]).song)
    with pytest.raises(ValueError, match="no attribute 'z'; known are x, y, both"):
        composer.shift(tunes["c"], {"z": 1}, vectors=vectors)


def test_a_model_without_a_folder_has_no_attributes(composer):
    assert replace(composer, folder=None).attributes() == {}
    assert {"note-density", "average-pitch", "c-major"} <= set(composer.attributes())


def test_the_window_of_a_song_is_the_first_that_is_full():
    song = Song.read(file(track(*notes((0, 60, 4), (20, 62, 4), (84, 64, 4)))))
    upbeat = replace(song, pieces=(Piece(0, 16, 1), Piece(16, 96, 2)))  # one bar, then five
    parts = cut(upbeat, Melody(), 2, whole=False)
    assert [tuple(span) for span in parts.spans] == [(1, 2)] and parts.tokens.shape == (1, 32, 1)
    assert parts.tokens[0, 4, 0] == 64
    whole = cut(upbeat, Melody(), 2)
    assert [tuple(span) for span in whole.spans] == [(0, 1), (1, 2), (3, 2), (5, 1)]
    assert np.array_equal(paste(whole.tokens, whole.spans, Melody(), 120).notes.start, song.notes.start)


def test_songs_in_a_row_keep_their_tempos(tunes):
    both = join([tunes["a"], tunes["c"], tunes["b"]])
    assert both.tempos == ((0, 80), (32 + tunes["c"].steps, 120))


# --- the command line --------------------------------------------------------------------------------------------


def test_interpolate_writes_the_reconstructions_at_its_ends(musicvae, midi, tmp_path):
    a, out = midi / "a.mid", tmp_path / "way"
    code, said, _ = musicvae("interpolate", "melody-2", a, midi / "c.mid", "--steps", 4, "--joined", "--out", out)
    assert code == 0 and "a.mid: track 1" in said and "bars 1 to 2\n" in said and "bars 1 to 2 of 8" in said
    names = sorted(p.name for p in out.iterdir())
    assert names == sorted([f"a-to-c-melody-2-{i}.mid" for i in (1, 2, 3, 4)] + ["a-to-c-melody-2.mid"])
    musicvae("reconstruct", "melody-2", a, "--out", tmp_path / "a")
    assert (out / "a-to-c-melody-2-1.mid").read_bytes() == (tmp_path / "a" / "a-melody-2.mid").read_bytes()
    whole = Song.read(out / "a-to-c-melody-2.mid")
    assert whole.bars == 8 and whole.tempo == 80


def test_each_song_has_its_own_bar(musicvae, midi, tunes, composer, tmp_path):
    words = ("interpolate", "melody-2", midi / "b.mid", midi / "c.mid", "--steps", 2, "--bar", 3, 5)
    code, said, _ = musicvae(*words, "--out", tmp_path)
    assert code == 0 and "bars 3 to 4 of 4" in said and "bars 5 to 6 of 8" in said
    expected = composer.interpolate(*(composer.phrase(tunes[n], bar=bar) for n, bar in (("b", 2), ("c", 4))), 2)
    for path, song in zip(sorted(tmp_path.iterdir()), expected):
        assert path.read_bytes() == song.to_bytes()


def test_average_vary_and_grid_write_what_they_are_asked_for(musicvae, midi, tmp_path):
    files = [midi / f"{name}.mid" for name in "abcd"]
    code, _, _ = musicvae("average", "melody-2", *files[:3], "--weights", 1, 2, 1, "--out", tmp_path / "average")
    assert code == 0 and [p.name for p in (tmp_path / "average").iterdir()] == ["average-of-3-melody-2.mid"]
    code, _, _ = musicvae("vary", "melody-2", files[0], "-n", 3, "--amount", 0.8, "--out", tmp_path / "varied")
    assert code == 0 and len({p.read_bytes() for p in (tmp_path / "varied").iterdir()}) == 3
    code, _, _ = musicvae("grid", "melody-2", *files, "--size", 2, "--joined", "--out", tmp_path / "grid")
    names = sorted(p.name for p in (tmp_path / "grid").iterdir())
    assert code == 0 and names[0] == "grid-melody-2-row1-column1.mid" and len(names) == 5
    assert Song.read(tmp_path / "grid" / "grid-melody-2.mid").bars == 8


def test_apply_bends_every_window_of_a_song_and_says_what_became_of_it(musicvae, midi, composer, tunes, tmp_path):
    words = ("attribute", "apply", "melody-2", midi / "d.mid", "--set", "note-density=+1", "c-major=-0.5")
    code, said, _ = musicvae(*words, "--out", tmp_path)
    assert code == 0 and "2 windows of 2 bars" in said and "note-density" in said and "share of notes" in said
    (path,) = tmp_path.iterdir()
    assert path.name == "d-melody-2-note-density+1-c-major-0.5.mid"
    expected = composer.shift(tunes["d"], {"note-density": 1, "c-major": -0.5}).song
    assert path.read_bytes() == expected.to_bytes() and expected.bars == tunes["d"].bars


def test_a_sweep_goes_from_less_to_more(musicvae, midi, tmp_path):
    words = ("attribute", "sweep", "melody-2", midi / "a.mid", "--attribute", "note-density", "--joined")
    code, _, _ = musicvae(*words, "--out", tmp_path)
    paths = sorted(tmp_path.glob("*-note-density-*"))
    amounts = ["-1.5", "-1", "-0.5", "+0", "+0.5", "+1", "+1.5"]
    assert code == 0 and [p.stem.split("-density-")[1][2:] for p in paths] == amounts
    tokens = np.stack([Melody().to_tokens(Song.read(path)) for path in paths])
    density = measure(tokens, Melody())["note-density"]
    assert density[0] < density[3] < density[-1]
    assert Song.read(tmp_path / "a-melody-2-note-density.mid").bars == 14


def test_swap_takes_one_away_and_adds_the_other(musicvae, midi, composer, tunes, tmp_path):
    words = ("attribute", "swap", "melody-2", midi / "a.mid", "--from", "note-density", "--to", "average-pitch")
    code, _, _ = musicvae(*words, "--out", tmp_path)
    (path,) = tmp_path.iterdir()
    expected = composer.shift(tunes["a"], {"note-density": -1, "average-pitch": 1}).song
    assert code == 0 and path.read_bytes() == expected.to_bytes()


def test_an_attribute_of_ones_own_is_learnt_used_and_listed(musicvae, midi, tmp_path):
    for name, every in (("fast", 1), ("slow", 8)):
        rng = np.random.default_rng(every)
        tune = [(step, int(rng.integers(55, 75)), every) for step in range(0, 16 * 24, every)]
        write(tmp_path / name, {"tune.mid": file(track(*notes(*tune)))})
    vectors = tmp_path / "mine.safetensors"
    words = ("attribute", "learn", "melody-2", "--with", tmp_path / "fast", "--without", tmp_path / "slow")
    code, said, _ = musicvae(*words, "--name", "haste", "--measured", 4, "--out", vectors)
    assert code == 0 and "haste" in said
    assert sorted(p.name for p in tmp_path.glob("mine*")) == ["mine.json", "mine.safetensors"]
    code, said, _ = musicvae("attribute", "list", "melody-2", "--vectors", vectors, "--json")
    assert {"haste", "note-density"} <= set(json.loads(said)["attributes"]), "beside those of the model"
    code, _, _ = musicvae(
        *("attribute", "apply", "melody-2", midi / "a.mid", "--set", "haste=1", "busy=-1"),
        *("--vectors", vectors, "--out", tmp_path / "out"),
    )
    assert code == 0 and len(list((tmp_path / "out").iterdir())) == 1


def test_vectors_learnt_for_a_run_lie_in_its_folder(musicvae, data, composer, tmp_path):
    from musicvae.model.checkpoint import save_run

    run = tmp_path / "run"
    save_run(run, composer.model, composer.config)
    save_vectors(run / ATTRIBUTES, {"mine": np.ones(composer.latent_size)})
    code, said, err = musicvae("attribute", "learn", run, data.folder, "--windows", 100, "--measured", 4)
    assert code == 0, err
    assert "average-pitch" in said and {"mine", "average-pitch"} <= set(load(run).attributes())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("interpolate", "melody-2", "A", "B", "--steps", 1), "1 steps; an interpolation needs at least 2"),
        (("interpolate", "melody-2", "A", "B", "--bar", 1, 2, 3), "--bar has 3 values for 2 files"),
        (("interpolate", "melody-2", "A", "B", "--bar", 1, 9), "b.mid: no bar 9"),
        (("average", "melody-2", "A"), "at least two"),
        (("average", "melody-2", "A", "B", "--weights", 1), "1 weights for 2 files"),
        (("vary", "melody-2", "A", "--amount", 2), "an amount of 2"),
        (("attribute", "apply", "melody-2", "A", "--set", "density=1"), "no attribute 'density'; known are average-"),
        (("attribute", "apply", "melody-2", "A", "--set", "busy"), "write NAME=AMOUNT"),
        (("average", "melody-2", "A", "B", "--weights", "1e308", "1e308"), "they must be 0 or more"),
        (("interpolate", "melody-2", "A", "B", "--steps", 10**8), "from 1 to 10,000"),
        (("grid", "melody-2", "A", "B", "A", "B", "--size", 10**6), "from 1 to 10,000"),
        (("reconstruct", "melody-2", "A", "--track", 0), "no track '0'; there are 1"),
        (("attribute", "sweep", "melody-2", "A", "--attribute", "note-density", "--amounts"), "give one or more"),
        (("attribute", "sweep", "melody-2", "A", "--attribute", "x", "--amounts", 1, 1.00000001), "differ in six"),
        (("attribute", "swap", "melody-2", "A", "--from", "busy", "--to", "busy"), "two different attributes"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_mistakes_are_told_in_one_line(musicvae, midi, tmp_path, words, message):
    files = {"A": midi / "a.mid", "B": midi / "b.mid"}
    code, _, err = musicvae(*(files.get(word, word) for word in words), "--out", tmp_path)
    assert code == 1 and message in err and err.count("\n") == 1 and not any(tmp_path.iterdir())


def test_learning_needs_a_data_set_or_two_folders_and_a_place(musicvae, tmp_path):
    code, _, err = musicvae("attribute", "learn", "melody-2", tmp_path)
    assert code == 1 and "no run folder; say where" in err
    code, _, err = musicvae("attribute", "learn", "melody-2", "--with", tmp_path, "--out", tmp_path / "x")
    assert code == 1 and "--without another FOLDER" in err
