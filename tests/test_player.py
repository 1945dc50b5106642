"""The player in NumPy encodes and decodes as the plain model of torch does.

In double the two agree to some 1e-15, so every token must be the same. In fp32 their sums are rounded in another
order: there, every token must be the one that the plain decoder's own probabilities give after the tokens before it,
unless its uniform number lies within NEAR of the border between two tokens; how often that happens is bounded too.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from decoding import KINDS, TEMPERATURES, build, drawn, near_ties

from musicvae.composer import Composer, load
from musicvae.model.checkpoint import arrays
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.player import Player
from musicvae.model.table_decoder import draw
from musicvae.model.threads import SMALL, few_threads, openblas
from musicvae.model.torch_player import TorchPlayer, player_of
from musicvae.model.vae import MusicVAE, draw_uniforms
from musicvae.model.vae import draw as plain_draw
from musicvae.model.weights import shapes
from musicvae.music.representation import representation

torch.set_num_threads(1)  # models this small are slower on two


def player(model: MusicVAE) -> Player:
    return Player(model.config, arrays(model))


# --- the same tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_in_double_all_tokens_are_the_plain_decoders(kind: str, layers: int, temperature: float) -> None:
    model = build(kind, layers).double()
    for n in (1, 7):
        z, uniforms = drawn(model, n)
        tokens = player(model).decode(z.numpy(), uniforms.numpy(), temperature)
        assert np.array_equal(tokens, model.decode(z, uniforms, temperature).numpy())
    assert len(np.unique(tokens)) > (3 if temperature else 1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("kind", KINDS)
def test_in_single_precision_too_but_for_near_ties(kind: str, temperature: float) -> None:
    model = build(kind, steps=48)
    z, uniforms = drawn(model, 100)
    tokens = torch.from_numpy(player(model).decode(z.numpy(), uniforms.numpy(), temperature))
    near = near_ties(model, z, uniforms, temperature, tokens).flatten(1).any(1)  # (B)
    same = (tokens == model.decode(z, uniforms, temperature)).flatten(1).all(1)
    assert (same | near).all(), "a window without a near tie differs"
    assert same.float().mean() > 0.98


@pytest.mark.parametrize("name", ["melody-2", "drums-2", "trio-16"])
def test_the_shipped_models_write_the_same_but_for_near_ties(name: str) -> None:
    composer = load(name)
    z, uniforms = drawn(composer.model, 24)
    for temperature in TEMPERATURES:
        tokens = torch.from_numpy(composer.player.decode(z.numpy(), uniforms.numpy(), temperature))
        near = near_ties(composer.model, z, uniforms, temperature, tokens).flatten(1).any(1)
        same = (tokens == composer.model.decode(z, uniforms, temperature)).flatten(1).all(1)
        assert (same | near).all() and same.float().mean() > 0.9


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 1e-300])
def test_the_draw_is_that_of_the_plain_decoder(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, numbers = torch.randn(500, 130, generator=generator) * 4, torch.rand(500, generator=generator)
    logits[0, 0], numbers[0] = -torch.inf, 0.0  # what cannot be is not drawn, not even by the least of numbers
    expected = plain_draw(logits, numbers, temperature).tolist()
    assert draw(logits.T.numpy(), numbers.numpy(), temperature).tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_do_not_depend_on_the_batch(kind: str) -> None:
    model = build(kind).double()
    z, uniforms = (x.numpy() for x in drawn(model, 7))
    together = player(model).decode(z, uniforms)
    for n in (1, 3):
        assert np.array_equal(player(model).decode(z[:n], uniforms[:n]), together[:n])


@pytest.mark.skipif(openblas() is None, reason="NumPy computes by something other than OpenBLAS here")
def test_tokens_do_not_depend_on_the_number_of_threads() -> None:
    get, set_to = openblas()  # type: ignore[misc]
    before, written = get(), []
    for threads in (1, 2):
        try:
            set_to(threads)
            written.append(load("melody-16").sample(3, seed=4))
        finally:
            set_to(before)
    assert [song.to_bytes() for song in written[0]] == [song.to_bytes() for song in written[1]]


@pytest.mark.skipif(openblas() is None, reason="NumPy computes by something other than OpenBLAS here")
def test_small_products_take_one_thread_and_give_the_others_back() -> None:
    get, set_to = openblas()  # type: ignore[misc]
    before = get()
    set_to(2)
    with few_threads(SMALL - 1):
        assert get() == 1
    with few_threads(SMALL):
        assert get() == 2
    with pytest.raises(KeyError), few_threads(1):
        raise KeyError
    assert get() == 2
    set_to(before)


# --- the posterior ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_posterior_is_that_of_the_model(kind: str, layers: int) -> None:
    torch.manual_seed(layers)
    model = MusicVAE(replace(build(kind).config, encoder_layers=layers)).eval()
    tokens = torch.stack([torch.randint(size, (6, 12)) for size in model.config.vocab_sizes], dim=-1)
    with torch.no_grad():
        expected = model.encode(tokens)
    found = player(model).encode(tokens.numpy().astype(np.uint16))
    np.testing.assert_allclose(found.mu, expected.mean.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.sigma, expected.stddev.numpy(), atol=1e-6)
    assert found.mu.std(0).max() > 1e-5, "windows differ"


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_and_shapes_of_weights_are_those_of_the_model(kind: str) -> None:
    for layers in (1, 3):
        model = MusicVAE(replace(build(kind, layers).config, encoder_layers=layers, conductor_layers=layers))
        assert shapes(model.config) == {name: tuple(value.shape) for name, value in model.state_dict().items()}


# --- constraints -----------------------------------------------------------------------------------------------


def rules(config: ModelConfig, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A third of the tokens given, and for each step and stream half of the vocabulary allowed."""
    rng, sizes = np.random.default_rng(0), config.vocab_sizes
    tokens = np.stack([rng.integers(size, size=(n, config.steps)) for size in sizes], axis=-1)
    given = np.where(rng.random(tokens.shape) < 1 / 3, tokens, -1)
    allowed = rng.random((n, config.steps, sum(sizes))) < 0.5
    allowed[..., np.cumsum([0, *sizes[:-1]])] = True
    return given, allowed


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("kind", KINDS)
def test_given_tokens_are_kept_and_only_allowed_ones_written(kind: str, temperature: float) -> None:
    model, n = build(kind).double(), 5
    z, uniforms = drawn(model, n)
    given, allowed = rules(model.config, n)
    free = player(model).decode(z.numpy(), uniforms.numpy(), temperature)
    for kept, possible in ((given, None), (None, allowed), (given, allowed), (None, allowed[:1])):
        tensors = (None if x is None else torch.from_numpy(x) for x in (kept, possible))
        plain = model.decode(z, uniforms, temperature, *tensors).numpy()
        tokens = player(model).decode(z.numpy(), uniforms.numpy(), temperature, kept, possible)
        assert np.array_equal(tokens, plain) and not np.array_equal(tokens, free)
        held = np.zeros(tokens.shape, bool) if kept is None else kept >= 0
        assert np.array_equal(tokens[held], given[held])
        if possible is not None:
            offsets = np.cumsum([0, *model.config.vocab_sizes[:-1]])
            limits = np.broadcast_to(possible, (n, *possible.shape[1:]))
            assert (np.take_along_axis(limits, tokens + offsets, axis=-1) | held).all()


def test_constraints_that_forbid_nothing_change_nothing() -> None:
    model = build("trio")
    z, uniforms = (x.numpy() for x in drawn(model, 4))
    nothing, everything = np.full((4, 12, 3), -1), np.ones((1, 12, 24), bool)
    free = player(model).decode(z, uniforms, 1.0)
    assert np.array_equal(player(model).decode(z, uniforms, 1.0, nothing, everything), free)
    assert np.array_equal(player(model).decode(z, uniforms, 1.0, free), free)


# --- what is refused -------------------------------------------------------------------------------------------


def test_a_decode_that_cannot_be_is_refused_with_the_words_of_the_plain_one() -> None:
    model, uniforms = build("trio"), draw_uniforms(2, 12, 3, seed=0)
    z, given, allowed = torch.zeros(2, 6), torch.zeros(2, 12, 3).long(), torch.ones(2, 12, 24).bool()
    wrong: dict[str, tuple[Any, ...]] = {
        r"z has shape \(2, 5\)": (z[:, 1:], uniforms),
        "missing": (z, None),
        r"of shape \(1, 12, 3\)": (z, uniforms[:1]),
        "temperature is -1": (z, uniforms, -1.0),
        r"given tokens are \S+ \(2, 11, 3\)": (z, uniforms, 1.0, given[:, 1:]),
        "given tokens are .*float32": (z, uniforms, 1.0, given.float()),
        "stream 1 has tokens 0 to 8; the model has 0 to 6": (z, uniforms, 1.0, given + 8),
        r"allowed tokens are \S+ \(2, 12, 23\)": (z, uniforms, 1.0, None, allowed[..., 1:]),
        "a step of stream 2 may have no token": (z, uniforms, 1.0, None, allowed & (torch.arange(24) < 16)),
    }
    for says, arguments in wrong.items():
        if "stream 1" in says:
            arguments[3][..., 0] = 0
        with pytest.raises(ValueError, match=says):
            model.decode(*arguments)
        with pytest.raises(ValueError, match=says):
            player(model).decode(*(x.numpy() if isinstance(x, torch.Tensor) else x for x in arguments))


def test_tokens_that_are_none_are_refused_with_the_words_of_the_plain_model() -> None:
    model = build("trio")
    for tokens, says in (
        (torch.zeros(2, 11, 3).long(), "11, 3"),
        (torch.zeros(2, 12, 3), "float32"),
        (torch.full((2, 12, 3), 9), "stream 0 has tokens 9 to 9; the model has 0 to 8"),
    ):
        for encode, given in ((model.encode, tokens), (player(model).encode, tokens.numpy())):
            with pytest.raises(ValueError, match=says):
                encode(given)  # type: ignore[arg-type]


def test_an_empty_batch_is_no_error() -> None:
    for kind in ("trio", "trio previous", "flat trio"):
        assert player(build(kind)).decode(np.zeros((0, 6)), temperature=0).shape == (0, 12, 3)


# --- models of torch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flat trio", "trio previous", "trio read by bars"])
def test_a_model_that_is_not_on_the_cpu_is_played_by_the_plain_decoder(kind: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build(kind)
    z, uniforms = drawn(model, 20)
    there, here = TorchPlayer(build(kind).to(device)), player_of(model)
    assert isinstance(here, Player)
    tokens = torch.from_numpy(there.decode(z.numpy(), uniforms.numpy(), 1.0))
    near = near_ties(model, z, uniforms, 1.0, tokens).flatten(1).any(1)
    assert (torch.from_numpy(here.decode(z.numpy(), uniforms.numpy())) == tokens).flatten(1).all(1)[~near].all()
    for ours, theirs in zip(here.encode(tokens.numpy()), there.encode(tokens.numpy())):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_composer_of_a_model_in_memory_sounds_as_one_that_was_saved(tmp_path: Any) -> None:
    config = ModelConfig((130,), 32, latent_size=8, encoder_units=12, encoder_layers=1, decoder_units=12)
    run = RunConfig(name="test", representation="melody", model=config, rounds=1)
    composer = Composer(MusicVAE(config).eval(), run, representation("melody"))
    composer.save_pretrained(tmp_path / "run")
    again = load(tmp_path / "run")
    assert [s.to_bytes() for s in again.sample(3, 1.0)] == [s.to_bytes() for s in composer.sample(3, 1.0)]
    weights = again.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in composer.model.state_dict().items())
