"""The figures of an evaluation, each against a value worked out by hand or another way to the same number."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.distributions import Normal, kl_divergence

from musicvae.evaluation import reconstruction
from musicvae.evaluation.reconstruction import (
    WAYS,
    bootstrap,
    count,
    draw_windows,
    evaluate_reconstruction,
    reconstruction_table,
    shares,
)
from musicvae.evaluation.statistics import compare, sample_statistics, sounding
from musicvae.model.checkpoint import arrays
from musicvae.model.config import ModelConfig
from musicvae.model.player import Player
from musicvae.model.vae import MusicVAE

torch.set_num_threads(1)  # models this small are slower on two

TRIO = ("melody", "melody", "drums")
C4, D4, E4, C5 = (2 + pitch for pitch in (60, 62, 64, 72))  # tokens
KICK, SNARE, HAT = 1, 2, 4
VALUES = {"melody": (0, 0, 0, 1, C4, E4), "drums": (0, 0, KICK, KICK + HAT, SNARE)}


class Recorder(Player):
    """A real player whose model keeps, as tensors, what it was asked for and what it wrote."""

    def __init__(self, model):
        super().__init__(model.config, arrays(model))
        self.calls = model.calls

    def decode(self, z, uniforms=None, temperature=1.0):
        tokens = super().decode(z, uniforms, temperature)
        z, uniforms, written = (x if x is None else torch.from_numpy(x) for x in (z, uniforms, tokens))
        self.calls.append((z, uniforms, temperature, written))
        return tokens


@pytest.fixture(autouse=True)
def recorder(monkeypatch):
    monkeypatch.setattr(reconstruction, "player_of", Recorder)


def tiny(vocab_sizes=(130, 130, 512), steps=8, bars=2, latent_size=6):
    torch.manual_seed(0)
    sizes = {"encoder_units": 8, "conductor_units": 8, "condition_size": 8, "decoder_units": 8}
    model = MusicVAE(ModelConfig(vocab_sizes, steps, bars, latent_size, encoder_layers=1, **sizes))
    model.calls = []
    with torch.no_grad():  # an untrained model says the same of everything: let it vary from window to window
        for weights in model.parameters():
            weights.mul_(4)
        for decoder in model.decoders:  # and write the tokens that there are in `music`, so that it is right at times
            for bias in decoder.to_logits.bias.split(decoder.vocab_sizes):
                bias[list(VALUES["drums" if len(bias) == 512 else "melody"])] += 6
    return model


def music(n, steps=8, kinds=TRIO, seed=0):
    """n windows of a few tokens each, drawn at random."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(VALUES[kind], size=(n, steps)) for kind in kinds], axis=-1).astype(np.uint16)


def evaluate(model, tokens, kinds=TRIO, groups=None, **settings):
    groups = np.arange(len(tokens)) if groups is None else groups
    return evaluate_reconstruction(model, tokens, groups, kinds=kinds, **{"resamples": 50, **settings})


def window(*bar, steps=16):
    """One melody or drum stream (1, steps, 1) from its first tokens."""
    return np.array(list(bar) + [0] * (steps - len(bar)))[None, :, None]


# --- reconstruction: what is measured ----------------------------------------------------------------------------


def test_sampled_and_greedy_scores_are_those_of_what_the_decoder_wrote():
    model, tokens = tiny(), music(20)
    with torch.no_grad():
        model.to_sigma.bias += 4  # far from 1, so that sigma is not taken for its square
    report = evaluate(model, tokens)
    (z, u, t, drawn), (mu, u_mu, t_mu, from_mu), (greedy_z, _, t_greedy, greedy) = model.calls
    assert (t, t_mu, t_greedy) == (1, 1, 0)
    posterior = model.encode(torch.from_numpy(tokens.astype(np.int64)))
    assert torch.allclose(mu, posterior.mean) and torch.equal(greedy_z, mu) and torch.equal(u, u_mu)
    noise = (z - mu) / posterior.stddev
    assert abs(noise.mean()) < 0.3 and 0.8 < noise.std() < 1.2
    for i, stream in enumerate(report.streams):
        for way, written in (("sampled", drawn), ("sampled_mu", from_mu), ("greedy_mu", greedy)):
            right = (written[..., i].numpy() == tokens[..., i]).mean()
            assert getattr(stream, way).accuracy.value == pytest.approx(right) and right > 0.05
    assert len({tuple(w.flatten().tolist()) for w in (drawn, from_mu, greedy)}) == 3


def test_z_and_the_tokens_written_from_it_share_no_random_numbers():
    model = tiny((130,), steps=16, latent_size=16)
    evaluate(model, music(200, 16, ("melody",)), kinds=("melody",))
    (z, uniforms, _, _), (mu, *_), _ = model.calls
    together = torch.stack([(z - mu).flatten(), uniforms.flatten()])
    assert abs(torch.corrcoef(together)[0, 1]) < 0.08  # one seed for both gives about -0.3


def test_teacher_forced_scores_and_entropy_are_those_of_predict_steps():
    model, tokens = tiny(), music(12)
    report = evaluate(model, tokens)
    true = torch.from_numpy(tokens.astype(np.int64))
    with torch.no_grad():
        for way, z in (("teacher_forced", model.calls[0][0]), ("teacher_forced_mu", model.encode(true).mean)):
            for i, (logits, stream) in enumerate(zip(model.predict_steps(true, z), report.streams)):
                right = (logits.argmax(-1) == true[..., i]).double().mean().item()
                assert getattr(stream, way).accuracy.value == pytest.approx(right)
                if way == "teacher_forced":
                    nats = -torch.log_softmax(logits, -1).gather(-1, true[..., i : i + 1]).mean().item()
                    assert stream.cross_entropy == pytest.approx(nats, rel=1e-5)


def test_kl_is_that_of_torch_distributions_in_bits():
    model, tokens = tiny(), music(12)
    posterior = model.encode(torch.from_numpy(tokens.astype(np.int64)))
    nats = kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1).mean().item()
    assert nats > 0.1
    assert evaluate(model, tokens, batch_size=5).kl_bits == pytest.approx(nats / math.log(2), rel=1e-5)


def test_active_units_are_those_whose_mu_moves():
    model, tokens = tiny(), music(12)
    with torch.no_grad():
        model.to_mu.weight[2:] = 0
        model.to_mu.bias[:] = 3  # a constant mu carries nothing, however large
    report = evaluate(model, tokens, batch_size=5)
    assert (report.active_units, report.latent_size) == (2, 6)


def test_always_nothing_scores_the_share_of_zeros_and_no_onset():
    tokens = music(12)
    report = evaluate(tiny(), tokens)
    for i, stream in enumerate(report.streams):
        assert stream.nothing.accuracy.value == pytest.approx((tokens[..., i] == 0).mean())
        assert stream.nothing.onset_f1.value == 0


def test_onset_f1_of_three_notes():
    true = window(C4, 0, 0, 0, D4, 0, 0, 0, E4)
    for written, f1 in [
        (true, 1),
        (window(C4, 0, 0, 0, 0, D4, 0, 0, C5), 1 / 3),  # one right, one a step late, one of another pitch
        (window(C4), 1 / 2),  # 1 of 1 written, 1 of 3 true
        (window(C4, 1, 0, 0, D4, 1, 0, 0, E4, 1), 1),  # offs are no onsets
        (window(), 0),
    ]:
        assert shares(count(written, true, ("melody",)).sum(0))[0, 1] == pytest.approx(f1)


def test_onset_f1_of_drums_counts_each_class_hit():
    true, written = window(KICK + HAT, 0, SNARE), window(KICK, HAT, SNARE + HAT)
    accuracy, f1 = shares(count(written, true, ("drums",)).sum(0))[0]
    assert accuracy == 13 / 16
    assert f1 == pytest.approx(2 * 2 / (3 + 4))  # kick and snare; 3 true hits, 4 written


def test_f1_is_micro_and_the_mean_is_over_streams():
    true = np.concatenate([window(C4, C4, C4), window(D4)])
    written = np.concatenate([window(C4, C4, C4), window(E4)])
    assert shares(count(written, true, ("melody",)).sum(0))[0, 1] == 3 / 4  # not the mean of 1 and 0
    both = count(np.concatenate([written, true], -1), np.concatenate([true, true], -1), ("melody", "melody")).sum(0)
    assert shares(both)[:, 1].tolist() == [3 / 4, 1, 7 / 8]


# --- reconstruction: intervals -----------------------------------------------------------------------------------


def test_bootstrap_of_two_groups_has_three_outcomes():
    totals = bootstrap(np.array([[0.0, 1.0], [1.0, 1.0]]), 2000, seed=0)  # right, steps
    values, times = np.unique(totals[:, 0] / totals[:, 1], return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert np.allclose(times / 2000, [1 / 4, 1 / 2, 1 / 4], atol=0.04)


def test_bootstrap_does_not_hang_on_how_many_fit_in_memory_at_once():
    sums = np.random.default_rng(0).random((2**20, 1))  # four resamples at a time
    assert np.allclose(bootstrap(sums, 6, seed=0)[:4], bootstrap(sums, 4, seed=0))


def test_intervals_hold_the_value_and_shrink_with_groups_not_with_repeats():
    model, tokens = tiny((130,)), music(64, kinds=("melody",))
    settings = {"kinds": ("melody",), "resamples": 500}

    def width(tokens, groups):
        estimate = evaluate(model, tokens, groups=groups, **settings).streams[0].nothing.accuracy
        assert estimate.low < estimate.value < estimate.high
        return estimate.high - estimate.low

    few, many = width(tokens[:8], np.arange(8)), width(tokens, np.arange(64))
    assert many < 0.7 * few
    repeated = width(np.repeat(tokens[:8], 8, axis=0), np.repeat(np.arange(8), 8))  # 64 windows, still 8 songs
    assert repeated == pytest.approx(few)
    assert width(np.repeat(tokens[:8], 8, axis=0), np.arange(64)) < 0.7 * few  # what groups guard against


def test_one_group_has_no_interval():
    model, tokens = tiny(), music(3)
    report = evaluate(model, tokens, groups=np.zeros(3))
    assert (report.groups, report.windows) == (1, 3)
    assert report.mean.sampled.accuracy.low is None
    assert report.mean.sampled.accuracy.value == pytest.approx(evaluate(model, tokens).mean.sampled.accuracy.value)
    assert "-" in shown(reconstruction_table(report))


# --- reconstruction: what it hangs on ----------------------------------------------------------------------------


def flat(report):
    """Every number of a report, in order."""
    if isinstance(report, dict):
        report = list(report.values())
    if isinstance(report, list | tuple):
        return [number for part in report for number in flat(part)]
    return [report] if isinstance(report, int | float) else []


@pytest.mark.parametrize("bars", [1, 2])
def test_batch_size_changes_nothing(bars):
    model, tokens = tiny(bars=bars), music(13)
    whole, *others = (flat(dataclasses.asdict(evaluate(model, tokens, batch_size=n))) for n in (13, 1, 5))
    assert len(whole) > 4 * 6 * 6
    for other in others:
        assert other == pytest.approx(whole, rel=1e-5, abs=1e-7)


def test_the_seed_decides_the_draws_and_nothing_else_does():
    model, tokens = tiny(), music(30)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = evaluate(model, tokens, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert evaluate(model, tokens, seed=1) == one
    two = evaluate(model, tokens, seed=2)
    assert two.mean.sampled.accuracy.value != one.mean.sampled.accuracy.value
    assert two.mean.greedy_mu.accuracy.value == one.mean.greedy_mu.accuracy.value
    assert two.kl_bits == one.kl_bits


def test_the_model_is_left_as_it_was():
    model, tokens = tiny(), music(3)
    for training in (True, False):
        model.train(training)
        evaluate(model, tokens)
        assert model.training is training
        with pytest.raises(ValueError, match="stream 2 has tokens"):
            evaluate(model, np.where(np.arange(3) == 2, 600, 0) * np.ones((3, 8, 1), int))
        assert model.training is training and torch.is_grad_enabled()
    assert all(weights.grad is None for weights in model.parameters())


def test_a_model_that_learned_its_windows_scores_high_through_z_alone():
    model, tokens = tiny((130,), bars=1), music(4, kinds=("melody",))
    torch.manual_seed(0)
    true, adam = torch.from_numpy(tokens.astype(np.int64)), torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(100):
        (logits,) = model.predict_steps(true, model.encode(true).mean)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), true.flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
    melody = evaluate(model, tokens, kinds=("melody",)).streams[0]
    assert melody.greedy_mu.accuracy.value == melody.greedy_mu.onset_f1.value == 1
    assert melody.sampled_mu.accuracy.value > 0.9 > melody.nothing.accuracy.value
    with torch.no_grad():
        model.to_mu.weight.zero_()  # all windows at one z: no better than one window for all
    assert evaluate(model, tokens, kinds=("melody",)).streams[0].greedy_mu.accuracy.value < 0.8


def test_reading_only_what_it_needs_of_a_read_only_array():
    tokens = music(5)
    tokens.flags.writeable = False
    heard = []
    evaluate(tiny(), tokens, batch_size=2, on_batch=heard.append)
    assert heard == [2, 4, 5]


@pytest.mark.parametrize(
    "tokens, groups, kinds, message",
    [
        pytest.param(music(0), [], TRIO, "at least one window", id="no windows"),
        pytest.param(music(2), [1], TRIO, "one group each", id="too few groups"),
        pytest.param(music(2), [1, 2], ("melody",), "expected integers", id="another number of streams"),
        pytest.param(music(2) * 1.0, [1, 2], TRIO, "float64", id="no integers"),
        pytest.param(music(2), [1, 2], ("melody", "bass", "drums"), "known are melody, drums", id="unknown kind"),
        pytest.param(music(2, steps=16), [1, 2], TRIO, "8 steps", id="windows of another length"),
    ],
)
def test_errors(tokens, groups, kinds, message):
    with pytest.raises(ValueError, match=message):
        evaluate_reconstruction(tiny(), tokens, np.array(groups), kinds=kinds)


def test_draw_windows():
    few, more = draw_windows(100, 5, seed=3), draw_windows(100, 20, seed=3)
    assert len(set(few)) == 5 and few.tolist() == sorted(few) and set(few) <= set(more)
    assert few.tolist() != draw_windows(100, 5, seed=4).tolist()
    assert draw_windows(4, None, 0).tolist() == draw_windows(4, 9, 0).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at least 1"):
        draw_windows(4, 0, 0)


def test_the_report_is_json_and_a_table_that_names_every_way():
    report = evaluate(tiny(), music(6))
    assert json.loads(json.dumps(dataclasses.asdict(report), allow_nan=False))["streams"][1]["name"] == "bass"
    text = shown(reconstruction_table(report))
    for words in (*WAYS.values(), "melody", "bass", "drums", "mean", f"{report.kl_bits:.1f} bits", "6 groups"):
        assert words in text
    single = evaluate(tiny((512,)), music(6, kinds=("drums",)), kinds=("drums",))
    assert single.mean is None and [s.name for s in single.streams] == ["drums"]


def shown(table):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))
    console.print(table)
    return console.export_text()


# --- statistics of samples ---------------------------------------------------------------------------------------


def melody(*windows, steps=16, training=None):
    tokens = np.concatenate([window(*w, steps=steps) for w in windows])
    training = None if training is None else np.concatenate([window(*w, steps=steps) for w in training])
    return sample_statistics(tokens, ("melody",), training).streams[0]


def test_notes_a_bar_and_silence():
    stream = melody((C4, 0, 1, 0, D4, 0, 0, 1), (0, 0, 0, 0, E4))
    assert stream.onsets_a_bar == 3 / 2
    assert stream.silence == (16 - 5 + 4) / 32  # 2 + 3 steps sound in the first, all but 4 in the second
    assert melody((C4, *[0] * 31), steps=32).onsets_a_bar == 1 / 2


def test_sounding():
    assert sounding(np.array([[0, 1, C4, 0, D4, 1, 0], [C4, C4, 1, 1, 0, 0, C4]])).astype(int).tolist() == [
        [0, 0, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 0, 1],
    ]


def test_pitch_range_and_entropy_are_means_over_windows_with_a_note():
    stream = melody((C4, E4, C5), (D4,), ())
    assert stream.pitch_range == (12 + 0) / 2
    share = 2 / 3  # C, C an octave higher, E
    bits = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    assert stream.pitch_class_entropy == pytest.approx((bits + 0) / 2)
    assert melody(()).pitch_range is melody(()).pitch_class_entropy is None


def test_one_note_and_distinct_windows():
    stream = melody((C4, 0, C4, 1, C4), (), (C4, C5), (C4, C5), (0, C4, C5))
    assert stream.one_note == 2 / 5
    assert stream.distinct == 4 / 5


def test_copies_exactly_and_up_to_transposition():
    up = (D4, 0, E4)
    stream = melody((C4, 0, D4), up, (0, C4, D4), (), training=[up, (E4,)])
    assert stream.copies == 1 / 4
    assert stream.copies_transposed == 2 / 4
    assert melody((C4,), training=[(D4, 1)]).copies_transposed == 0  # the off does not move with the notes
    assert melody((C4, 1), training=[(D4, 1)]).copies_transposed == 1
    assert melody((C4,)).copies is melody((C4,)).copies_transposed is None


def test_copies_are_found_across_types_and_among_many():
    rng = np.random.default_rng(0)
    training = rng.integers(130, size=(300_000, 16, 1), dtype=np.uint8)  # more than are looked at in one go
    tokens = training[[0, 299_999]].astype(np.int64)
    tokens = np.concatenate([tokens, np.where(tokens[:1] == tokens[0, 5, 0], 0, tokens[:1])])
    whole = sample_statistics(tokens, ("melody",), training)
    assert whole.copies == whole.copies_transposed == 2 / 3


def test_a_trio_is_transposed_by_one_shift_and_its_drums_by_none():
    def trio(a, b, drums):
        return np.concatenate([window(a), window(b), window(drums)], axis=-1)

    training = trio(C4, C5, 5)
    for tokens, exact, transposed in [
        (trio(C4, C5, 5), 1, 1),
        (trio(C4 + 2, C5 + 2, 5), 0, 1),
        (trio(C4 + 2, C5 + 1, 5), 0, 0),
        (trio(C4 + 2, C5 + 2, 7), 0, 0),
    ]:
        statistics = sample_statistics(tokens, TRIO, training)
        assert (statistics.copies, statistics.copies_transposed) == (exact, transposed)
        assert [s.copies_transposed for s in statistics.streams] == [1, 1, None]
    assert [s.name for s in statistics.streams] == ["melody", "bass", "drums"]


def test_drums():
    tokens = np.concatenate([window(KICK + HAT, 0, SNARE, 0, KICK), window(KICK, KICK), window()])
    stream = sample_statistics(tokens, ("drums",), tokens[:1]).streams[0]
    assert stream.onsets_a_bar == 6 / 3
    assert stream.silence == (48 - 5) / 48
    assert {c: h for c, h in stream.hits_a_bar.items() if h} == {"kick": 4 / 3, "snare": 1 / 3, "closed hi-hat": 1 / 3}
    assert stream.one_note == 2 / 3
    assert stream.copies == 1 / 3
    assert stream.pitch_range is stream.pitch_class_entropy is stream.copies_transposed is None


def test_compare_puts_the_sets_side_by_side():
    real = sample_statistics(window(C4, 0, 1), ("melody",), window(C4, 0, 1))
    samples = {t: sample_statistics(window(*w), ("melody",)) for t, w in (("at 0.5", ()), ("at 1", (C4, D4, E4)))}
    lines = shown(compare(real, samples)).splitlines()
    (notes,) = [line for line in lines if "notes a bar" in line]
    assert [cell.strip() for cell in notes.split("│")[3:6]] == ["1.00", "0.00", "3.00"]
    (copies,) = [line for line in lines if "copies" in line and "transposition" not in line]
    assert [cell.strip() for cell in copies.split("│")[3:6]] == ["100.0 %", "-", "-"]
    json.dumps(dataclasses.asdict(real), allow_nan=False)


def test_statistics_of_nothing_or_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="at least one window"):
        sample_statistics(np.zeros((0, 16, 1), int), ("melody",))
    with pytest.raises(ValueError, match=r"training windows of shape \(32, 1\)"):
        sample_statistics(window(C4), ("melody",), window(C4, steps=32))
