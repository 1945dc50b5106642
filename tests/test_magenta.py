"""The original's models compute here what they computed there, and go back to the bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_writer import TINY, Tensors, logits, posterior, random_tensors, write_js
from torch.nn import functional as F

from musicvae.model.bundle import Bundle
from musicvae.model.config import ModelConfig
from musicvae.model.magenta import (
    Imported,
    drum_rows,
    export_weights,
    hears_bits,
    import_weights,
    spread_bits,
)
from musicvae.model.magenta_names import recognise
from musicvae.model.objective import kl_from_prior
from musicvae.model.tfjs import Folder, write_folder
from musicvae.model.vae import MusicVAE

torch.set_num_threads(1)  # models this small are slower on two

FIXTURES = {"cat-mel_2bar_small": (32, 1), "cat-drums_2bar_small": (32, 1), "hierdec-mel_16bar": (256, 16)}


class Memory:
    """Variables that lie in no file."""

    def __init__(self, tensors: Tensors):
        self.tensors = tensors
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]


def imported(tensors: Tensors, steps: int = 32, bars: int = 2) -> Imported:
    original = recognise({name: tensor.shape for name, tensor in tensors.items()})
    return import_weights(Memory(tensors), original, steps, 1 if original.flat else bars)


def one_hot(tokens: np.ndarray, vocab_sizes: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([np.eye(v)[tokens[..., i]] for i, v in enumerate(vocab_sizes)], axis=-1)


def hit_bits(tokens: np.ndarray) -> np.ndarray:
    """Drum tokens (...) -> what the original's encoder hears of them (..., 10)."""
    bits = tokens[..., None] >> np.arange(9) & 1
    return np.concatenate([bits, (tokens == 0)[..., None]], axis=-1)


# --- the same numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FIXTURES)
def test_the_original_and_we_agree(originals: Path, family: str):
    bundle = Bundle(originals / family / "model.ckpt")
    original = recognise(bundle.shapes)
    model, encodes = import_weights(bundle, original, *FIXTURES[family])
    with np.load(originals / family / "expected.npz") as file:
        expected = {name: file[name] for name in ("x", "x_in", "z", "mu", "sigma", "kl", "logits", "r_loss", "decode")}
    tokens, z = torch.from_numpy(expected["x"].argmax(-1))[..., None], torch.from_numpy(expected["z"])
    with torch.no_grad():
        q, (found,) = model.encode(tokens), model.predict_steps(tokens, z)
    loss = F.cross_entropy(found.flatten(0, 1), tokens.flatten(), reduction="none").view(len(z), -1).sum(-1)
    assert encodes
    for name, value in {"mu": q.mean, "sigma": q.stddev, "kl": kl_from_prior(q), "logits": found}.items():
        np.testing.assert_allclose(value.numpy(), expected[name], atol=1e-5, rtol=0, err_msg=name)
    np.testing.assert_allclose(loss.numpy(), expected["r_loss"], rtol=1e-5)
    assert np.array_equal(model.decode(z, temperature=0)[..., 0].numpy(), expected["decode"].argmax(-1))
    if original.encoder_inputs == 10:
        assert np.array_equal(hit_bits(tokens[..., 0].numpy()), expected["x_in"])


def test_all_tokens_of_the_real_model_are_those_of_magenta_js(originals: Path):
    folder = Folder(originals / "mel_2bar_small_tfjs")
    model, encodes = import_weights(folder, recognise(folder.shapes), 32, 1)
    with np.load(originals / "mel_2bar_small_tfjs" / "expected.npz") as expected:
        written = model.decode(torch.from_numpy(expected["z"]), temperature=0)[..., 0].numpy()
        assert written.size == 512 and np.array_equal(written, expected["tokens"])
    assert not encodes


@pytest.mark.parametrize("family", TINY)
def test_every_family_computes_what_its_definition_says(family: str):
    sizes, tensors = TINY[family], random_tensors(TINY[family])
    model, encodes = imported(tensors)
    vocab, rng = model.config.vocab_sizes, np.random.default_rng(1)
    tokens = np.stack([rng.integers(0, v, (3, 32)) for v in vocab], axis=-1)
    tokens[0, :5] = 0
    z = rng.standard_normal((3, 4)).astype(np.float32)
    x = one_hot(tokens, vocab)
    mu, sigma = posterior(tensors, hit_bits(tokens[..., 0]) if sizes.inputs == 10 else x)
    with torch.no_grad():
        q = model.encode(torch.from_numpy(tokens))
        found = torch.cat(model.predict_steps(torch.from_numpy(tokens), torch.from_numpy(z)), dim=-1)
    assert encodes and model.config.bars == (2 if sizes.conductor[0] else 1)
    np.testing.assert_allclose(q.mean.numpy(), mu, atol=1e-5)
    np.testing.assert_allclose(q.stddev.numpy(), sigma, atol=1e-5)
    np.testing.assert_allclose(found.numpy(), logits(tensors, x, z, model.config.bars), atol=2e-5)


@pytest.mark.parametrize("bits", [0, 8, 16])
def test_a_magenta_js_folder_gives_the_same_tensors_over_any_shards(tmp_path: Path, bits: int):
    tensors = random_tensors(TINY["hierdec-trio_16bar"])
    found = write_js(tmp_path / "js", tensors, shard_size=10_007, bits=bits)
    folder = Folder(tmp_path / "js")
    assert len(list((tmp_path / "js").iterdir())) > 5 and folder.config is None and folder.step is None
    assert all(folder.read(name).tobytes() == value.tobytes() for name, value in found.items())
    widest = max(np.abs(tensors[name] - folder.read(name)).max() for name in tensors)
    assert widest <= (0.02 if bits == 8 else 1e-4 if bits else 0)


# --- back again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", TINY)
def test_weights_go_back_to_the_bit(family: str):
    tensors = random_tensors(TINY[family])
    for tensor in tensors.values():
        tensor.flat[:2] = -0.0, 1e-30  # what a sum with something else would lose
    exported = dict(export_weights(imported(tensors).model, TINY[family].inputs))
    assert list(exported) == sorted(tensors)
    for name, tensor in tensors.items():
        assert exported[name].tobytes() == tensor.tobytes(), name


def test_what_was_trained_here_is_the_same_model_there(tmp_path: Path):
    """Our two biases become their one, whose forget gate lacks 1; read again, the numbers are the same."""
    torch.manual_seed(0)
    ours = MusicVAE(ModelConfig((130,), 32, latent_size=4, encoder_units=6, encoder_layers=1, decoder_units=5)).eval()
    write_folder(tmp_path / "js", {"type": "MusicVAE"}, export_weights(ours, 130))
    again = import_weights(folder := Folder(tmp_path / "js"), recognise(folder.shapes), 32, 1).model
    tokens, z = torch.randint(0, 130, (3, 32, 1)), torch.randn(3, 4)
    with torch.no_grad():
        for a, b in zip(ours.encode(tokens).mean, again.encode(tokens).mean):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
        a, b = (model.predict_steps(tokens, z)[0] for model in (ours, again))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_ten_rows_hear_every_set_of_drums_as_the_sum_of_its_bits():
    rows = np.random.default_rng(0).standard_normal((10, 7), np.float32)
    tokens = np.arange(512)
    np.testing.assert_allclose(spread_bits(rows), hit_bits(tokens) @ rows, atol=1e-5)
    assert np.array_equal(spread_bits(rows)[drum_rows()], rows)


def test_an_encoder_that_hears_bits_is_told_from_one_that_does_not():
    model = imported(random_tensors(TINY["cat-drums_2bar_small"])).model
    assert hears_bits(model)
    with torch.no_grad():
        model.encoder.weight_ih_l0[0, 3] += 0.01  # kick and snare together is now more than kick and snare
    assert not hears_bits(model)
    assert not hears_bits(imported(random_tensors(TINY["cat-mel_2bar_small"])).model)


# --- models that are none ------------------------------------------------------------------------------------------


def test_a_decoder_without_its_encoder_loads_and_decodes():
    whole = random_tensors(TINY["cat-mel_2bar_small"])
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    written = imported(whole).model.decode(z, temperature=0)
    decoder = {name: value for name, value in whole.items() if name.startswith("decoder/")}
    heads = {name: value for name, value in whole.items() if not name.startswith("encoder/cell_")}
    zeros = {name: value * (0 if name.startswith("encoder/cell_") else 1) for name, value in whole.items()}
    for tensors, units in ((decoder, 5), (heads, 6), (zeros, 6)):
        model, encodes = imported(tensors)
        assert not encodes and model.config.encoder_units == units
        assert model.decode(z, temperature=0).equal(written)


def test_the_optimizer_the_counters_and_the_copies_of_cudnn_are_left_alone():
    tensors = random_tensors(TINY["hierdec-mel_16bar"])
    more = {f"{name}/{slot}": value for name, value in tensors.items() for slot in ("Adam", "Adam_1")}
    more |= {name: np.zeros(()) for name in ("beta1_power", "beta2_power", "global_step", "anything/else")}
    more |= {"encoder/cudnn_lstm/opaque_kernel": np.zeros(9), "core_decoder/decoder/opaque_kernel": np.zeros(9)}
    model, _ = imported(tensors | more)
    state = imported(tensors).model.state_dict()
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("family", ["cat-mel_2bar_small", "hierdec-trio_16bar"])
def test_every_variable_that_is_missing_is_named(family: str):
    tensors = random_tensors(TINY[family])
    for name in tensors:
        with pytest.raises(ValueError) as error:
            imported({other: value for other, value in tensors.items() if other != name})
        assert "lacks" in str(error.value) and name in str(error.value)


@pytest.mark.parametrize("family", ["cat-drums_2bar_big", "flat-trio_16bar"])
def test_every_shape_that_does_not_fit_is_refused(family: str):
    tensors = random_tensors(TINY[family])
    for name, value in tensors.items():
        for wrong in (np.concatenate([value, value]), value[:-1], value.reshape(-1, 1), value.reshape(-1)[:0]):
            with pytest.raises(ValueError, match=r"shape|lacks|tokens a step|must be an integer"):
                imported(tensors | {name: wrong})


MEL, TRIO = TINY["cat-mel_2bar_small"], TINY["hierdec-trio_16bar"]


def renamed(old: str, new: str) -> Tensors:
    return {name.replace(old, new): tensor for name, tensor in random_tensors(TRIO).items()}


NOT_SUPPORTED = {
    "NADE": (random_tensors(MEL) | {"decoder/nade/w_enc": np.zeros((9, 1, 4))}, "NADE"),
    "GrooVAE": (random_tensors(MEL._replace(inputs=27, outputs=(27,))), "GrooVAE"),
    "hierarchical encoder": (renamed("cell_0/bidi", "hierarchical_level_0/cell_0/bidi"), "hierarchical encoder"),
    "controls": (random_tensors(MEL) | {"control_preprocessing/cell_0/kernel": np.zeros(3)}, "chords"),
    "a decoder for each stream": (renamed("core_decoder/core", "core"), "a decoder for each stream"),
    "chords": (
        random_tensors(MEL) | {"decoder/multi_rnn_cell/cell_0/lstm_cell/kernel": np.zeros((90 + 4 + 12 + 5, 20))},
        "12 more inputs (chords, a key)",
    ),
    "another range": (random_tensors(MEL._replace(inputs=50, outputs=(50,))), "none of melody, drums or trio"),
    "drums that hear 11 bits": (random_tensors(MEL._replace(inputs=11, outputs=(512,))), "hears 11 inputs"),
    "something else": ({"bert/embeddings": np.zeros((3, 4))}, "no model of MusicVAE"),
    "nothing": ({}, "no model of MusicVAE"),
    "an unknown part": (random_tensors(MEL) | {"encoder/attention/kernel": np.zeros(3)}, "encoder/attention/kernel"),
    "10^9 layers": (random_tensors(MEL) | {"encoder/cell_999999999/x": np.zeros(3)}, "more than 16 layers"),
    "not finite": (random_tensors(MEL) | {"encoder/mu/bias": np.full(4, np.nan, np.float32)}, "encoder/mu/bias"),
}


@pytest.mark.parametrize(("tensors", "says"), NOT_SUPPORTED.values(), ids=NOT_SUPPORTED.keys())
def test_what_cannot_be_imported_is_recognised(tensors: Tensors, says: str):
    with pytest.raises(ValueError) as error:
        imported(tensors)
    assert says in str(error.value)
