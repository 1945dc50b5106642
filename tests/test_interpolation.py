"""The way from A to B: pairs, the mix of the data, distances, costs, and figure 3 from the command to the files."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import build, write
from smf import file, notes, track

from musicvae.composer import Composer
from musicvae.evaluation.estimates import estimate_means, estimate_ratios
from musicvae.evaluation.interpolation import (
    cost,
    draw_pairs,
    hamming,
    latent_paths,
    measure_paths,
    mixed_paths,
    relative_cost,
    train_language_models,
)
from musicvae.model.checkpoint import save_run
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import DatasetSettings
from musicvae.music.representation import Melody, Trio

torch.set_num_threads(1)

PAPER = Path(__file__).parent.parent / "paper"
POINTS = np.linspace(0, 1, 11)


def composer(vocab_sizes=(130,), steps=32, bars=2, name="tiny") -> Composer:
    """Random weights, large enough that every z writes something of its own."""
    torch.manual_seed(0)
    sizes = {"encoder_units": 8, "conductor_units": 8, "condition_size": 8, "decoder_units": 8}
    model = MusicVAE(ModelConfig(vocab_sizes, steps, bars, latent_size=6, encoder_layers=1, **sizes)).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(4)
    kind = Melody() if len(vocab_sizes) == 1 else Trio()
    return Composer(model, RunConfig(name=name, representation=kind.name, model=model.config), kind)


def windows(n: int, steps: int = 32, vocab_sizes=(130,), seed: int = 0) -> np.ndarray:
    """Random walks: 4 tokens in 5 are 0."""
    rng = np.random.default_rng(seed)
    streams = [rng.integers(1, v, (n, steps)) * (rng.random((n, steps)) < 0.2) for v in vocab_sizes]
    return np.stack(streams, axis=-1).astype(np.uint16)


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_are_of_two_groups_and_every_other_window_can_be_the_second():
    groups = np.array([7, 7, 3, 7, 9, 3])
    pairs = draw_pairs(groups, 3000, seed=1)
    assert (groups[pairs.a] != groups[pairs.b]).all()
    times = np.zeros((6, 6), int)
    np.add.at(times, (pairs.a, pairs.b), 1)
    assert (times.sum(1) == 500).all(), "no window is A twice before all were"
    for a in range(6):
        others = groups != groups[a]
        assert (times[a] > 0).tolist() == others.tolist()
        assert times[a][others] == pytest.approx(500 / others.sum(), abs=70)


def test_the_same_seed_draws_the_same_pairs():
    groups = np.arange(50) // 3
    first, same, other = (draw_pairs(groups, 20, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, same) and not np.array_equal(first, other)


@pytest.mark.parametrize(("groups", "n", "why"), [([4, 4, 4], 2, "of one group"), ([1, 2], 0, "at least 1")])
def test_pairs_that_cannot_be_are_refused(groups, n, why):
    with pytest.raises(ValueError, match=why):
        draw_pairs(np.array(groups), n, 0)


# --- the mix of the data, and distances ------------------------------------------------------------------------------


def test_the_mix_is_a_at_one_end_and_b_at_the_other():
    a, b = windows(5), windows(5, seed=1)
    paths = mixed_paths(a, b, POINTS)
    assert np.array_equal(paths[0], a) and np.array_equal(paths[-1], b)


def test_the_distance_of_the_mix_from_a_is_linear_in_alpha():
    a, b = windows(3000), windows(3000, seed=1)
    distance = hamming(mixed_paths(a, b, POINTS, seed=5), a).mean(axis=1)
    assert distance == pytest.approx(POINTS * (a != b).mean(), abs=0.005)


def test_each_step_of_the_mix_is_drawn_for_itself_and_turns_over_once():
    a, b = np.zeros((2000, 32, 3), int), np.ones((2000, 32, 3), int)
    paths = mixed_paths(a, b, POINTS)
    assert (np.diff(paths, axis=0) >= 0).all()
    assert (paths == paths[..., :1]).all(), "the streams of a step go together"
    half = paths[5, :, :, 0]
    assert half.mean() == pytest.approx(0.5, abs=0.01)
    assert np.abs(np.corrcoef(half.T) - np.eye(32)).max() < 0.12


def test_hamming_distance_counts_differing_tokens():
    a = np.array([[[60], [0], [0], [62]]])
    assert hamming(a, np.array([[[60], [0], [1], [64]]]))[0] == 2 / 4
    assert hamming(a, a)[0] == 0


# --- the way through z -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("vocab_sizes", "bars"), [((130,), 1), ((130,), 2), ((130, 130, 512), 2)])
def test_the_ends_of_a_latent_path_are_reconstructions_and_ways_back_are_the_same(vocab_sizes, bars):
    model = composer(vocab_sizes, 8, bars)
    a, b = windows(6, 8, vocab_sizes), windows(6, 8, vocab_sizes, seed=1)
    paths = latent_paths(model, a, b, POINTS, temperature=0.5, seed=3)
    assert paths.shape == (11, *a.shape)
    for end, original in ((0, a), (-1, b)):
        assert np.array_equal(paths[end], model.decode_tokens(model.encode_tokens(original).mu, 0.5, 3))
    assert (paths[0] != paths[5]).any() and (paths[5] != paths[-1]).any()
    assert np.array_equal(latent_paths(model, b, a, POINTS, temperature=0.5, seed=3)[::-1], paths)


def test_a_path_from_a_window_to_itself_does_not_move_though_it_is_drawn_by_chance():
    a = windows(6, 8)
    paths = latent_paths(composer(steps=8), a, a, POINTS, temperature=1.0)
    assert (paths == paths[0]).all()


# --- cost ------------------------------------------------------------------------------------------------------------


def test_cost_is_relative_to_the_originals_at_their_share():
    relative = relative_cost(np.array([10.0]), np.array([30.0]), np.array([[10.0], [20.0], [60.0]]), POINTS[[0, 5, 10]])
    assert relative[:, 0] == pytest.approx([1, 1, 2])


def test_the_mean_is_of_ratios():
    """Two pairs with costs 1 and 100 of the originals, doubled and halved: 1.25, where the ratio of means is 0.51."""
    ends = np.array([1.0, 100.0])
    relative = relative_cost(ends, ends, np.array([[2.0, 50.0]]), np.array([0.5]))
    assert estimate_means(relative.T, np.arange(2))[0].value == 1.25


def test_the_cost_of_a_trio_is_the_sum_of_its_streams():
    tokens = windows(40, vocab_sizes=(130, 130, 512))
    models = train_language_models(tokens)
    alone = [train_language_models(tokens[..., i : i + 1])[0].cost(tokens[..., i]) for i in range(3)]
    assert cost(models, tokens) == pytest.approx(np.sum(alone, axis=0))


def test_curves_of_the_data():
    """Noise between two tunes: the mix costs more than its ends, and its curves are those of a straight way."""
    rng, scale = np.random.default_rng(0), np.tile(np.arange(62, 70), 4)
    music = (scale + rng.integers(0, 40, (400, 1)))[..., None]
    a, b = music[:200], music[200:]
    models, groups = train_language_models(music), np.arange(200) // 4
    curve = measure_paths("data", mixed_paths(a, b, POINTS), a, b, models, POINTS, groups)
    assert [curve.cost[0].value, curve.cost[-1].value] == pytest.approx([1, 1])
    assert curve.hump > 0.5 and curve.hump == pytest.approx(max(e.value for e in curve.cost) - 1)
    apart = (a != b).mean()
    assert [e.value for e in curve.to_a] == pytest.approx(POINTS * apart, abs=0.01)
    assert [e.value for e in curve.to_b] == pytest.approx((1 - POINTS) * apart, abs=0.01)
    assert [e.value for e in curve.jump] == pytest.approx([apart / 10] * 10, abs=0.01)
    assert apart / 10 < curve.largest_jump.value < 0.3
    assert curve.asymmetry < 0.02
    assert all(e.low < e.value < e.high for e in curve.to_a[1:])


def test_a_path_that_jumps_says_so():
    a, b = windows(30), windows(30, seed=1)
    paths = np.stack([a] * 6 + [b] * 5)
    curve = measure_paths("jump", paths, a, b, train_language_models(a), POINTS, np.arange(30))
    assert curve.largest_jump.value == pytest.approx((a != b).mean())
    assert [e.value > 0 for e in curve.jump] == [i == 5 for i in range(10)]
    assert curve.asymmetry == pytest.approx((a != b).mean()), "the middle is still A: B to A would change elsewhere"


# --- estimates -------------------------------------------------------------------------------------------------------


def test_intervals_are_over_groups_as_a_song_is_one_observation_however_long():
    rng = np.random.default_rng(0)
    song = rng.normal(size=20)
    one = estimate_means(song[:, None], np.arange(20))[0]
    many = estimate_means(np.repeat(song, 50)[:, None], np.repeat(np.arange(20), 50))[0]
    assert many.value == pytest.approx(one.value) == pytest.approx(song.mean())
    assert many.high - many.low == pytest.approx(one.high - one.low)
    assert one.high - one.low == pytest.approx(2 * 1.96 * song.std() / np.sqrt(20), rel=0.15)


def test_a_ratio_of_nothing_is_not_a_number_and_one_group_has_no_interval():
    estimate = estimate_ratios(np.array([[1, 3]]), np.array([[0, 4]]), np.array([5]))
    assert np.isnan(estimate[0].value) and estimate[1].value == 0.75
    assert estimate[1].low is estimate[1].high is None


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Windows of 16 bars from 8 songs of 17 bars."""
    folder, rng = tmp_path_factory.mktemp("interpolation"), np.random.default_rng(0)
    for n in range(8):
        pitches = rng.integers(55, 80, 272)
        write(folder / "in", {f"{n}.mid": file(track(*notes(*((s, int(pitches[s]), 2) for s in range(0, 272, 2)))))})
    return build([folder / "in"], DatasetSettings("melody", 16), folder / "out").folder


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, PAPER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figure_3_from_the_command_to_the_files(data, tmp_path, capsys):
    for name, bars in (("melody-16", 16), ("melody-16-flat", 1)):
        tiny = composer(steps=256, bars=bars, name=name)
        save_run(tmp_path / name, tiny.model, tiny.config)
    models = [str(tmp_path / "melody-16"), str(tmp_path / "melody-16-flat")]
    out = tmp_path / "results" / "figure3.svg"
    files = ["--out", str(out), "--arpa", str(tmp_path / "model.arpa.gz")]
    script("figure3").main([str(data), *models, "--split", "train", "--pairs", "5", "--points", "3", *files])
    printed = capsys.readouterr().out
    results = json.loads(out.with_suffix(".json").read_text())
    names = ["data", "melody-16 (hierarchical)", "melody-16-flat"]
    assert [curve["name"] for curve in results["curves"]] == names
    assert all(name in printed for name in names)
    assert (results["pairs"], results["bars"], results["temperature"]) == (5, 16, 0.5)
    assert all(len(curve[key]) == 3 for curve in results["curves"] for key in ("points", "to_a", "to_b", "cost"))
    picture = out.read_text()
    assert picture.count("<svg") == 1 and len(picture) > 10_000
    assert (tmp_path / "model.arpa.gz").stat().st_size > 1000


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--pairs", "0"], "0 pairs; must be at least 1"),
        (["--points", "1"], "1 points; the two ends"),
        (["--out", "figure.txt"], "not the name of a picture"),
        (["--order", "40"], "an order of 40"),
    ],
)
def test_mistakes_are_one_line(data, tmp_path, more, why):
    tiny = composer(steps=256, bars=16)
    save_run(tmp_path / "run", tiny.model, tiny.config)
    with pytest.raises(SystemExit, match=f"error: .*{why}"):
        script("figure3").main(
            [str(data), str(tmp_path / "run"), "--split", "train", "--out", str(tmp_path / "a.png"), *more]
        )


def test_a_data_set_of_another_kind_is_refused(data, tmp_path):
    with pytest.raises(SystemExit, match=r"holds melody(-90)? of 16 bars"):
        script("figure3").main([str(data), "melody-2", "--out", str(tmp_path / "a.png")])
