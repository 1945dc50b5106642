"""Teaching: the dreams are the teacher's own, and a student that equals the teacher has nothing to learn."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from musicvae.model.checkpoint import RunConfig, load_run, save_run
from musicvae.model.objective import TrainingConfig
from musicvae.model.vae import ModelConfig, MusicVAE

SCRIPT = Path(__file__).parent.parent / "paper" / "teach.py"
spec = importlib.util.spec_from_file_location("teach", SCRIPT)
assert spec is not None and spec.loader is not None
teach = importlib.util.module_from_spec(spec)
spec.loader.exec_module(teach)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    sizes = {"latent_size": 6, "encoder_units": 8, "encoder_layers": 1, "decoder_units": 10, "decoder_layers": 2}
    model = MusicVAE(ModelConfig((90,), 32, **sizes))
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(4)  # far from a uniform distribution
    save_run(tmp_path / "teacher", model, RunConfig(representation="melody-90", model=model.config))
    return tmp_path / "teacher"


def dreams(folder: Path, step: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return teach.dreams(teach.Teacher(folder), TrainingConfig(batch_size=64, seed=3), step)


def test_dreams_come_with_the_distributions_that_the_model_itself_would_give(folder: Path) -> None:
    z, tokens, logits = dreams(folder)
    model = load_run(folder).model
    torch.testing.assert_close(model.predict_steps(tokens, z)[0], logits, rtol=1e-4, atol=1e-4)


def test_dreamt_tokens_are_drawn_from_those_distributions(folder: Path) -> None:
    _, tokens, logits = dreams(folder)
    probabilities = logits.softmax(-1)
    surprise = -probabilities.gather(-1, tokens).log().mean()
    entropy = -(probabilities * probabilities.log()).sum(-1).mean()
    assert abs(float(surprise - entropy)) < 0.1  # the mean of -log p over draws from p is the entropy of p
    assert float(entropy) > 0.5  # so that the most likely tokens would not pass
    assert -probabilities.max(-1).values.log().mean() < surprise - 0.3


def test_dreams_follow_from_the_step_alone(folder: Path) -> None:
    first, again, other = dreams(folder, 5), dreams(folder, 5), dreams(folder, 6)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[1], other[1])


def test_a_student_that_equals_the_teacher_is_at_no_distance(folder: Path) -> None:
    student = load_run(folder).model
    _, figures = teach.decoder_loss(student, *dreams(folder))
    assert figures["divergence"] == pytest.approx(0, abs=1e-4) and figures["same_choice"] > 0.99
    torch.manual_seed(9)
    assert teach.decoder_loss(MusicVAE(student.config), *dreams(folder))[1]["divergence"] > 0.1


def test_lessons_change_their_half_of_the_student_only(folder: Path, tmp_path: Path) -> None:
    teach.main(["decoder", str(folder), "-", str(tmp_path / "out"), "--steps", "3", "--batch-size", "8"])
    after = load_run(tmp_path / "out").model
    torch.manual_seed(0)
    fresh = MusicVAE(after.config).state_dict()
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, fresh[name])}
    assert changed and all(name.startswith("decoders.") for name in changed)


def test_killed_lessons_go_on_to_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach, "CHECKPOINT", 2)
    command = ["decoder", str(folder), "-", "OUT", "--steps", "6", "--batch-size", "8"]
    whole, cut = ([str(tmp_path / name) if word == "OUT" else word for word in command] for name in ("whole", "cut"))
    teach.main(whole)
    loss, calls = teach.decoder_loss, iter(range(99))

    def dies(*given: object) -> object:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(teach, "decoder_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        teach.main(cut)
    assert load_run(tmp_path / "cut").config.trained["steps"] == 2
    teach.main(cut)
    one, two = (load_run(tmp_path / name).model.state_dict().values() for name in ("whole", "cut"))
    assert all(torch.equal(a, b) for a, b in zip(one, two))


def test_joining_takes_the_decoder_of_one_and_the_encoder_of_the_other(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    run = load_run(folder)
    save_run(tmp_path / "encoder", MusicVAE(run.config.model), run.config)
    teach.join(folder, tmp_path / "encoder", tmp_path / "both")
    both, encoder = load_run(tmp_path / "both").model, load_run(tmp_path / "encoder").model
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 90, (3, 32, 1)))
    assert torch.equal(both.encode(tokens).mean, encoder.encode(tokens).mean)
    z = torch.randn(3, 6)
    assert torch.equal(both.predict_steps(tokens, z)[0], run.model.predict_steps(tokens, z)[0])
