"""The stages of a training: what each sees and changes, how long it takes, and where the next one begins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from musicvae.model.checkpoint import load_run
from musicvae.model.config import PRIOR, ModelConfig, RunConfig, load_config
from musicvae.model.feed import Feed
from musicvae.model.objective import TrainingConfig, kl_from_prior
from musicvae.model.prior_stage import OfPrior
from musicvae.model.stages import Bars, Windows
from musicvae.model.trainer import Trainer, new_model
from musicvae.model.training import train
from musicvae.model.trial import planned_steps, seconds_per_step
from musicvae.model.vae import MusicVAE
from musicvae.presets import preset
from musicvae.train import with_bars_of

torch.set_num_threads(1)  # models this small are slower on two

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"encoder_units": 16, "conductor_units": 12, "condition_size": 8, "decoder_units": 16}
MODEL = ModelConfig((20,), 64, 4, latent_size=8, encoder_bars=4, linear=True, **SIZES)
FLAT = replace(MODEL, bars=1, encoder_bars=1, linear=False)
CONFIG = TrainingConfig(
    steps=20, batch_size=8, precision="fp32", bars_share=0.5, prior_share=0.2, distortion=0.001, validate_every=0
)


def windows(n: int, seed: int = 0, bars: int = 4) -> np.ndarray:
    """Windows (n, 16 * bars, 1) whose bars are all different: the first tokens of each spell its number."""
    numbers = np.random.default_rng(seed).permutation(20**4)[: n * bars]
    tokens = np.zeros((n * bars, 16, 1), np.uint16)
    tokens[:, :4, 0] = numbers[:, None] // 20 ** np.arange(4) % 20
    return tokens.reshape(n, 16 * bars, 1)


def trainer(model: ModelConfig = MODEL, config: TrainingConfig = CONFIG) -> Trainer:
    return Trainer(new_model(model, 0, None), config, CPU, False, Feed(windows(200), config, None), windows(40, seed=1))


def finish_stage(one: Trainer) -> None:
    while one.step < one.stage.end:
        one.update(one.stage.batch(one.step))


def weights(model: MusicVAE) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_stages_share_the_steps_and_none_of_no_step_is_there() -> None:
    assert [(type(s), s.start, s.end) for s in trainer().stages] == [
        (Bars, 0, 10),
        (Windows, 10, 16),
        (OfPrior, 16, 20),
    ]
    papers = replace(CONFIG, bars_share=0.0, prior_share=0.0)
    assert [(type(s), s.start, s.end) for s in trainer(config=papers).stages] == [(Windows, 0, 20)]
    with pytest.raises(ValueError, match="leave no steps for whole windows"):
        replace(CONFIG, bars_share=0.8)
    with pytest.raises(ValueError, match=r"flat models and for those with model\.linear"):
        trainer(replace(MODEL, linear=False))


def test_a_batch_of_bars_is_drawn_from_many_windows_each_bar_once() -> None:
    stage = trainer().stage
    batch = stage.batch(3)
    bars = batch.reshape(-1, 16)[:, :4].numpy() @ 20 ** np.arange(4)
    known = windows(200).reshape(200, 4, 16)[:, :, :4].astype(int) @ 20 ** np.arange(4)
    places = [tuple(int(i) for i in np.argwhere(known == bar)[0]) for bar in bars]
    assert len(set(places)) == len(places) == len({window for window, _ in places}), "no two bars of one window"
    assert batch.shape == (4, 64, 1) and stage.batch(3).equal(batch) and not stage.batch(4).equal(batch)


@pytest.mark.parametrize("model", [MODEL, FLAT])
def test_the_stage_of_bars_leaves_the_level_of_the_window_alone(model: ModelConfig) -> None:
    one = trainer(model)
    before = weights(one.model)
    finish_stage(one)
    changed = {name.split(".")[0] for name, value in one.model.state_dict().items() if not value.equal(before[name])}
    assert changed == ({"encoder", "to_summary", "decoders"} if model.linear else {"encoder", "to_mu", "decoders"})


def test_whole_windows_begin_with_the_bars_as_they_are_and_z_that_carries_them() -> None:
    one = trainer(replace(MODEL, latent_size=32), replace(CONFIG, distortion=1e-6))
    finish_stage(one)
    tokens = torch.from_numpy(windows(200).astype(np.int64))
    with torch.no_grad():
        summaries = one.model.to_summary(one.model.read(tokens)).reshape(200, -1)
        one.advance()
        posterior = one.model.encode(tokens)
        conditions = one.model.conduct(posterior.mean).flatten(1)
    spread = (summaries - summaries.mean(0)).square().sum()
    assert 1 - (conditions - summaries).square().sum() / spread == pytest.approx(
        one.stage.solved["explained"], abs=0.05
    )
    assert isinstance(one.stage, Windows) and one.stage.solved["explained"] > 0.9
    aggregate = posterior.mean.var(0) + posterior.stddev.square().mean(0)
    assert (aggregate - 1).abs().mean() < 0.3, "80 windows say what z of 200 fills"


def test_of_some_windows_the_encoder_sees_some_streams_and_the_decoder_learns_all() -> None:
    model = replace(MODEL, vocab_sizes=(20, 5, 7))
    config = replace(CONFIG, bars_share=0.0, hidden_streams=0.5, batch_size=400)
    stage = Trainer(MusicVAE(model), config, CPU, False).stage
    assert isinstance(stage, Windows)
    tokens = torch.stack([torch.randint(1, v, (400, 64)) for v in (20, 5, 7)], -1)
    seen = stage.seen(0, tokens)
    assert seen is not None
    there = (seen == tokens).all(1)  # (B, streams)
    assert (there | (seen == 0).all(1)).all() and there.any(1).all()
    assert 0.3 < 1 - there.all(1).float().mean() < 0.45, "half of the windows, of which a fourth hides nothing"
    noise = torch.zeros(400, 8)
    posterior, whole = stage.course.model.encode(seen), stage.measure(0, tokens, noise)
    partly = stage.measure(0, tokens, noise, seen=seen)
    assert torch.allclose(partly.kl, kl_from_prior(posterior), atol=1e-4) and not torch.equal(partly.kl, whole.kl)
    logits = stage.course.model.predict_steps(tokens, posterior.mean)
    assert torch.equal(partly.right[..., 1], logits[1].argmax(-1) == tokens[..., 1])


def test_the_prior_is_learnt_last_and_leaves_the_model_as_it_is() -> None:
    one = trainer()
    for _ in range(2):
        finish_stage(one)
        one.advance()
    before = weights(one.model)
    finish_stage(one)
    assert isinstance(one.stage, OfPrior) and one.finished
    assert all(value.equal(before[name]) for name, value in one.model.state_dict().items())


@pytest.mark.parametrize("model", [MODEL, FLAT])
def test_a_prior_that_helps_with_other_songs_lies_beside_the_model(tmp_path: Path, model: ModelConfig) -> None:
    def alike(n: int, seed: int) -> np.ndarray:
        return np.tile(windows(n, seed, bars=1), (1, 4, 1))

    config = replace(CONFIG, steps=300, learning_rate=5e-3, prior_share=0.4, validate_every=20)
    result = train(RunConfig(model=model), config, alike(2000, 0), alike(200, 1), tmp_path, augment=None)
    assert result.finished
    found = load_config(tmp_path).trained["prior"]
    assert found["bits"] > 0 and (tmp_path / PRIOR).exists() and load_run(tmp_path).model.config == model


def test_twice_the_time_is_twice_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {Bars: 0.2, Windows: 0.5, OfPrior: 0.1}
    monkeypatch.setattr("musicvae.model.trial.seconds_per_step", lambda stage: seconds[type(stage)])
    steps = [planned_steps(MODEL, CONFIG, windows(50), float(s), "cpu") for s in (100, 200)]
    each = 0.5 * 0.2 + 0.3 * 0.5 + 0.2 * 0.1
    assert steps == [int(0.9 * 100 / each), int(0.9 * 200 / each)]


def test_measuring_changes_no_weight() -> None:
    one = trainer()
    before = weights(one.model)
    assert seconds_per_step(one.stage) > 0
    assert all(value.equal(before[name]) for name, value in one.model.state_dict().items())


def test_the_precision_that_was_chosen_is_kept_when_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, precision="auto", prior_share=0.0, checkpoint_every=5)
    monkeypatch.setattr("musicvae.model.training.chosen_precision", lambda *_: False)
    train(RunConfig(model=MODEL), config, windows(50), None, tmp_path, max_seconds=0.0)
    monkeypatch.setattr("musicvae.model.training.chosen_precision", lambda *_: pytest.fail("it was chosen before"))
    train(RunConfig(model=MODEL), config, windows(50), None, tmp_path)
    assert load_config(tmp_path).trained["precision"] == "fp32"


def test_numbers_too_small_are_flushed_while_training_and_not_after(tmp_path: Path) -> None:
    small = torch.tensor([2.0**-130])
    flushed: list[bool] = []
    config = replace(CONFIG, log_every=5)
    train(
        RunConfig(model=MODEL), config, windows(50), None, tmp_path,
        on_log=lambda _: flushed.append(float(small * 0.5) == 0), device="cpu",
    )  # fmt: skip
    assert flushed and (all(flushed) or not torch.set_flush_denormal(True))
    assert float(small * 0.5) != 0


# --- presets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bars", [1, 2, 3, 4, 8, 16, 32])
@pytest.mark.parametrize("kind", ["melody", "drums", "trio", "melody-90"])
def test_any_number_of_bars_is_a_preset_flat_to_two(kind: str, bars: int) -> None:
    model = preset(f"{kind}-{bars}").model("small")
    assert model.steps == 16 * bars and model.bars == (1 if bars <= 2 else bars) and model.linear == (bars > 2)
    flat = preset(f"{kind}-{bars}-flat").model("small")
    assert flat.bars == 1 and not flat.linear


@pytest.mark.parametrize("name", ["melody-0", "melody-33", "piano-2", "melody", "melody-2-deep"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"no preset '{name}'; known are melody-2"):
        preset(name)


def test_the_papers_size_is_the_papers_recipe() -> None:
    for name, steps, bits in (("melody-2", 50_000, 48.0), ("trio-16", 100_000, 256.0)):
        config, model = preset(name).training("paper"), preset(name).model("paper")
        assert (config.steps, config.free_bits, config.batch_size, config.beta) == (steps, bits, 512, 0.2)
        assert config.bars_share == config.prior_share == config.token_dropout == 0
        assert not model.linear and model.encoder_bars == 1 and model.encoder_units == 2048


# --- bars of another model -----------------------------------------------------------------------------------------


class Given:
    """What `with_bars_of` asks of a composer."""

    def __init__(self, model: MusicVAE):
        self.model, self.name = model, "given"


def test_bars_of_a_flat_model_read_and_write_as_they_did() -> None:
    source, model = MusicVAE(replace(FLAT, steps=16)), MusicVAE(MODEL)
    found = with_bars_of(model, Given(source))  # type: ignore[arg-type]
    tokens = torch.from_numpy(windows(3).astype(np.int64))
    single = tokens.reshape(12, 16, 1)
    with torch.no_grad():
        summaries = found.to_summary(found.read(tokens))
        mu = source.encode(single).mean
        assert torch.allclose(summaries, mu, atol=1e-6)
        ours = found.predict_bars(tokens, summaries)[0].reshape(12, 16, 20)
        assert torch.allclose(ours, source.predict_steps(single, mu)[0], atol=1e-5)
    wider = MusicVAE(replace(FLAT, steps=16, decoder_units=20))
    with pytest.raises(ValueError, match="the bars of given do not fit: decoders"):
        with_bars_of(model, Given(wider))  # type: ignore[arg-type]
