"""The model does what section 3 of the paper says; each test can fail, and names an error seen in a port."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from musicvae.model.config import ModelConfig
from musicvae.model.vae import MusicVAE, draw, draw_prior, draw_uniforms

torch.set_num_threads(1)  # models this small are slower on two

TINY: dict[str, Any] = {
    "latent_size": 6,
    "encoder_units": 12,
    "conductor_units": 10,
    "condition_size": 5,
    "decoder_units": 11,
}
CONFIGS = {
    "flat": ModelConfig((9,), 12, **TINY),
    "flat trio": ModelConfig((9, 7, 8), 12, **TINY),
    "hierarchical": ModelConfig((9,), 12, 3, **TINY),
    "linear": ModelConfig((9,), 12, 3, encoder_bars=3, linear=True, **TINY),
    "hierarchical previous": ModelConfig((9,), 12, 3, bar_start="previous", **TINY),
    "trio": ModelConfig((9, 7, 8), 12, 3, **TINY),
    "trio read by bars": ModelConfig((9, 7, 8), 12, 3, encoder_bars=3, **TINY),
    "flat read by bars": ModelConfig((9,), 12, encoder_bars=3, **TINY),
    "trio previous": ModelConfig((9, 7, 8), 12, 3, bar_start="previous", **TINY),
}
ALL = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
HIERARCHICAL = pytest.mark.parametrize("name", [name for name in CONFIGS if "flat" not in name])


def build(config: ModelConfig) -> MusicVAE:
    """A model whose weights are large enough that everything it hears changes what it says."""
    torch.manual_seed(1)
    model = MusicVAE(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


def some_tokens(config: ModelConfig, n: int = 4) -> Tensor:
    torch.manual_seed(2)
    return torch.stack([torch.randint(v, (n, config.steps)) for v in config.vocab_sizes], dim=-1)


def other(tokens: Tensor, config: ModelConfig, step: int, stream: int) -> Tensor:
    """The same tokens but for one step of one stream."""
    changed = tokens.clone()
    changed[:, step, stream] = (changed[:, step, stream] + 1) % config.vocab_sizes[stream]
    return changed


def says(model: MusicVAE, tokens: Tensor, z: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat(model.predict_steps(tokens, z), dim=-1)  # (B, T, V)


# --- what the decoder hears ------------------------------------------------------------------------------------


@ALL
def test_a_step_never_hears_its_own_token_and_the_next_one_does(config: ModelConfig) -> None:
    model, tokens, z = build(config), some_tokens(config), draw_prior(4, 6, seed=0)
    before, bar = says(model, tokens, z), config.steps // config.bars
    for step in range(config.steps):
        for stream in range(len(config.vocab_sizes)):
            differs = (says(model, other(tokens, config, step, stream), z) != before).any(-1).any(0)  # (T,)
            assert not differs[: step + 1].any(), "a label leaks into its own prediction, or back in time"
            crosses = config.bar_start == "previous" or (step + 1) % bar
            if step + 1 < config.steps and crosses:
                assert differs[step + 1], "the next step does not hear this token"


@HIERARCHICAL
def test_the_state_of_a_bar_ends_with_the_bar(name: str) -> None:
    config = CONFIGS[name]
    model, tokens, z = build(config), some_tokens(config), draw_prior(4, 6, seed=0)
    before, bar = says(model, tokens, z), config.steps // config.bars
    differs = (says(model, other(tokens, config, 1, 0), z) != before).any(-1).any(0)
    assert differs[2:bar].any() and not differs[bar:].any()
    after = (says(model, other(tokens, config, bar - 1, 0), z) != before).any(-1).any(0)
    assert after[bar:].any() == (config.bar_start == "previous"), "the last token of a bar is heard only if previous"


def test_silent_bars_are_written_independently() -> None:
    model, z, numbers = build(CONFIGS["trio"]), draw_prior(5, 6, seed=0), draw_uniforms(5, 12, 3, seed=0)
    changed = numbers.clone()
    changed[:, :4] = 1 - changed[:, :4]
    one, two = model.decode(z, numbers), model.decode(z, changed)
    assert not one[:, :4].equal(two[:, :4]) and one[:, 4:].equal(two[:, 4:])


def test_previous_bars_hear_the_bar_before() -> None:
    model, z, numbers = build(CONFIGS["trio previous"]), draw_prior(50, 6, seed=0), draw_uniforms(50, 12, 3, seed=0)
    changed = numbers.clone()
    changed[:, :4] = 1 - changed[:, :4]
    assert not model.decode(z, numbers)[:, 4:].equal(model.decode(z, changed)[:, 4:])


@pytest.mark.parametrize(("name", "apart"), [("trio", True), ("trio previous", True), ("flat trio", False)])
def test_only_the_flat_decoder_lets_streams_hear_one_another(name: str, apart: bool) -> None:
    config = CONFIGS[name]
    model, tokens, z = build(config), some_tokens(config), draw_prior(4, 6, seed=0)
    changed = model.predict_steps(other(tokens, config, 4, 0), z)
    assert changed[0].ne(model.predict_steps(tokens, z)[0]).any()
    assert changed[1].equal(model.predict_steps(tokens, z)[1]) == apart
    assert changed[2].equal(model.predict_steps(tokens, z)[2]) == apart


@ALL
def test_what_is_unheard_changes_nothing(config: ModelConfig) -> None:
    model, tokens = build(config), some_tokens(config)
    z, everything = draw_prior(4, 6, 0), torch.ones(4, config.steps, dtype=torch.bool)
    with torch.no_grad():
        one = torch.cat(model.predict_steps(tokens, z, everything), -1)
        assert torch.equal(one, torch.cat(model.predict_steps(other(tokens, config, 1, 0), z, everything), -1))
        heard = torch.cat(model.predict_steps(tokens, z, ~everything), -1)
    assert torch.equal(heard, says(model, tokens, z)) and not torch.allclose(heard, one)


@ALL
def test_every_step_hears_z(config: ModelConfig) -> None:
    model, tokens = build(config), some_tokens(config)
    assert (says(model, tokens, torch.zeros(4, 6)) != says(model, tokens, torch.ones(4, 6))).any(-1).all()


# --- free running ----------------------------------------------------------------------------------------------


@ALL
def test_greedy_free_running_is_teacher_forcing_on_its_own_output(config: ModelConfig) -> None:
    model, z = build(config), draw_prior(20, 6, seed=3)
    written = model.decode(z, temperature=0)
    forced = torch.stack([logits.argmax(-1) for logits in model.predict_steps(written, z)], dim=-1)
    assert written.equal(forced) and len(written.unique()) > 3


@ALL
def test_sampling_is_teacher_forcing_on_its_own_output(config: ModelConfig) -> None:
    model, z = build(config), draw_prior(20, 6, seed=3)
    numbers = draw_uniforms(20, config.steps, len(config.vocab_sizes), seed=4)
    written = model.decode(z, numbers, temperature=0.7)
    for i, logits in enumerate(model.predict_steps(written, z)):
        cumulative = F.softmax(logits.double() / 0.7, dim=-1).cumsum(-1)
        assert written[..., i].equal((cumulative <= numbers[..., i, None]).sum(-1))


@ALL
def test_tokens_do_not_depend_on_the_batch(config: ModelConfig) -> None:
    model, streams = build(config), len(config.vocab_sizes)
    together = model.decode(draw_prior(7, 6, seed=5), draw_uniforms(7, config.steps, streams, seed=5))
    for n in (1, 3):
        fewer = model.decode(draw_prior(n, 6, seed=5), draw_uniforms(n, config.steps, streams, seed=5))
        assert fewer.equal(together[:n])
    assert not together.equal(model.decode(draw_prior(7, 6, seed=5), draw_uniforms(7, config.steps, streams, seed=6)))


def test_draw_is_the_inverse_of_the_cumulative_distribution() -> None:
    logits = torch.log(torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0]))
    numbers = torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-24])
    assert draw(logits.expand(6, -1), numbers, 1.0).tolist() == [1, 1, 3, 3, 4, 4]


def test_draw_follows_the_temperature() -> None:
    logits, numbers = torch.randn(8, generator=torch.Generator().manual_seed(0)), (torch.arange(20000) + 0.5) / 20000
    for temperature in (0.5, 1.0, 2.0):
        counts = torch.bincount(draw(logits.expand(20000, -1), numbers, temperature), minlength=8)
        assert torch.allclose(counts / 20000, F.softmax(logits / temperature, -1), atol=1e-4)
    assert draw(logits.expand(20000, -1), numbers, 1e-300).unique().tolist() == [int(logits.argmax())]
    assert draw(logits.expand(20000, -1), numbers, 0).unique().tolist() == [int(logits.argmax())]


def test_drawn_examples_do_not_depend_on_how_many_are_drawn() -> None:
    assert draw_uniforms(3, 5, 2, seed=1).equal(draw_uniforms(9, 5, 2, seed=1)[:3])
    assert draw_prior(3, 17, seed=1).equal(draw_prior(9, 17, seed=1)[:3])
    numbers, z = draw_uniforms(100, 32, 1, seed=2), draw_prior(1000, 64, seed=2)
    assert numbers.min() >= 0 and numbers.max() < 1 and abs(numbers.mean() - 0.5) < 0.02
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02 and not z[0].equal(draw_prior(1, 64, seed=3)[0])


# --- the posterior ---------------------------------------------------------------------------------------------


@ALL
def test_the_latent_of_one_example_does_not_depend_on_another(config: ModelConfig) -> None:
    model, tokens = build(config), some_tokens(config)
    together, changed = model.encode(tokens), model.encode(torch.cat([tokens[:1], tokens[1:].flip(1)]))
    alone = model.encode(tokens[:1])
    for got in (changed, alone):
        assert torch.allclose(got.mean[0], together.mean[0], atol=1e-5)
        assert torch.allclose(got.stddev[0], together.stddev[0], atol=1e-5)
    assert not torch.allclose(changed.mean[1:], together.mean[1:], atol=1e-3)


@ALL
def test_the_summary_is_both_directions_after_the_whole_window(config: ModelConfig) -> None:
    model, tokens, hidden = build(config), some_tokens(config), config.encoder_units
    parts = model.one_hot(tokens).reshape(4 * config.encoder_bars, -1, sum(config.vocab_sizes))
    steps, _ = model.encoder(parts)  # (B * encoder_bars, steps of a bar, 2H)
    summary = torch.cat([steps[:, -1, :hidden], steps[:, 0, hidden:]], dim=-1)
    if config.encoder_bars > 1:
        summaries = model.to_summary(summary).view(4, config.encoder_bars, -1)
        bars, _ = model.reader(summaries)
        summary = torch.cat([bars[:, -1, : config.conductor_units], bars[:, 0, config.conductor_units :]], dim=-1)
    posterior = model.encode(tokens)
    beside = model.linear_mu(summaries.flatten(1)) if config.linear else 0
    assert torch.allclose(posterior.mean, model.to_mu(summary) + beside, atol=1e-5)
    assert torch.allclose(posterior.stddev, torch.log1p(model.to_sigma(summary).exp()), atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_each_direction_alone_has_seen_every_step(direction: str) -> None:
    config = ModelConfig((9,), 6, encoder_layers=1, **TINY)  # in one layer neither direction hears the other
    model, tokens, hidden = build(config), some_tokens(config), config.encoder_units
    with torch.no_grad():
        model.to_mu.weight[:, hidden:] *= direction == "backward"
        model.to_mu.weight[:, :hidden] *= direction == "forward"
    for step in range(6):
        assert not model.encode(other(tokens, config, step, 0)).mean.equal(model.encode(tokens).mean), step


@pytest.mark.parametrize("name", ["trio read by bars", "flat read by bars"])
def test_an_encoder_of_bars_hears_each_bar_by_itself_and_all_of_them_in_order(name: str) -> None:
    config = CONFIGS[name]
    model, tokens = build(config), some_tokens(config)
    before, summaries = model.encode(tokens).mean, model.read(tokens).view(4, 3, -1)
    for step in range(12):
        changed = other(tokens, config, step, 0)
        differs = (model.read(changed).view(4, 3, -1) != summaries).any(-1).any(0)  # (encoder_bars)
        assert differs.tolist() == [bar == step // 4 for bar in range(3)]
        assert not model.encode(changed).mean.equal(before)
    assert not model.encode(tokens.view(4, 3, 4, -1).flip(1).flatten(1, 2)).mean.equal(before)


def test_sigma_can_fall_far_below_1() -> None:
    model, tokens = build(CONFIGS["flat"]), some_tokens(CONFIGS["flat"])
    with torch.no_grad():
        model.to_sigma.weight.zero_()
        model.to_sigma.bias.fill_(-5.0)
    assert torch.allclose(model.encode(tokens).stddev, torch.tensor(0.0067153), atol=1e-6)


@ALL
def test_forward_decodes_the_z_that_the_noise_draws(config: ModelConfig) -> None:
    model, tokens, noise = build(config), some_tokens(config), draw_prior(4, 6, seed=8)
    output = model(tokens, noise)
    z = output.posterior.mean + output.posterior.stddev * noise
    for got, wanted, vocab in zip(output.logits, model.predict_steps(tokens, z), config.vocab_sizes):
        assert got.equal(wanted) and got.shape == (4, 12, vocab)
    assert not model(tokens).logits[0].equal(output.logits[0]), "without noise it draws its own"


# --- sizes and refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (ModelConfig((130,), 256, 16), 173),
        (ModelConfig((130, 130, 512), 256, 16), 221),
        (ModelConfig((130,), 256, 16, bar_start="previous"), 173),
        (ModelConfig((130,), 32, decoder_units=2048, decoder_layers=3), 236),
    ],
)
def test_the_paper_widths_have_the_known_number_of_parameters(config: ModelConfig, millions: int) -> None:
    with torch.device("meta"):
        model = MusicVAE(config)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == millions


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocab_sizes": ()}, "vocab_sizes is ()"),
        ({"vocab_sizes": (130, 1)}, "from 2 to"),
        ({"steps": 0}, "steps is 0"),
        ({"decoder_units": 2.5}, "decoder_units is 2.5"),
        ({"bars": 5}, "256 steps cannot be cut into 5 bars"),
        ({"bar_start": "loud"}, "silent, previous"),
    ],
)
def test_a_config_that_makes_no_model_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError) as error:
        ModelConfig(**{"vocab_sizes": (130,), "steps": 256, "bars": 16} | change)  # type: ignore[arg-type]
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (torch.zeros(2, 12, dtype=torch.long), "12 steps, 3 streams"),
        (torch.zeros(2, 11, 3, dtype=torch.long), "(2, 11, 3)"),
        (torch.zeros(2, 12, 1, dtype=torch.long), "3 streams"),
        (torch.zeros(2, 12, 3), "float32"),
        (torch.full((2, 12, 3), 8), "stream 1 has tokens 8 to 8; the model has 0 to 6"),
        (torch.full((2, 12, 3), -1), "stream 0 has tokens -1"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tokens: Tensor, says: str) -> None:
    model = build(CONFIGS["trio"])
    for entry in (model.encode, model, lambda t: model.predict_steps(t, torch.zeros(len(t), 6))):
        with pytest.raises(ValueError) as error:
            entry(tokens)
        assert says in str(error.value)


def test_a_decode_that_cannot_be_is_refused() -> None:
    model, z, numbers = build(CONFIGS["trio"]), torch.zeros(2, 6), draw_uniforms(2, 12, 3, seed=0)
    for arguments, text in (
        ((torch.zeros(2, 5), numbers), "(batch, 6)"),
        ((z, numbers[:1]), "(1, 12, 3)"),
        ((z, None), "missing"),
        ((z, numbers, -1.0), "temperature is -1"),
        ((z, numbers, float("nan")), "temperature is nan"),
    ):
        with pytest.raises(ValueError) as error:
            model.decode(*arguments)
        assert text in str(error.value)


def test_an_empty_batch_is_no_error() -> None:
    model = build(CONFIGS["trio previous"])
    assert model.decode(torch.zeros(0, 6), temperature=0).shape == (0, 12, 3)
