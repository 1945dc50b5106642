"""Training by the faster recurrence learns what `MusicVAE.forward` would: the same output, the same gradients."""

import pytest
import torch
from decoding import KINDS, build
from torch import Tensor

from musicvae.model.objective import TrainingConfig, objective
from musicvae.model.recurrence import Recurrence, Recurrent
from musicvae.model.trainer import Trainer
from musicvae.model.vae import MusicVAE, Output
from musicvae.presets import preset

torch.set_num_threads(1)  # models this small are slower on two


@pytest.fixture
def double() -> object:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def batch(model: MusicVAE, size: int = 5) -> tuple[Tensor, Tensor]:
    generator, config = torch.Generator().manual_seed(2), model.config
    streams = [torch.randint(v, (size, config.steps), generator=generator) for v in config.vocab_sizes]
    noise = torch.randn(size, config.latent_size, generator=generator, dtype=torch.get_default_dtype())
    return torch.stack(streams, dim=-1), noise


def values(output: Output) -> list[Tensor]:
    return [output.posterior.mean, output.posterior.stddev, *output.logits]


def gradients(model: MusicVAE, output: Output, tokens: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    objective(output, tokens, beta=0.5, free_bits=1.0).loss.backward()
    return {name: weights.grad.clone() for name, weights in model.named_parameters() if weights.grad is not None}


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_in_double_output_and_gradients_are_those_of_the_model(kind: str, layers: int, double: None) -> None:
    model = build(kind, layers).train()
    tokens, noise = batch(model)
    unheard = torch.rand(tokens.shape[:2], generator=torch.Generator().manual_seed(3)) < 0.3
    heard = tokens.flip(0)  # other windows
    plain = model(tokens, noise, unheard, heard)
    ours = Recurrent(model, torch.float64).forward(tokens, noise, unheard, heard)
    assert not torch.equal(plain.logits[0], model(tokens, noise, unheard).logits[0])
    for one, two in zip(values(plain), values(ours)):
        torch.testing.assert_close(two, one, rtol=0, atol=1e-12)
    wanted, found = gradients(model, plain, tokens), gradients(model, ours, tokens)
    assert wanted.keys() == found.keys() == dict(model.named_parameters()).keys()
    for name, gradient in wanted.items():
        assert gradient.abs().max() > 0 or name == "conductor.weight_ih_l0", name  # its input is silence
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_the_backward_pass_written_by_hand_is_the_derivative(double: None) -> None:
    torch.manual_seed(0)
    shapes = {"gates": (4, 3, 8), "h": (3, 2), "c": (3, 2), "weight": (2, 8)}
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes.values()]
    assert torch.autograd.gradcheck(Recurrence.apply, inputs)


def test_in_bf16_the_gradients_point_where_those_of_fp32_do() -> None:
    model = MusicVAE(preset("drums-2").model("small"))
    tokens, noise = batch(model, 16)
    exact = gradients(model, model(tokens, noise), tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = gradients(model, Recurrent(model, torch.bfloat16).forward(tokens, noise), tokens)
    for name, gradient in exact.items():
        assert torch.cosine_similarity(gradient.flatten(), rounded[name].flatten(), dim=0) > 0.98, name


def test_a_step_of_training_is_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for least in (0, 10**9):  # tokens from which on the faster recurrence is taken
        monkeypatch.setattr("musicvae.model.stages.ROWS_PAY", least)
        model = build("trio")
        trainer = Trainer(model, TrainingConfig(precision="fp32", learning_rate=0.1, warmup=0), torch.device("cpu"))
        for _ in range(3):
            trainer.update(batch(model)[0])
        weights.append(torch.cat([w.detach().flatten() for w in model.parameters()]))
    assert not torch.equal(weights[0], weights[1])  # so two ways were gone
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-2, atol=1e-3)
