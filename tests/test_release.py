"""What goes into the box: cards say where a model comes from; a 16-bar model may begin with what 2-bar models know."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_paper import PAPER, script
from torch.nn import functional as F

from musicvae.composer import load
from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.vae import MusicVAE, StepDecoder
from musicvae.music.dataset import Dataset
from musicvae.train import train_preset

release, warm, levels, refit, box = map(script, ("release", "warm_start", "levels", "refit", "box"))
TINY = {"latent_size": 6, "encoder_units": 8, "encoder_layers": 1, "decoder_units": 10, "decoder_layers": 2}


def two_bars(folder: Path, kind: str, vocab: int, **trained: object) -> str:
    """A 2-bar model of random weights, large enough that all it hears matters."""
    torch.manual_seed(1)
    model = MusicVAE(ModelConfig((vocab,), 32, **TINY))
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(3)
    save_run(
        folder, model, RunConfig(name="two", representation=kind, size="small", model=model.config, trained=trained)
    )
    return str(folder)


@pytest.mark.parametrize(("kind", "vocab"), [("melody", 130), ("melody-90", 90)])
@pytest.mark.parametrize("size", [4, 6, 9])  # fewer conditions than z has numbers, as many, more
def test_a_bar_decoder_says_for_a_condition_what_the_2_bar_decoder_says_for_its_z(
    data: Dataset, tmp_path: Path, kind: str, vocab: int, size: int
) -> None:
    given = warm.source(two_bars(tmp_path / "two", kind, vocab), str(data.folder), size, "melody")
    decoder, old = StepDecoder(size, (130,), 10, 2), given.model.decoders[0]
    warm.take_over(decoder, given)
    shift = 0 if vocab == 130 else 21
    tokens = torch.tensor([[0, 1, 60, 62, 0, 64]])  # in the source's numbers
    renamed = torch.where(tokens < 2, tokens, tokens + shift)
    conditions = torch.randn(1, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, _ = old(F.one_hot(tokens, vocab).float(), given.mean + conditions @ given.axes)
        found, _ = decoder(F.one_hot(renamed, 130).float(), conditions)
    same = found if vocab == 130 else torch.cat([found[..., :2], found[..., 23:111]], -1)
    torch.testing.assert_close(same, wanted, rtol=1e-4, atol=1e-4)
    if vocab == 90:
        assert (found[..., 2:23] == warm.UNKNOWN).all() and (found[..., 111:] == warm.UNKNOWN).all()


def test_conditions_are_the_main_directions_of_real_music_at_unit_variance(data: Dataset, tmp_path: Path) -> None:
    run = two_bars(tmp_path / "two", "melody", 130)
    given = warm.source(run, str(data.folder), 3, "melody")
    mu = torch.from_numpy(load(run).encode_tokens(np.asarray(data.tokens("train"))).mu)
    places = torch.linalg.lstsq(given.axes.t(), (mu - given.mean).t()).solution  # (3, N)
    torch.testing.assert_close(places @ places.t() / len(mu), torch.eye(3), rtol=0, atol=1e-2)


def test_a_16_bar_model_begins_with_the_2_bar_decoders(data: Dataset, tmp_path: Path) -> None:
    source = [two_bars(tmp_path / "two", "melody", 130), str(data.folder)]
    sizes = ("latent_size=6", "encoder_units=8", "decoder_units=10", "conductor_units=8", "condition_size=6")
    warm.warm_start("melody-16", tmp_path / "warm", source, None, [f"model.{size}" for size in sizes])
    run = load_run(tmp_path / "warm")
    assert run.config.preset == "melody-16" and run.config.trained["source"].endswith(" of two")
    lower = load_run(Path(source[0])).model.decoders[0].lstm.weight_hh_l1
    assert torch.equal(run.model.decoders[0].lstm.weight_hh_l1, lower)
    tokens = torch.randint(0, 130, (1, 256, 1), generator=torch.Generator().manual_seed(0))
    given, two = warm.source(*source, 6, "melody"), load_run(Path(source[0])).model
    with torch.no_grad():
        summaries = run.model.to_summary(run.model.read(tokens))  # of each bar, what the 2-bar model makes of 16 steps
        _, (h, _) = two.encoder(two.one_hot(tokens.view(16, 16, 1)))
        wanted = two.to_mu(torch.cat([h[-2], h[-1]], dim=-1))
    torch.testing.assert_close(given.mean + summaries @ given.axes, wanted, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="needs a 2-bar model of drums: --drums RUN DATASET"):
        warm.warm_start("trio-16", tmp_path / "trio", source, None)


LEVELS = {**TINY, "conductor_units": 16, "condition_size": 6, "encoder_bars": 4}


def small_levels() -> tuple[MusicVAE, torch.Tensor]:
    torch.manual_seed(0)
    return MusicVAE(ModelConfig((13,), 64, 4, **LEVELS)), torch.randint(0, 13, (8, 64, 1))


def test_the_lowest_level_learns_bars_without_the_levels_above() -> None:
    model, tokens = small_levels()
    lower = [p for n, p in model.named_parameters() if n.startswith(("encoder", "to_summary", "decoders"))]
    optimizer, unheard = torch.optim.Adam(lower, 3e-2), torch.ones(8, 64, dtype=torch.bool)  # only the summary tells
    losses = []
    for step in range(120):
        noise = torch.randn(32, 6, generator=torch.Generator().manual_seed(step))
        loss, _ = levels.bars_loss(model, model, tokens, noise, unheard)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is None for n, p in model.named_parameters() if n.startswith(("reader", "conductor", "to_mu")))
    assert losses[-1] < 0.9 * losses[0]


def test_the_upper_level_gives_summaries_back_through_z() -> None:
    model, _ = small_levels()
    summaries = torch.randn(8, 4, 6, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if not n.startswith("decoders")], 1e-2)
    explained = []
    for step in range(200):
        noise = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        loss, figures = levels.windows_loss(model, summaries, noise)
        optimizer.zero_grad()
        loss.backward()
        assert all(weights.grad is None for weights in model.encoder.parameters())
        optimizer.step()
        explained.append(figures["explained"])
    assert explained[0] < 0.2 < 0.6 < explained[-1]


def test_refitted_summaries_are_the_nearest_to_what_bars_are_told() -> None:
    model, tokens = small_levels()
    with torch.no_grad():
        told = model.conduct(model.encode(tokens).mean).flatten(0, 1)
        explained = refit.refit(model, tokens.numpy())
        misses = [float((model.to_summary(model.read(tokens)) - told + more).square().sum()) for more in (0, 0.01)]
    assert misses[0] == pytest.approx((1 - explained) * float((told - told.mean(0)).square().sum()), rel=1e-3)
    assert 0.2 < explained < 1 and misses[0] < misses[1]


def test_numbers_that_are_added_to_z_say_nothing_at_first() -> None:
    model, tokens = small_levels()
    longer = refit.lengthened(model, 9)
    before, after = model.encode(tokens), longer.encode(tokens)
    assert torch.allclose(after.mean[:, :6], before.mean, atol=1e-6) and not after.mean[:, 6:].any()
    assert torch.allclose(after.stddev[:, 6:], torch.ones(8, 3))
    assert torch.allclose(longer.conduct(after.mean), model.conduct(before.mean), atol=1e-6)
    assert longer.conductor_start.dense.weight[:, 6:].any(), "they could never learn to say something"
    with pytest.raises(ValueError, match="5 numbers in z; the model has 6"):
        refit.lengthened(model, 5)


def test_lessons_go_on_after_equation_4() -> None:
    spent = {"steps": 7, "seconds": 60.0}
    start = {"name": "windows", "source": {"began_with": "bar decoders of two", "lessons": [{"lesson": "bars"}]}}
    sizes = ModelConfig((13,), 64, 4, **LEVELS)
    source = refit.history(RunConfig(model=sizes, training={"batch_size": 4}, trained={**spent, "from": start}))
    assert source["began_with"] == "bar decoders of two"
    done = {"lesson": "equation 4", **spent, "batch_size": 4}
    assert source["lessons"] == [{"lesson": "bars"}, done]
    plain = RunConfig(model=sizes, training={"batch_size": 4}, trained={**spent, "from": {"source": "decoders of two"}})
    assert refit.history(plain) == {"began_with": "decoders of two", "lessons": [done]}


def test_a_card_tells_terms_lessons_and_figures(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lessons = [{"lesson": "sleep", "steps": 1100, "seconds": 600.0, "batch_size": 128}]
    start = two_bars(tmp_path / "two", "melody", 130, source={"taught_by": "an elder", "lessons": lessons})
    train_preset("melody-2", data.folder, tmp_path / "run", steps=2, settings=["training.batch_size=4"], start=start)
    release.release(tmp_path / "run", data.folder, "Terms: CC BY 4.0", tmp_path / "box" / "melody-2", windows=20)
    card = (tmp_path / "box" / "melody-2" / "README.md").read_text()
    for words in (
        "# melody-2",
        "Terms: CC BY 4.0",
        "musicvae train melody-2 DATASET --out RUN --from TAUGHT --steps 2",
        "lessons of an elder: sleep, 1,100 updates of 128 in 10 minutes",
        "20 windows",
        "| always nothing (baseline) |",
    ):
        assert words in card, words
    levels_first = {"began_with": "bar decoders of two", "lessons": lessons}
    assert release.beginning(levels_first) == "LEVELS" and release.beginning("bar decoders of two") == "WARM"
    assert "levels one by one (`paper/levels.py`), beginning with bar decoders of two: sleep, 1,100 updates" in "".join(
        release.lessons({"source": levels_first})
    )
    figures = json.loads((tmp_path / "box" / "melody-2" / "evaluation.json").read_text())
    kept = load(tmp_path / "box" / "melody-2").config.trained["test"]["sampled_accuracy"]
    assert kept == round(figures["reconstruction"]["streams"][0]["sampled"]["accuracy"]["value"], 4)


def test_a_release_of_the_same_weights_measures_their_samples_alone(data: Dataset, tmp_path: Path) -> None:
    run, target = tmp_path / "run", tmp_path / "box" / "melody-2"
    two_bars(tmp_path / "two", "melody", 130, source="nothing")
    train_preset("melody-2", data.folder, run, steps=2, settings=["training.batch_size=4"], start=tmp_path / "two")
    release.release(run, data.folder, "Terms", target, windows=20)
    figures = json.loads((target / "evaluation.json").read_text())
    figures["reconstruction"]["kl_bits"] = 7.0  # as if it had been measured so
    (target / "evaluation.json").write_text(json.dumps(figures))
    release.release(run, data.folder, "Terms", target, windows=20, drawn={"rounds": 1, "spread": 0.5})
    again = json.loads((target / "evaluation.json").read_text())
    assert again["reconstruction"] == figures["reconstruction"] and again["statistics"] != figures["statistics"]
    card = (target / "README.md").read_text()
    assert (load(target).config.spread, load(target).config.rounds) == (0.5, 1)
    assert "noise of deviation 0.5 in place of 1" in card and "encoded again, once" in card
    release.release(run, data.folder, "Terms", target, windows=19, drawn={"rounds": 2})
    assert json.loads((target / "evaluation.json").read_text())["reconstruction"]["kl_bits"] != 7.0, "other windows"


def test_the_recipe_of_the_box_takes_only_what_it_made_before() -> None:
    steps = box.recipe(Path("data"), Path("runs"))
    there = {f"data/{name}" for name in ("melody-90", "melody-16", "drums-2", "drums-16", "trio-16")}
    for step in steps:
        assert there.issuperset(step.taken), step
        assert step.out not in there, "made twice"
        there.add(step.out)
        script = PAPER / step.words[0]
        known = script.read_text() if script.suffix == ".py" else "--from --out --steps --threads --set"
        assert all(word in known for word in step.words if word.startswith("--")), step
    assert {step.model for step in box.needed(steps, ["drums-16"])} == {"drums-2", "drums-16"}
    assert {"melody-2-white", "drums-2-white", "melody-16-white", "drums-16-white", "trio-16-white"} < there


def test_the_recipe_goes_on_where_it_failed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, runs = tmp_path / "data", tmp_path / "runs"
    (data / "drums-2").mkdir(parents=True)
    with pytest.raises(ValueError, match="data/drums-2-played could not be made"):
        box.main([str(data), str(runs), "--only", "drums-2"])
    assert "report.json" in capfd.readouterr().err and not (data / "drums-2-played").exists()
    for name in ("data-drums-2-played", "plain-drums-2", "drums-2-mixed", "drums-2-played", "drums-2", "drums-2-white"):
        (runs / "done").mkdir(parents=True, exist_ok=True)
        (runs / "done" / name).touch()
    with pytest.raises(ValueError, match=r"drums-2-white/prior.safetensors could not be made"):
        box.main([str(data), str(runs), "--only", "drums-2"])
    (runs / "done" / "drums-2-white").unlink()
    (runs / "drums-2-white").mkdir()
    with pytest.raises(ValueError, match="drums-2-white is there already, and was not made here"):
        box.main([str(data), str(runs), "--only", "drums-2"])
    assert (runs / "drums-2-white").exists()
