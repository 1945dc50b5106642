"""A training that was stopped goes on as if it had not been."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from musicvae.model.checkpoint import load_run
from musicvae.model.config import PRIOR, ModelConfig, RunConfig, load_config
from musicvae.model.feed import Feed
from musicvae.model.objective import TrainingConfig, kl_weight, objective, own_share
from musicvae.model.stages import Windows
from musicvae.model.trainer import Trainer
from musicvae.model.training import TrainingResult, train
from musicvae.model.vae import MusicVAE, draw

torch.set_num_threads(1)  # models this small are slower on two

TINY: dict[str, Any] = {
    "latent_size": 8,
    "encoder_units": 16,
    "conductor_units": 16,
    "condition_size": 8,
    "decoder_units": 16,
}
MODEL = ModelConfig((20,), 16, 4, **TINY)
CONFIG = TrainingConfig(
    steps=40,
    batch_size=16,
    precision="fp32",
    log_every=5,
    validate_every=10,
    listen_every=15,
    checkpoint_every=7,
    seed=3,
)
RUN = RunConfig(model=MODEL, name="tiny")
STAGED = replace(CONFIG, bars_share=0.4, prior_share=0.3)  # 16 steps of bars, 12 of windows, 12 of the prior
STAGED_RUN = replace(RUN, model=replace(MODEL, encoder_bars=4, linear=True))


def windows(n: int = 50, model: ModelConfig = MODEL, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    streams = [rng.integers(0, v, (n, model.steps)) for v in model.vocab_sizes]
    return np.stack(streams, axis=-1).astype(np.uint16)


def transpose(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (batch + rng.integers(0, 3, (len(batch), 1, 1), dtype=np.uint16)) % np.uint16(20)


def go(out: Path, config: TrainingConfig = CONFIG, **more: Any) -> TrainingResult:
    run = STAGED_RUN if config.bars_share else RUN
    return train(run, config, windows(), windows(20, seed=1), out, augment=transpose, **more)


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what differs from one machine to the next."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")} for line in read]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run through all stages that nothing stopped."""
    out = tmp_path_factory.mktemp("staged")
    assert go(out, STAGED).finished
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    assert go(out).finished
    return out


def same_weights(one: Path, two: Path) -> bool:
    return (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


# --- what a step sees ------------------------------------------------------------------------------------------


def test_an_epoch_visits_every_window_once_and_the_next_in_another_order() -> None:
    numbers = np.arange(10, dtype=np.uint16).reshape(10, 1, 1)
    feed = Feed(numbers, TrainingConfig(batch_size=4), augment=None)
    seen = torch.cat([feed.batch(step) for step in range(10)]).flatten().tolist()
    epochs = [seen[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and epochs[0] != epochs[1]
    assert seen != sorted(seen)


def test_a_batch_follows_from_its_step_alone() -> None:
    one, two = (Feed(windows(), CONFIG, transpose) for _ in range(2))
    late = one.batch(9)
    for step in range(9):
        two.batch(step)
    assert two.batch(9).equal(late) and not Feed(windows(), replace(CONFIG, seed=4), transpose).batch(9).equal(late)


def test_a_window_is_augmented_anew_at_each_visit() -> None:
    feed = Feed(np.zeros((16, 16, 1), np.uint16), CONFIG, transpose)  # 16 windows a batch: one epoch a step
    visits = [feed.batch(step) for step in range(4)]
    assert not any(visits[i].equal(visits[j]) for i in range(4) for j in range(i))
    assert visits[0].unique().tolist() == [0, 1, 2]


def test_scheduled_sampling_hears_in_place_of_some_tokens_what_the_decoder_would_write() -> None:
    model = MusicVAE(replace(MODEL, vocab_sizes=(20, 5)))
    trainer = Trainer(model, replace(CONFIG, precision="fp32"), torch.device("cpu"))
    tokens, noise = torch.from_numpy(windows(8, model.config).astype(np.int64)), torch.randn(8, 8)
    uniforms, unheard = torch.rand(tokens.shape), torch.rand(tokens.shape[:2]) < 0.3
    chosen = torch.rand(tokens.shape[:2]) < 0.5
    own = torch.where(chosen.unsqueeze(-1), uniforms, -1.0)
    stage = trainer.stage
    assert isinstance(stage, Windows)
    heard = stage.half_own(tokens, noise, unheard, own, tokens)
    logits = model(tokens, noise, unheard).logits
    columns = [draw(part.flatten(0, 1), uniforms[..., i].flatten(), 1.0) for i, part in enumerate(logits)]
    written = torch.stack(columns, -1).view_as(tokens)
    assert heard.equal(torch.where(chosen.unsqueeze(-1), written, tokens)) and not heard.equal(tokens)
    loss = stage.measure(0, tokens, noise, unheard, own).loss
    taught = objective(model(tokens, noise, unheard, heard), tokens, kl_weight(CONFIG, 0), CONFIG.free_bits).loss
    assert loss.item() == pytest.approx(taught.item()), "the truth is still what is wanted"
    plain = stage.measure(0, tokens, noise, unheard)
    assert stage.measure(0, tokens, noise, unheard, torch.full_like(own, -1)).loss == plain.loss != loss


def test_scheduled_sampling_rises_from_none_and_follows_from_the_step() -> None:
    config = replace(CONFIG, steps=10, scheduled_sampling=0.8)
    assert [own_share(config, step) for step in (0, 5, 10)] == [0, 0.4, 0.8]
    trained = []
    for sampling in (0.8, 0.8, 0.0):
        torch.manual_seed(1)
        trainer = Trainer(MusicVAE(MODEL), replace(config, scheduled_sampling=sampling), torch.device("cpu"))
        weights = []
        for step in range(3):
            trainer.update(torch.from_numpy(windows(16, seed=step).astype(np.int64)))
            weights.append(torch.cat([w.detach().flatten() for w in trainer.model.parameters()]))
        trained.append(weights)
    assert all(one.equal(two) for one, two in zip(*trained[:2])), "the same seed, the same steps"
    assert trained[0][0].equal(trained[2][0]) and not trained[0][2].equal(trained[2][2])
    with pytest.raises(ValueError, match=r"scheduled_sampling is 1\.5; must be a share"):
        TrainingConfig(scheduled_sampling=1.5)


# --- resuming --------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
import test_training as t
t.go(Path(sys.argv[1]), on_log=lambda line: print(line["step"], flush=True))
"""


def test_killed_runs_end_with_the_same_bytes(tmp_path: Path, whole: Path) -> None:
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    for step in (10, 30):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | paths, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= step:
                    break
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    result = go(tmp_path)
    assert result.finished and result.resumed_from is not None and 28 <= result.resumed_from < 40
    assert same_weights(tmp_path, whole) and lines(tmp_path) == lines(whole)


class Failure(Exception):
    pass


def fail_at(broken: int, out: Path, config: TrainingConfig) -> None:
    """A training that fails in the update after `broken` updates, whatever its stage."""

    def fail(self: Trainer, batch: Any) -> None:
        if self.step == broken:
            raise Failure
        update(self, batch)

    update = Trainer.update
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Failure):
        patch.setattr(Trainer, "update", fail)
        go(out, config)


@pytest.mark.parametrize("broken", [1, 7, 8, 20, 34, 39])
def test_a_failure_at_any_step_changes_nothing_in_the_end(tmp_path: Path, whole: Path, broken: int) -> None:
    fail_at(broken, tmp_path, CONFIG)
    assert go(tmp_path).finished
    assert same_weights(tmp_path, whole) and lines(tmp_path) == lines(whole)


def test_a_failure_in_any_stage_changes_nothing_in_the_end(tmp_path: Path, staged: Path) -> None:
    for broken in (5, 15, 16, 17, 27, 28, 30, 39):  # 16 and 28 are the first steps of a stage
        fail_at(broken, tmp_path, STAGED)
    assert go(tmp_path, STAGED).finished
    assert same_weights(tmp_path, staged) and lines(tmp_path) == lines(staged)
    assert (tmp_path / PRIOR).exists() == (staged / PRIOR).exists()
    if (staged / PRIOR).exists():
        assert (tmp_path / PRIOR).read_bytes() == (staged / PRIOR).read_bytes()


def test_a_kill_between_model_and_prior_is_made_good(tmp_path: Path) -> None:
    def repeated(n: int, seed: int) -> np.ndarray:
        """Windows of one bar four times: a prior of bars has something to learn."""
        return np.tile(windows(n, seed=seed)[:, :4], (1, 4, 1))

    def go() -> TrainingResult:
        config = replace(STAGED, steps=200)
        return train(STAGED_RUN, config, repeated(400, 0), repeated(100, 1), tmp_path, augment=None)

    go()
    prior, weights = (tmp_path / PRIOR).read_bytes(), (tmp_path / "model.safetensors").read_bytes()
    assert load_config(tmp_path).trained["prior"]["bits"] > 0
    (tmp_path / PRIOR).unlink()
    assert go().finished and (tmp_path / PRIOR).read_bytes() == prior
    assert (tmp_path / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_at_the_end_of_its_step(tmp_path: Path, whole: Path, number: int) -> None:
    before = signal.getsignal(number)
    result = go(tmp_path, on_log=lambda line: signal.raise_signal(number) if line["step"] == 15 else None)
    assert (result.interrupted, result.finished, result.step) == (True, False, 15)
    assert load_config(tmp_path).trained["steps"] == 15 and signal.getsignal(number) == before
    assert go(tmp_path).resumed_from == 15 and same_weights(tmp_path, whole) and lines(tmp_path) == lines(whole)


def test_a_keyboard_interrupt_of_a_listener_saves_too(tmp_path: Path, whole: Path) -> None:
    def listener(model: MusicVAE, step: int) -> None:
        assert not model.training
        raise KeyboardInterrupt

    assert go(tmp_path, on_listen=listener).interrupted
    assert go(tmp_path, on_listen=lambda model, step: None).resumed_from == 15 and same_weights(tmp_path, whole)


def test_the_end_of_the_time_only_pauses(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()  # every look at the clock takes 10 ms: however fast the machine, a call ends before the training
    monkeypatch.setattr("musicvae.model.run_folder.time.monotonic", lambda: next(ticks) / 100)
    calls = 0
    while not (result := go(tmp_path, max_seconds=0.15)).finished:
        assert result.paused and not result.interrupted and load_run(tmp_path).config.trained["steps"] == result.step
        calls += 1
        assert calls < 1000
    assert calls > 1 and same_weights(tmp_path, whole) and lines(tmp_path) == lines(whole)
    assert result.seconds > 0.15 * (calls - 1), "the seconds of all calls are summed"


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    short = replace(CONFIG, steps=3)
    go(tmp_path, short)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.glob("*.*")}
    result = go(tmp_path, short)
    assert result.finished and result.resumed_from == result.step == 3
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.glob("*.*")} == before


def test_a_kill_between_checkpoint_and_model_is_made_good(tmp_path: Path) -> None:
    short = replace(CONFIG, steps=3)
    go(tmp_path, short)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "config.json").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"old")
    assert go(tmp_path, short).finished and (tmp_path / "model.safetensors").read_bytes() == weights


def test_other_settings_or_data_are_refused_by_name(tmp_path: Path) -> None:
    short = replace(CONFIG, steps=3)
    go(tmp_path, short)
    arguments: dict[str, Any] = {"run": RUN, "config": short, "tokens": windows(), "out": tmp_path}
    arguments |= {"validation_tokens": None, "augment": transpose}
    previous = replace(RUN, model=replace(MODEL, bar_start="previous"))
    for change, says in (
        ({"config": replace(short, steps=4)}, "training.steps was 3, is now 4"),
        ({"config": replace(short, beta=0.5)}, "training.beta was 0.2, is now 0.5"),
        ({"run": previous}, "model.bar_start was silent, is now previous"),
        ({"tokens": windows(seed=9)}, "data was 50 windows"),
        ({"tokens": windows(51)}, "is now 51 windows"),
        ({"augment": None}, "augmented was True, is now False"),
        ({"run": replace(RUN, representation="drums")}, "representation was , is now drums"),
    ):
        with pytest.raises(ValueError) as error:
            train(**arguments | change)
        assert says in str(error.value) and "--out" in str(error.value)
    train(**arguments | {"config": replace(short, log_every=1)})  # how often one looks is nobody's business


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    go(tmp_path, replace(CONFIG, steps=3))
    (tmp_path / "training.pt").write_bytes((tmp_path / "training.pt").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"training.pt cannot be read"):
        go(tmp_path, replace(CONFIG, steps=3))


def test_a_model_without_a_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    go(tmp_path, replace(CONFIG, steps=3))
    (tmp_path / "training.pt").unlink()
    with pytest.raises(ValueError, match=r"without training\.pt"):
        go(tmp_path, replace(CONFIG, steps=3))


# --- what is written -------------------------------------------------------------------------------------------


def test_every_line_says_how_it_goes(whole: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    heard: list[int] = []
    go(tmp_path, on_log=seen.append, on_listen=lambda model, step: heard.append(step))
    assert [line["step"] for line in seen if line["kind"] == "train"] == list(range(5, 41, 5))
    assert [line["step"] for line in seen if line["kind"] == "validation"] == [10, 20, 30, 40]
    assert heard == [15, 30, 40]
    figures = {"loss", "reconstruction", "accuracy", "accuracy_streams", "kl_bits", "step", "kind", "seconds"}
    assert all(figures <= line.keys() for line in seen)
    more = {"beta", "learning_rate", "gradient_norm", "examples_per_second"}
    assert all(more <= line.keys() for line in seen if line["kind"] == "train")
    assert len(lines(tmp_path)) == len(seen) and lines(tmp_path) == lines(whole)
    trained = load_config(tmp_path).trained
    assert trained["steps"] == 40 and trained["windows"] == 50 and trained["validation"]["step"] == 40


def test_the_figures_do_not_depend_on_who_listens(whole: Path, tmp_path: Path) -> None:
    go(tmp_path, on_listen=lambda model, step: torch.manual_seed(torch.randint(9, ()).item()))  # type: ignore[arg-type]
    assert same_weights(tmp_path, whole)


def test_the_seed_decides(whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(77)
    go(tmp_path / "same")
    go(tmp_path / "other", replace(CONFIG, seed=4))
    assert same_weights(tmp_path / "same", whole) and not same_weights(tmp_path / "other", whole)


def test_training_starts_from_the_initial_model(whole: Path, tmp_path: Path) -> None:
    initial = load_run(whole).model
    result = go(tmp_path, replace(CONFIG, steps=1, learning_rate=0.0, final_learning_rate=0.0), initial=initial)
    for name, value in result.model.state_dict().items():
        assert value.equal(initial.state_dict()[name]), name
    with pytest.raises(ValueError, match="the one to train"):
        go(tmp_path / "other", initial=MusicVAE(replace(MODEL, latent_size=4)))


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "validation", "says"),
    [
        (windows(15), None, "15 training windows are fewer than one batch of 16"),
        (windows(0), None, "0 training windows"),
        (windows()[:, :12], None, "(50, 12, 1)"),
        (np.concatenate([windows(), windows()], axis=-1), None, "(N, 16, 1)"),
        (windows().astype(np.float32), None, "float32"),
        (windows() + np.uint16(1), None, "tokens 1 to 20; the model has 0 to 19"),
        (windows().astype(np.int64) - 1, None, "tokens -1 to 18"),
        (windows(), windows() + np.uint16(1), "validation windows has tokens 1 to 20"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, tokens: np.ndarray, validation: np.ndarray | None, says: str
) -> None:
    with pytest.raises(ValueError) as error:
        train(RUN, CONFIG, tokens, validation, tmp_path / "run")
    assert says in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("validation", [None, windows(0)])
def test_without_validation_windows_nothing_is_validated(tmp_path: Path, validation: np.ndarray | None) -> None:
    train(RUN, replace(CONFIG, steps=10), windows(), validation, tmp_path)
    assert {line["kind"] for line in lines(tmp_path)} == {"train"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"beta": math.nan}, "beta is nan"),
        ({"beta_from": 0.6, "beta_until": 0.5}, "beta_until"),
        ({"beta_schedule": "linear"}, "ramp, constant, exponential"),
        ({"learning_rate_schedule": "flat"}, "cosine, exponential"),
        ({"precision": "fp8"}, "auto, fp32, bf16"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as error:
        TrainingConfig(**change)
    assert says in str(error.value)


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be used here"):
        go(tmp_path / "run", device="warp")


def test_bf16_where_it_is_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setattr(torch.nn.LSTM, "forward", missing)
    with pytest.raises(ValueError, match="use auto or fp32"):
        go(tmp_path / "run", replace(CONFIG, precision="bf16"))


@pytest.mark.parametrize("poison", ["weights", "learning rate"])
def test_divergence_stops_with_the_last_good_checkpoint(tmp_path: Path, poison: str) -> None:
    config = replace(CONFIG, learning_rate=1e37, warmup=0.0, checkpoint_every=1) if poison != "weights" else CONFIG

    def spoil(model: MusicVAE, step: int) -> None:
        if poison == "weights":
            model.to_mu.bias.data.fill_(math.nan)

    with pytest.raises(ValueError, match="training diverged"):
        go(tmp_path, config, on_listen=spoil)
    saved = load_run(tmp_path).model
    assert all(parameter.isfinite().all() for parameter in saved.parameters())
    assert load_config(tmp_path).trained["steps"] in (1, 14)


# --- it learns -------------------------------------------------------------------------------------------------


def phrases(model: ModelConfig, n: int = 8) -> np.ndarray:
    """Windows that move like music: mostly nothing, now and then one of a few tokens."""
    rng = np.random.default_rng(0)
    tokens = np.zeros((n, model.steps, len(model.vocab_sizes)), np.uint16)
    for stream, size in enumerate(model.vocab_sizes):
        events = rng.random((n, model.steps)) < 0.3
        tokens[..., stream] = np.where(events, rng.choice(rng.integers(1, size, 10), (n, model.steps)), 0)
    return tokens


@pytest.mark.parametrize(("vocab", "bar_start"), [((20,), "silent"), ((20,), "previous"), ((20, 16, 30), "silent")])
def test_a_hierarchical_model_memorises_8_windows(tmp_path: Path, vocab: tuple[int, ...], bar_start: str) -> None:
    sizes = {"latent_size": 24, "encoder_units": 32, "conductor_units": 96, "condition_size": 32, "decoder_units": 96}
    layers = {"encoder_layers": 1, "conductor_layers": 1, "decoder_layers": 1}
    model_config = ModelConfig(vocab, 32, 4, bar_start=bar_start, **sizes, **layers)
    config = TrainingConfig(steps=450, batch_size=8, learning_rate=1e-2, beta=1e-3, free_bits=256, checkpoint_every=0)
    data = phrases(model_config)
    model = train(RunConfig(model=model_config), config, data, None, tmp_path).model
    tokens = torch.from_numpy(data.astype(np.int64))
    with torch.no_grad():
        posterior = model.encode(tokens)
        written = model.decode(posterior.mean, temperature=0)
        forced = model.predict_steps(written, posterior.mean)
    assert (written == tokens).float().mean() >= 0.99
    assert all((logits.argmax(-1) == written[..., i]).all() for i, logits in enumerate(forced))
    assert posterior.stddev.mean() < 0.6, "sigma followed the training below its first value"
