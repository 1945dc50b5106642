"""The scripts that make the paper's tables: what they promise about data, trainings and figures."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from folders import in_this_process, tune, write

from musicvae.composer import Composer
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.vae import MusicVAE
from musicvae.music import dataset as dataset_module
from musicvae.music.dataset import Dataset
from musicvae.music.key import find_keys, pitch_class_steps
from musicvae.music.representation import representation
from musicvae.presets import preset

torch.set_num_threads(1)
PAPER = Path(__file__).parent.parent / "paper"
TINY = ["encoder_units", "decoder_units", "latent_size"]
SETTINGS = [
    *(f"model.{name}=6" for name in TINY),
    "training.batch_size=4",
    "training.validate_every=20",
    "training.prior_share=0",
]


def script(name: str) -> ModuleType:
    """A script below paper/, which its siblings import by its bare name."""
    if str(PAPER) not in sys.path:
        sys.path.append(str(PAPER))
    return importlib.import_module(name)


data_script, groups, tables = script("data"), script("groups"), script("tables")
train_script, table1, rate, repeat = script("train"), script("table1"), script("rate_distortion"), script("repeat")
parts, prior = script("parts"), script("prior")


# --- groups by name ----------------------------------------------------------------------------------------------


GROOVE = "trio_hymn_groove/a-b_1_0__drummer8-session2-33_rock_117_beat_4-4.mid"
BELLS = "The_Bells_of_St._Mary's"


@pytest.mark.parametrize(
    ("kind", "one", "other", "stranger"),
    [
        (
            "trio",
            "open_hymnal/jesus-loves-me_155_0.mid",
            "trio_synth_hymn/hymn_jesus_loves_me_155_0__60srock.mid",
            "trio_synth_hymn/hymn_jesus_loves_me_156_0__60srock.mid",
        ),
        ("trio", "open_hymnal/a-b_1_0.mid", GROOVE, "open_hymnal/a-b_2_0.mid"),
        (
            "melody",
            f"openewld_us_pd/dataset__A-B__{BELLS}__{BELLS}.mid",
            "trio_synth_ewld_us_pd/ewld_The_Bells_of_St_Mary_s__bolero.mid",
            "trio_synth_ewld_us_pd/ewld_The_Bells_of_St_Ann_s__bolero.mid",
        ),
        ("drums", "groove/drummer8__session2__7_jazz.mid", GROOVE, "groove/drummer8__session1__7_jazz.mid"),
        ("melody", "freedoom/D_E1M1.0aa.mid", "freedoom/d_e1m1.9ff.mid", "freedoom/d_e1m2.0aa.mid"),
    ],
)
def test_one_piece_or_one_session_is_one_group_in_every_corpus(kind: str, one: str, other: str, stranger: str):
    found = groups.group_of(*one.split("/"), kind)
    assert found and found == groups.group_of(*other.split("/"), kind)
    assert found != groups.group_of(*stranger.split("/"), kind)


# --- data sets ---------------------------------------------------------------------------------------------------


def hymn(n: int) -> str:
    return f"some-hymn-{n}_{n}_0"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Sixty hymns, and trios on their tunes whose notes are others: only the names tie them."""
    corpora, out = tmp_path_factory.mktemp("corpora"), tmp_path_factory.mktemp("data")
    write(corpora / "open_hymnal", {f"{hymn(n)}.mid": tune(n) for n in range(60)})
    name = "hymn_{}__60srock.mid"
    write(corpora / "trio_synth_hymn", {name.format(hymn(n).replace("-", "_")): tune(1000 + n) for n in range(60)})
    recipe = data_script.Recipe("melody", 2, ("open_hymnal",), ("trio_synth_hymn",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_script, "RECIPES", {"melody-2": recipe})
        patch.setattr(dataset_module, "run_tasks", in_this_process)
        data_script.main([str(corpora), str(out), "--report", str(out / "data.md")])
        again = out / "melody-2" / "report.json"
        before = again.stat().st_mtime_ns
        data_script.main([str(corpora), str(out), "--report", str(out / "data.md")])
        assert again.stat().st_mtime_ns == before, "what is there is kept"
    return {"dataset": Dataset(out / "melody-2"), "report": (out / "data.md").read_text(), "corpora": corpora}


def tunes_of(dataset: Dataset, *splits: str) -> set[str]:
    names = {name for split in splits for name in dataset.rows(split, ["file"])["file"].to_pylist()}
    return {groups.group_of(*name.split("/"), "melody") for name in names}


def test_no_tune_of_a_trio_that_trains_stands_in_a_held_back_split(built):
    dataset = built["dataset"]
    held, trained = tunes_of(dataset, "validation", "test"), tunes_of(dataset, "train")
    assert held and not held & trained
    assert dataset.report["held_back"] == len(held), "of each of these tunes the trio was left out"
    assert not any(dataset.report["folders"]["trio_synth_hymn"][split] for split in ("validation", "test"))
    assert dataset.report["folders"]["trio_synth_hymn"]["train"] > 0


def test_the_report_says_what_the_data_sets_say(built):
    report = built["dataset"].report
    lines = built["report"].splitlines()
    windows = [f"{report['splits'][split]['windows']:,}" for split in ("train", "validation", "test")]
    assert any(
        line.startswith(f"| melody-2 | {report['windows']['unique']:,} | {' | '.join(windows)} |") for line in lines
    )
    assert any(line.startswith("| trio_synth_hymn | synthetic: train only | 60 | 60 |") for line in lines)
    assert f"* {report['held_back']} songs that only train were left out" in built["report"]
    assert "| melody-2 | 0.0% |" in lines, "no test window is of a song that trained"


def test_a_missing_corpus_or_a_data_set_of_another_recipe_is_refused(built, tmp_path: Path):
    with pytest.raises(ValueError, match="lacks freedoom, easyrpg, cre_irish"):
        data_script.build("melody-16", built["corpora"], tmp_path, 1)
    with pytest.raises(ValueError, match="not built by this recipe"):
        data_script.check("melody-2", built["dataset"])


def test_a_corpus_repeated_counts_more_in_training_and_nowhere_else(built, tmp_path: Path):
    once, folder = built["dataset"], tmp_path / "more"
    before = [name.split("/")[0] for name in once.rows("train", ["file"])["file"].to_pylist()]
    found = repeat.repeat(once.folder, folder, ["open_hymnal"], 3)
    after = [name.split("/")[0] for name in Dataset(folder).rows("train", ["file"])["file"].to_pylist()]
    assert found == (len(before), len(after)) and len(Dataset(folder).tokens("train")) == len(after)
    assert after.count("open_hymnal") == 3 * before.count("open_hymnal") > 0
    assert after.count("trio_synth_hymn") == before.count("trio_synth_hymn") > 0
    assert np.array_equal(Dataset(folder).tokens("test"), once.tokens("test"))
    with pytest.raises(ValueError, match="has 0 training windows of nobody"):
        repeat.repeat(once.folder, tmp_path / "none", ["nobody"], 3)
    assert not (tmp_path / "none").exists()


def test_a_borrowed_melody_is_in_the_scale_of_its_bass_and_never_of_a_song_that_is_held_back(built):
    c_major = np.array([[2 + pitch for pitch in (60, 64, 67, 72, 65, 69, 60, 60)] + [0, 1]])
    silent = np.zeros_like(c_major)
    assert (parts.in_key_of(c_major, c_major - 24 * (c_major > 1)) == c_major).all(), "another octave is no other key"
    assert (parts.in_key_of(c_major, c_major + 3 * (c_major > 1)) == c_major + 3 * (c_major > 1)).all()
    assert (parts.in_key_of(c_major, c_major + 11 * (c_major > 1)) == c_major - (c_major > 1)).all(), "shortest way"
    a_minor = np.array([[2 + pitch for pitch in (57, 60, 64, 69, 57, 62, 57, 57)] + [0, 1]])
    assert find_keys(pitch_class_steps(a_minor))[0] == 12 + 9
    assert (parts.in_key_of(c_major, a_minor) == c_major).all(), "relative keys have one scale"
    assert (parts.in_key_of(a_minor, c_major + 2 * (c_major > 1)) == a_minor + 2 * (a_minor > 1)).all()
    assert (parts.in_key_of(c_major, silent) == c_major).all() and not parts.in_key_of(silent, c_major).any()
    trios = np.stack([silent, c_major, silent], axis=-1).repeat(500, axis=0)
    mixed = parts.borrow(trios, c_major, silent + 3, np.random.default_rng(0))
    assert (mixed[..., parts.BASS] == c_major).all()
    for part, whole in ((parts.MELODY, c_major), (parts.DRUMS, silent + 3)):
        lent = (mixed[..., part] == whole).all(axis=1)
        assert abs(lent.mean() - parts.SHARE) < 0.1 and not mixed[~lent, :, part].any()
    once = built["dataset"]
    files = once.rows("train", ["file"])
    trio_set = SimpleNamespace(
        rows=lambda split, _: files[:1] if split == "test" else files[:0], settings=once.settings
    )
    others = [name != files["file"][0].as_py() for name in files["file"].to_pylist()]
    kind = once.settings.representation
    free = parts.unheld(once.folder, trio_set, kind)
    assert not all(others) and np.array_equal(free, once.tokens("train")[others, :, 0])
    longer = SimpleNamespace(settings=replace(once.settings, bars=16))
    for wrong, trios in (("trio", trio_set), (kind, longer)):
        with pytest.raises(ValueError, match=rf"holds {kind} of 2 bars; {wrong} of \d+ bars are needed"):
            parts.unheld(once.folder, trios, wrong)


def test_what_is_assembled_or_synthetic_never_validates_or_tests():
    for name, recipe in data_script.RECIPES.items():
        assert not set(recipe.played) & set(data_script.ORIGIN), name
        assert set(recipe.train_only) <= set(data_script.ORIGIN), name
    assert {train_script.MODELS[n].removesuffix("-flat") for n in range(8)} <= set(data_script.RECIPES)


# --- trainings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize("name", ["melody-16", "drums-16", "trio-16"])
def test_a_flat_twin_has_as_many_parameters_within_a_tenth(name: str, size: str):
    with torch.device("meta"):
        counts = [sum(p.numel() for p in MusicVAE(preset(n).model(size)).parameters()) for n in (name, f"{name}-flat")]
    assert 0.9 < counts[1] / counts[0] < 1.1


def train(data: Dataset, out: Path, **more: Any):
    given = {"budget": 0.2, "settings": SETTINGS, "device": "cpu", "threads": 1, **more}
    return train_script.train_for("melody-2", data.folder, out, **given)


def test_a_training_is_planned_once_and_goes_on_where_it_was_stopped(data: Dataset, tmp_path: Path):
    out = tmp_path / "melody-2"
    stopped = train(data, out, pause=0.0)
    plan = json.loads((out / "plan.json").read_text())
    assert not stopped.finished and stopped.step == 0
    assert plan["steps"] == pytest.approx(0.95 * 0.2 * plan["examples_per_second"] / 4, abs=1)
    done = train(data, out)
    assert done.finished and done.step == plan["steps"] and done.resumed_from == 0
    assert json.loads((out / "plan.json").read_text()) == plan, "the speed is measured once"
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert train(data, out).finished and (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="was planned as melody-2 small for 0 s"):
        train(data, out, budget=60.0)
    further = tmp_path / "further"
    assert train(data, further, settings=[], start=str(out)).finished
    trained = json.loads((further / "config.json").read_text())
    assert trained["model"]["latent_size"] == 6 and trained["trained"]["from"]["steps"] == plan["steps"]
    with pytest.raises(ValueError, match=f"was planned as melody-2 small from {out} for 0 s"):
        train(data, further, settings=[])


def test_twice_the_time_is_twice_the_steps(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_script, "measure_speed", lambda *_: 40.0)
    plans = [
        train_script.planned("melody-2", data.folder, tmp_path / str(t), t, "small", SETTINGS, "cpu", 1)
        for t in (60, 120)
    ]
    assert [plan.steps for plan in plans] == [570, 1140]  # 40 examples a second, 4 a step, 5 % for the rest


def test_a_run_that_was_not_begun_here_is_left_alone(data: Dataset, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="was not begun here"):
        train(data, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


# --- figures -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a model trained for a moment, in a folder beside its data and its run."""
    folder = tmp_path_factory.mktemp("paper")
    train(data, folder / "runs" / "melody-2")
    (folder / "data").mkdir()
    (folder / "data" / "melody-2").symlink_to(data.folder)
    measure(folder)
    return folder


def measure(folder: Path, *more: str) -> None:
    options = ["--runs", str(folder / "runs"), "--only", "melody-2", "--samples", "8", "--windows", "12", *more]
    places = ["--results", str(folder / "results"), "--out", str(folder / "RESULTS.md")]
    table1.main([str(folder / "data"), *options, *places])


def test_table_1_has_the_papers_rows_and_ours_beside(results: Path):
    found = json.loads((results / "results" / "melody-2.json").read_text())
    page = (results / "RESULTS.md").read_text()
    rows = {
        line.split(" | ")[0].strip("| "): line for line in page.split("## The models")[0].splitlines() if "|" in line
    }
    assert list(rows)[2:] == list(tables.PAPER)
    (stream,) = found["reconstruction"]["streams"]
    for way, paper in (("teacher_forced", "0.986"), ("sampled", "0.951")):
        ours = stream[way]["accuracy"]
        interval = f"({ours['low']:.3f}-{ours['high']:.3f})"
        assert f"| {paper} / **{ours['value']:.3f} {interval}** |" in rows["2-bar melody"]
    assert rows["trio (bass)"].count("not trained") == 4 and rows["2-bar drums"].count("not trained") == 2


def test_the_figures_of_a_model_are_those_of_its_windows(results: Path, data: Dataset):
    found = json.loads((results / "results" / "melody-2.json").read_text())
    assert found["reconstruction"]["windows"] == 12 <= found["stamp"]["test_windows"]
    (errors,) = found["errors"]["sampled"]
    accuracy = found["reconstruction"]["streams"][0]["sampled"]["accuracy"]["value"]
    assert errors["wrong"] / errors["steps"] == pytest.approx(1 - accuracy), "counted on the same tokens"
    total = sum(share["value"] for share in errors["kinds"].values())
    assert total == pytest.approx(1, abs=1e-5), "each is kept to six places"
    sets = ["test windows", "real training windows", "temperature 0.5", "temperature 1"]
    assert list(found["quality"]) == sets
    assert found["quality"]["test windows"]["statistics"]["copies"] == 0
    assert found["validation"][-1]["step"] == found["trained"]["steps"]


def test_what_was_measured_is_not_measured_again_unless_something_changed(results: Path, capsys):
    kept = results / "results" / "melody-2.json"
    before = kept.stat().st_mtime_ns
    measure(results)
    assert "melody-2: measured before" in capsys.readouterr().out and kept.stat().st_mtime_ns == before
    page = (results / "RESULTS.md").read_text()
    (results / "RESULTS.md").unlink()
    table1.main(["--results", str(results / "results"), "--out", str(results / "RESULTS.md")])
    assert (results / "RESULTS.md").read_text() == page
    measure(results, "--seed", "1")
    assert kept.stat().st_mtime_ns != before


def test_another_way_to_draw_samples_leaves_the_reconstruction_as_it_was_measured(results: Path, capsys):
    kept = results / "results" / "melody-2.json"
    measure(results)
    before, settings = json.loads(kept.read_text()), results / "runs" / "melody-2" / "config.json"
    plain = settings.read_text()
    settings.write_text(plain.replace('"rounds": 0', '"rounds": 1'))
    capsys.readouterr()
    measure(results)
    assert "melody-2: measuring samples of" in capsys.readouterr().out
    after = json.loads(kept.read_text())
    assert after["reconstruction"] == before["reconstruction"] and after["errors"] == before["errors"]
    assert after["quality"]["temperature 0.5, no round"] == before["quality"]["temperature 0.5"]
    assert any(after["quality"][name] != found for name, found in before["quality"].items())
    page = (results / "RESULTS.md").read_text()
    assert ", 1 round of pseudo-Gibbs sampling" in page and "| temperature 0.5, no round |" in page
    settings.write_text(plain)
    measure(results)
    assert json.loads(kept.read_text()) == before


def test_nothing_trained_is_a_page_of_the_papers_figures(tmp_path: Path):
    tables.write_results(tmp_path, tmp_path / "RESULTS.md")
    assert (tmp_path / "RESULTS.md").read_text().count("not trained") == 2 * 2 + 5 * 4


def test_the_page_in_the_project_is_what_the_kept_figures_say(tmp_path: Path):
    (tmp_path / "results").symlink_to(PAPER / "results")
    tables.write_results(tmp_path / "results", tmp_path / "RESULTS.md")
    page = (PAPER / "RESULTS.md").read_text(encoding="utf-8")
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == page
    kept = json.loads((PAPER / "results" / "figure3-melody-16.json").read_text())
    assert f"{kept['curves'][1]['largest_jump']['value']:.3f}" in page and "398.7 %" in page


def test_hierarchical_and_flat_are_apart_only_if_their_intervals_are():
    def model(low: float, high: float) -> dict[str, Any]:
        scores = {"sampled": {"accuracy": {"value": (low + high) / 2, "low": low, "high": high}}}
        return {"reconstruction": {"streams": [{"name": "drums", **scores}], "mean": None}}

    def words(flat: tuple[float, float], hierarchical: tuple[float, float]) -> str:
        _, page = tables.twins({"drums-16": model(*hierarchical), "drums-16-flat": model(*flat)}, {})
        return page.splitlines()[-1].split(" | ")[-1]

    assert words((0.5, 0.6), (0.7, 0.8)) == "apart |"
    assert words((0.5, 0.72), (0.7, 0.8)) == "overlap |"
    assert words((0.7, 0.8), (0.5, 0.6)) == "apart, the flat one is better |"


def test_a_model_trained_for_longer_than_its_twin_stands_beside_what_it_was_at_the_twins_time():
    def model(minutes: int, value: float, **start: Any) -> dict[str, Any]:
        accuracy = {"value": value, "low": value - 0.01, "high": value + 0.01}
        report = {"streams": [{"name": "melody", "sampled": {"accuracy": accuracy}}], "mean": None}
        return {"reconstruction": report, "trained": {"seconds": 60.0 * minutes, **start}}

    lessons = [{"lesson": "bars", "seconds": 1200.0}, {"lesson": "equation 4", "seconds": 2400.0}]
    longer = model(40, 0.8, **{"from": {"name": "windows", "seconds": 9.0, "source": {"lessons": lessons}}})
    models = {"melody-16": longer, "melody-16-flat": model(60, 0.5)}
    _, page = tables.twins(models, {"melody-16": model(60, 0.7)})
    early, late = (line.split(" | ") for line in page.splitlines()[-2:])
    assert early[1:3] == ["60", "60"] and early[5] == "+20.0 points"
    assert late[1:3] == ["60", "100"] and late[5] == "+30.0 points"


def test_rate_and_distortion_are_drawn_where_they_were_measured():
    pytest.importorskip("matplotlib")
    assert rate.settings("0.2:48") == ["training.beta=0.2", "training.free_bits=48"]
    with pytest.raises(ValueError, match="BETA:FREE_BITS"):
        rate.settings("0.2")

    def point(kl: float, sampled: float) -> dict[str, Any]:
        accuracy = {"value": sampled, "low": sampled - 0.01, "high": sampled + 0.01}
        ways = dict.fromkeys(("sampled", "teacher_forced", "nothing"), accuracy)
        return {"beta": 0.2, "free_bits": 48, "kl_bits": kl, **ways}

    (axes,) = rate.draw({"a": point(90, 0.8), "b": point(40, 0.7)}).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn["teacher-forced"] == [[40, 0.7], [90, 0.8]]


def test_a_prior_learns_from_training_windows_read_again_transposed_and_is_judged_by_others_as_they_are():
    config = ModelConfig((130,), 32, latent_size=4, encoder_units=12, encoder_layers=1, decoder_units=6)
    torch.manual_seed(0)
    model = MusicVAE(config)
    with torch.no_grad():
        model.to_mu.weight.mul_(40)
    tokens = np.zeros((800, 32, 1), np.int64)
    tokens[::2, ::2], tokens[1::2, ::8] = 62, 90
    tokens[np.arange(800), 1 + np.arange(800) % 7] = 70
    run = RunConfig(name="two", representation="melody", model=config)
    composer = Composer(model.eval(), run, representation("melody"))
    held_back = {"validation": tokens[600:]}
    alike = SimpleNamespace(folder="here", tokens=lambda split: held_back.get(split, tokens[:600]))
    clouds = [prior.posteriors(composer, alike, split, 1500) for split in ("train", "validation")]
    assert [len(cloud.mu) for cloud in clouds] == [1500, 200], "the training windows are read again, transposed"
    assert np.allclose(clouds[1].mu, composer.encode_tokens(held_back["validation"]).mu, atol=0.05)
    with pytest.raises(ValueError, match="here: no test windows"):
        prior.posteriors(composer, SimpleNamespace(folder="here", tokens=lambda _: tokens[:0]), "test", 9)


@pytest.mark.parametrize("bars", [1, 4])
def test_whitening_moves_no_reconstruction_and_makes_music_fill_the_prior(bars: int):
    whiten = script("whiten")
    torch.manual_seed(0)
    config = ModelConfig((5,), 16, bars=bars, latent_size=6, encoder_units=12, conductor_units=8, decoder_units=8)
    model = MusicVAE(config)
    with torch.no_grad():
        model.to_mu.weight.mul_(20)
    windows = np.random.default_rng(0).integers(0, 5, (400, 16, 1))
    tokens, before = torch.from_numpy(windows), whiten.read(model, windows)
    logits = model.predict_steps(tokens, before.mu.float())[0]
    white = whiten.whiten(model, before)
    after = whiten.read(white, windows)
    assert torch.allclose(white.predict_steps(tokens, after.mu.float())[0], logits, atol=1e-4)
    assert torch.allclose(after.mu.mean(0), torch.zeros(6, dtype=torch.double), atol=1e-3)
    spread = torch.cov(after.mu.t()) + after.sigma.square().mean(0).diag()
    assert torch.allclose(spread, torch.eye(6, dtype=torch.double), atol=0.05)
    assert after.kl < before.kl
    fewer = whiten.read(whiten.whiten(model, before, keep=2), windows)
    assert torch.allclose(fewer.mu, after.mu[:, :2], atol=1e-4), "those that are kept are those that carry most"
    assert after.mu.var(0).diff().max() < 0
    with pytest.raises(ValueError, match="more are needed"):
        whiten.whiten(model, whiten.read(model, windows[:6]))
