"""A run folder gives back the model that was saved, or says what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import safetensors.torch
import torch

from musicvae import files
from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.config import ModelConfig, RunConfig, load_config
from musicvae.model.vae import MusicVAE, draw_prior, draw_uniforms

torch.set_num_threads(1)  # models this small are slower on two

TINY: dict[str, Any] = {
    "latent_size": 4,
    "encoder_units": 8,
    "conductor_units": 8,
    "condition_size": 4,
    "decoder_units": 8,
}
TRIO = ModelConfig((9, 7, 8), 8, 2, bar_start="previous", **TINY)


@pytest.fixture
def model() -> MusicVAE:
    torch.manual_seed(0)
    return MusicVAE(TRIO)


@pytest.fixture
def run(tmp_path: Path, model: MusicVAE) -> Path:
    config = RunConfig(
        name="mine", representation="trio", drum_map="paper", preset="trio-16", size="small", model=TRIO,
        training={"steps": 5, "learning_rate": 1e-3}, trained={"steps": 5, "validation": {"accuracy": 0.5}},
    )  # fmt: skip
    save_run(tmp_path / "run", model, config)
    return tmp_path / "run"


def test_what_was_saved_is_loaded(run: Path, model: MusicVAE) -> None:
    loaded = load_run(run)
    assert loaded.config.model == TRIO and loaded.config.trained["validation"]["accuracy"] == 0.5
    assert (loaded.config.name, loaded.config.drum_map, loaded.config.size) == ("mine", "paper", "small")
    assert loaded.config == load_config(run)
    for name, value in model.state_dict().items():
        assert loaded.model.state_dict()[name].equal(value), name
    z, numbers = draw_prior(5, 4, seed=0), draw_uniforms(5, 8, 3, seed=0)
    assert loaded.model.decode(z, numbers).equal(model.decode(z, numbers)) and not loaded.model.training


def test_the_same_model_is_saved_as_the_same_bytes(run: Path, tmp_path: Path) -> None:
    loaded = load_run(run)
    save_run(tmp_path / "copy", loaded.model, loaded.config)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "copy" / file).read_bytes() == (run / file).read_bytes()


def test_config_is_json_that_people_can_read(run: Path) -> None:
    text = (run / "config.json").read_text()
    assert json.loads(text)["format"] == 1 and json.loads(text)["model"]["vocab_sizes"] == [9, 7, 8]
    assert len(text.splitlines()) > 20


def test_weights_and_configuration_are_for_the_same_readers(run: Path) -> None:
    (run / "other").write_text("")
    assert len({path.stat().st_mode for path in run.iterdir()}) == 1


def test_half_is_half_on_disk_and_whole_in_memory(run: Path, tmp_path: Path, model: MusicVAE) -> None:
    save_run(tmp_path / "half", model, load_config(run), half=True)
    small, large = ((folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", run))
    loaded = load_run(tmp_path / "half").model
    assert small < 0.6 * large and all(p.dtype == torch.float32 for p in loaded.parameters())
    for name, value in model.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, atol=1e-3), name


def test_a_loaded_model_can_be_trained_on(run: Path) -> None:
    model = load_run(run).model.train()
    torch.cat(model(torch.zeros(2, 8, 3, dtype=torch.long)).logits, -1).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())


def change_config(run: Path, **changes: object) -> None:
    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(values | changes))


def change_tensors(run: Path, name: str, value: torch.Tensor | None) -> None:
    tensors = safetensors.torch.load_file(run / "model.safetensors")
    tensors.pop(name, None)
    safetensors.torch.save_file(tensors | ({} if value is None else {name: value}), run / "model.safetensors")


MALADIES = {
    "no config": (lambda run: (run / "config.json").unlink(), "holds no config.json"),
    "no weights": (lambda run: (run / "model.safetensors").unlink(), "holds no model.safetensors"),
    "no JSON": (lambda run: (run / "config.json").write_text('{"format": 1,'), "no valid run configuration"),
    "empty config": (lambda run: (run / "config.json").write_text(""), "no valid run configuration"),
    "a list": (lambda run: (run / "config.json").write_text("[]"), "no valid run configuration"),
    "future format": (lambda run: change_config(run, format=99), "has format 99"),
    "a name that leads elsewhere": (lambda run: change_config(run, name="../../trav"), "no slash"),
    "no model": (lambda run: change_config(run, model=None), "$.model"),
    "wrong type": (lambda run: change_config(run, model={"vocab_sizes": [9], "steps": "many"}), "$.model.steps"),
    "impossible model": (lambda run: change_config(run, model={"vocab_sizes": [9], "steps": 5, "bars": 2}), "2 bars"),
    "other sizes": (lambda run: change_config(run, model={"vocab_sizes": [9], "steps": 8}), "config.json"),
    "tensor missing": (lambda run: change_tensors(run, "to_mu.bias", None), "lacks the tensor to_mu.bias"),
    "tensor unknown": (lambda run: change_tensors(run, "extra", torch.ones(2)), "has a tensor extra"),
    "tensor of other shape": (
        lambda run: change_tensors(run, "to_mu.bias", torch.ones(3)),
        "to_mu.bias has shape (3,)",
    ),
    "truncated": (
        lambda run: (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:-9]),
        "cannot be read",
    ),
    "empty weights": (lambda run: (run / "model.safetensors").write_bytes(b""), "cannot be read"),
}


@pytest.mark.parametrize(("damage", "says"), MALADIES.values(), ids=MALADIES.keys())
def test_a_damaged_run_is_refused_by_name(run: Path, damage, says: str) -> None:
    damage(run)
    with pytest.raises(ValueError) as error:
        load_run(run)
    assert says in str(error.value) and str(run) in str(error.value)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        load_run(tmp_path / "nowhere")


@pytest.mark.parametrize("moment", ["write", "replace"])
def test_a_save_that_fails_leaves_the_old_run(run: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    torch.manual_seed(1)
    before = load_run(run).model.state_dict()
    target = (Path, "write_bytes") if moment == "write" else (files.os, "replace")
    monkeypatch.setattr(*target, fail)
    with pytest.raises(OSError):
        save_run(run, MusicVAE(TRIO), load_config(run))
    after = load_run(run).model.state_dict()
    assert all(after[name].equal(value) for name, value in before.items())
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "model.safetensors"]
