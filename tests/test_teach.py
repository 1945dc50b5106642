"""Teaching: the dreams are the teacher's own, and a student that equals the teacher has nothing to learn."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.vae import MusicVAE

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


@pytest.fixture
def dreams(folder: Path) -> teach.Dreams:
    return teach.dream(load_run(folder).model, 600, seed=3)


def logits_of(folder: Path, dreams: teach.Dreams) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z, tokens and the teacher's logits of all dreams."""
    z, tokens = torch.from_numpy(dreams.z.astype(np.float32)), torch.from_numpy(dreams.tokens.astype(np.int64))
    return z, tokens, load_run(folder).model.predict_steps(tokens, z)[0].detach()


def test_dreamt_tokens_are_drawn_from_the_teachers_own_distributions(folder: Path, dreams: teach.Dreams) -> None:
    _, tokens, logits = logits_of(folder, dreams)
    probabilities = logits.softmax(-1)
    surprise = -probabilities.gather(-1, tokens).log().mean()
    entropy = -(probabilities * probabilities.log()).sum(-1).mean()
    assert abs(float(surprise - entropy)) < 0.05  # the mean of -log p over draws from p is the entropy of p
    assert float(entropy) > 0.5  # so that the most likely tokens would not pass
    assert -probabilities.max(-1).values.log().mean() < surprise - 0.3


def test_z_of_dreams_is_of_the_prior(dreams: teach.Dreams) -> None:
    assert abs(dreams.z.mean()) < 0.05 and abs(dreams.z.std() - 1) < 0.05


def test_batches_take_every_dream_once_before_any_comes_again(dreams: teach.Dreams) -> None:
    numbered = teach.Dreams(np.arange(10, dtype=np.float16)[:, None], np.arange(10, dtype=np.uint16)[:, None, None])
    seen = torch.cat([numbered.batch(step, 4)[0] for step in range(5)]).flatten().tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]
    z, tokens = numbered.batch(3, 4)
    assert torch.equal(z.flatten().long(), tokens.flatten())


def test_a_student_that_equals_the_teacher_is_at_no_distance(folder: Path, dreams: teach.Dreams) -> None:
    student = load_run(folder).model
    _, figures = teach.decoder_loss(student, *logits_of(folder, dreams))
    assert figures["divergence"] == pytest.approx(0, abs=1e-4) and figures["same_choice"] > 0.99
    torch.manual_seed(9)
    assert teach.decoder_loss(MusicVAE(student.config), *logits_of(folder, dreams))[1]["divergence"] > 0.1


def test_awake_the_teacher_is_heard_but_never_changed(folder: Path, dreams: teach.Dreams) -> None:
    teacher, student = load_run(folder).model.requires_grad_(False), load_run(folder).model
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 90, (4, 32, 1)))
    loss, figures = teach.wake_loss(student, teacher, tokens, torch.zeros(4, 6), dreams.batch(0, 4))
    loss.backward()
    assert all(weights.grad is not None for weights in student.parameters())
    assert not any(weights.grad is not None for weights in teacher.parameters())
    assert figures["divergence"] == pytest.approx(0, abs=1e-4)


def test_a_student_that_equals_the_teacher_writes_the_same(folder: Path, dreams: teach.Dreams) -> None:
    model, tokens = load_run(folder).model, dreams.tokens
    figures = teach.compare(model, model, tokens, dreams)
    assert figures["student_sampled_accuracy"] == figures["teacher_sampled_accuracy"] > 0
    assert figures["divergence"] == figures["dreams_divergence"] == pytest.approx(0, abs=1e-4)
    torch.manual_seed(9)
    assert teach.compare(MusicVAE(model.config), model, tokens, dreams)["dreams_divergence"] > 0.1


def test_asleep_only_the_encoder_learns(folder: Path, tmp_path: Path) -> None:
    teach.main(["dream", str(folder), str(tmp_path / "d.npz"), "--dreams", "32"])
    teach.main(["sleep", str(folder), str(tmp_path / "d.npz"), str(tmp_path / "out"), "--steps", "3"])
    after = load_run(tmp_path / "out").model
    torch.manual_seed(0)
    fresh = MusicVAE(after.config).state_dict()
    changed = {name for name, value in after.state_dict().items() if not torch.equal(value, fresh[name])}
    assert changed and not any(name.startswith("decoders.") for name in changed)


def test_killed_lessons_go_on_to_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teach, "CHECKPOINT", 2)
    teach.main(["dream", str(folder), str(tmp_path / "d.npz"), "--dreams", "32"])
    whole, cut = (
        ["sleep", str(folder), str(tmp_path / "d.npz"), str(tmp_path / name), "--steps", "6", "--batch-size", "8"]
        for name in ("whole", "cut")
    )
    teach.main(whole)
    loss, calls = teach.sleep_loss, iter(range(99))

    def dies(*given: object) -> object:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(teach, "sleep_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        teach.main(cut)
    assert load_run(tmp_path / "cut").config.trained["steps"] == 2
    teach.main(cut)
    one, two = (load_run(tmp_path / name).model.state_dict().values() for name in ("whole", "cut"))
    assert all(torch.equal(a, b) for a, b in zip(one, two))
    with pytest.raises(ValueError, match="cut was begun with another batch_size, steps"):
        teach.main([*cut[:-4], "--steps", "9", "--batch-size", "4"])
