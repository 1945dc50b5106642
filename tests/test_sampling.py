"""The fast decoder writes the tokens of the plain one, and follows the weights of its model.

In double the two agree to some 1e-15, so every token must be the same. In fp32 their sums are rounded in another
order: there, every token must be the one that the plain decoder's own probabilities give after the tokens before it,
unless its uniform number lies within NEAR of the border between two tokens; how often that happens is bounded too.
"""

from typing import Any

import pytest
import torch
from decoding import KINDS, TEMPERATURES, build, drawn, near_ties
from musicvae.model.sampling import FastDecoder, Workspace, prepare
from torch import nn
from torch.profiler import ProfilerActivity, profile

from musicvae.composer import load
from musicvae.model.vae import MusicVAE, draw_uniforms

torch.set_num_threads(1)  # models this small are slower on two

# --- the same tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_in_double_all_tokens_are_the_plain_decoders(kind: str, layers: int, temperature: float) -> None:
    model = build(kind, layers).double()
    for n in (1, 7):
        z, uniforms = drawn(model, n)
        tokens = FastDecoder(model).decode(z, uniforms, temperature)
        assert tokens.equal(model.decode(z, uniforms, temperature))
    assert len(tokens.unique()) > (3 if temperature else 1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("kind", KINDS)
def test_in_single_precision_too_but_for_near_ties(kind: str, temperature: float) -> None:
    model = build(kind, steps=48)
    z, uniforms = drawn(model, 100)
    tokens = FastDecoder(model).decode(z, uniforms, temperature)
    near = near_ties(model, z, uniforms, temperature, tokens).flatten(1).any(1)  # (B)
    same = (tokens == model.decode(z, uniforms, temperature)).flatten(1).all(1)
    assert (same | near).all(), "a window without a near tie differs"
    assert same.float().mean() > 0.98


@pytest.mark.parametrize("name", ["melody-2", "drums-2"])
def test_the_models_in_the_box_write_the_same_but_for_near_ties(name: str) -> None:
    composer = load(name)
    z, uniforms = drawn(composer.model, 24)
    for temperature in TEMPERATURES:
        tokens = composer.decoder.decode(z, uniforms, temperature)
        near = near_ties(composer.model, z, uniforms, temperature, tokens).flatten(1).any(1)
        same = (tokens == composer.model.decode(z, uniforms, temperature)).flatten(1).all(1)
        assert (same | near).all() and same.float().mean() > 0.95


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("kind", KINDS)
def test_a_cuda_device_writes_the_same_but_for_near_ties(kind: str) -> None:
    model = build(kind)
    z, uniforms = drawn(model, 50)
    tokens = FastDecoder(build(kind).to("cuda")).decode(z.to("cuda"), uniforms, 1.0)
    assert tokens.is_cuda
    near = near_ties(model, z, uniforms, 1.0, tokens.cpu()).flatten(1).any(1)
    assert ((tokens.cpu() == FastDecoder(model).decode(z, uniforms, 1.0)).flatten(1).all(1) | near).all()


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_do_not_depend_on_the_batch(kind: str) -> None:
    decoder = FastDecoder(build(kind).double())
    z, uniforms = drawn(decoder.model, 7)
    together = decoder.decode(z, uniforms)
    for n in (1, 3):
        assert decoder.decode(z[:n], uniforms[:n]).equal(together[:n])


def test_an_empty_batch_is_no_error_and_the_tokens_may_be_changed() -> None:
    decoder = FastDecoder(build("trio previous"))
    assert decoder.decode(torch.zeros(0, 6), temperature=0).shape == (0, 12, 3)
    tokens = decoder.decode(torch.zeros(2, 6), temperature=0)
    tokens += 1
    assert not tokens.is_inference()


def test_a_decode_that_cannot_be_is_refused_with_the_words_of_the_plain_one() -> None:
    decoder, uniforms = FastDecoder(build("trio")), draw_uniforms(2, 12, 3, seed=0)
    wrong: list[tuple[Any, ...]] = [(torch.zeros(2, 5), uniforms), (torch.zeros(2, 6), None)]
    wrong += [(torch.zeros(2, 6), uniforms[:1]), (torch.zeros(2, 6), uniforms, -1.0)]
    for arguments in wrong:
        messages = []
        for decode in (decoder.decode, decoder.model.decode):
            with pytest.raises(ValueError) as error:
                decode(*arguments)
            messages.append(str(error.value))
        assert messages[0] == messages[1]


# --- weights that change ---------------------------------------------------------------------------------------


def learn(model: MusicVAE) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    z, _ = drawn(model, 3)
    sum(logits.square().sum() for logits in model.predict_steps(torch.zeros(3, 12, 1).long(), z)).backward()  # type: ignore[union-attr]
    optimizer.step()


def copy_others(model: MusicVAE) -> None:
    model.load_state_dict({name: -value for name, value in model.state_dict().items()})


def assign_others(model: MusicVAE) -> None:
    model.load_state_dict({name: -value for name, value in model.state_dict().items()}, assign=True)


def replace_data(model: MusicVAE) -> None:
    for parameter in model.parameters():
        parameter.data = -parameter.data


@pytest.mark.parametrize("change", [learn, copy_others, assign_others, replace_data])
def test_the_decoder_follows_weights_that_change(change: Any) -> None:
    model = build("flat").double()
    decoder, (z, uniforms) = FastDecoder(model), drawn(model, 5)
    for _ in range(2):
        before = decoder.decode(z, uniforms)
        change(model)
        assert decoder.decode(z, uniforms).equal(model.decode(z, uniforms))
        assert not decoder.decode(z, uniforms).equal(before)


def test_new_weights_that_lie_where_the_old_ones_lay_are_not_taken_for_them() -> None:
    model = build("flat").double()
    decoder, (z, uniforms) = FastDecoder(model), drawn(model, 5)
    for _ in range(5):
        decoder.decode(z, uniforms)
        for _ in range(2):  # the first sets memory free, and the second may get it
            name = "decoders.0.lstm.weight_hh_l0"
            model.load_state_dict({name: -1.1 * model.state_dict()[name]}, strict=False, assign=True)
        assert decoder.decode(z, uniforms).equal(model.decode(z, uniforms))


def test_tables_are_prepared_once_while_the_weights_stay() -> None:
    decoder = FastDecoder(build("trio"))
    tables = decoder.tables()
    assert decoder.tables() is tables
    decoder.model.double()
    assert decoder.tables() is not tables and decoder.tables()[0].condition.dtype == torch.double


def test_weights_made_where_torch_counts_no_changes_are_never_taken_as_unchanged() -> None:
    with torch.inference_mode():
        model = build("flat")
        decoder, (z, uniforms) = FastDecoder(model), drawn(model, 5)
        before = decoder.decode(z, uniforms)
        for parameter in model.parameters():
            parameter.neg_()
        assert not decoder.decode(z, uniforms).equal(before)


# --- the step --------------------------------------------------------------------------------------------------


def test_a_step_allocates_nothing() -> None:
    tables = prepare(build("flat trio", layers=3).decoders[0])  # type: ignore[arg-type]
    base, tokens = torch.randn(1, 5, 44), torch.zeros(3, 5, dtype=torch.long)
    work = Workspace(tables, base)
    work.begin(torch.randn(3, 5, 11), torch.randn(3, 5, 11))
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work.step(base[0], tokens)
    assert sum(abs(event.self_cpu_memory_usage) for event in seen.events() or []) == 0


def test_the_tables_are_no_second_model_in_memory() -> None:
    decoder: Any = build("hierarchical", layers=3).decoders[0]
    tables = prepare(decoder)
    ours = sum(t.numel() for t in (*tables.tokens, *tables.weights, tables.condition, tables.to_logits))
    weights = sum(p.numel() for module in (decoder.lstm, decoder.to_logits) for p in module.parameters() if p.dim() > 1)
    assert ours == weights + 4 * 11, "each weight once, and the row of silence"


def test_the_composer_writes_with_it() -> None:
    composer = load("melody-2")
    assert isinstance(composer.decoder, FastDecoder) and composer.decoder is composer.decoder
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    try:
        composer.sample(2, rounds=0)  # a round would call the encoder's
    finally:
        handle.remove()
    assert "LSTM" not in calls
