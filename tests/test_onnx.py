"""An exported decoder writes the tokens of the plain one in fp32, nearly all of them in int8, and needs no torch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from decoding import KINDS, TEMPERATURES, build, drawn, near_ties

from musicvae.composer import load
from musicvae.exchange import export_onnx_runtime
from musicvae.model.checkpoint import arrays
from musicvae.model.config import RunConfig
from musicvae.model.onnx import export_onnx
from musicvae.model.onnx_decoder import OnnxDecoder
from musicvae.model.player import Player

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: make test installs it")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "melody-2"
    export_onnx_runtime("melody-2", folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_fp32_graphs_write_the_plain_tokens_but_for_near_ties(kind: str, tmp_path: Path) -> None:
    for layers in (1, 3):
        model, folder = build(kind, layers), tmp_path / str(layers)
        export_onnx(Player(model.config, arrays(model)), RunConfig(model=model.config), folder)
        decoder, (z, uniforms) = OnnxDecoder(folder, int8=False), drawn(model, 20)
        for temperature in TEMPERATURES:
            tokens = torch.from_numpy(decoder.decode(z.numpy(), uniforms.numpy(), temperature))
            near = near_ties(model, z, uniforms, temperature, tokens).flatten(1).any(1)
            same = (tokens == model.decode(z, uniforms, temperature)).flatten(1).all(1)
            assert (same | near).all() and same.float().mean() > 0.9


def test_int8_writes_nearly_the_music_of_fp32(exported: Path) -> None:
    composer = load("melody-2")
    z, _ = drawn(composer.model, 64)
    plain = composer.model.decode(z, temperature=0).numpy()
    tokens = OnnxDecoder(exported).decode(z.numpy(), temperature=0)
    by_chance = (plain == np.roll(plain, 1, axis=0)).mean()
    assert (tokens == plain).mean() > 0.85 > by_chance + 0.2


def test_int8_weights_take_a_quarter_of_the_room(exported: Path) -> None:
    whole, short = (sum(p.stat().st_size for p in exported.glob(kind)) for kind in ("*[!8].onnx", "*.int8.onnx"))
    tables = load("melody-2").player.decoders[0].tables[0].size * 4  # they stay in fp32: no product reads them
    assert short - tables < 0.3 * (whole - tables)


def test_decoding_imports_no_torch(exported: Path) -> None:
    code = f"""
import sys, numpy as np
from musicvae.model.onnx_decoder import OnnxDecoder
decoder = OnnxDecoder({str(exported)!r})
rng = np.random.default_rng(1)
tokens = decoder.decode(rng.standard_normal((3, decoder.latent_size)), decoder.uniforms(3, rng), temperature=0.5)
assert tokens.shape == (3, 32, 1) and 0 <= tokens.min() and tokens.max() < 130
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_decoded_is_refused(exported: Path, tmp_path: Path) -> None:
    decoder = OnnxDecoder(exported)
    z, uniforms = np.zeros((2, decoder.latent_size)), np.zeros((2, 32, 1))
    for arguments, says in (
        ((z[:, 1:], uniforms), f"(2, {decoder.latent_size - 1})"),
        ((z, uniforms[:1]), "(1, 32, 1)"),
        ((z,), "missing"),
        ((z, uniforms, -1.0), "temperature is -1"),
    ):
        with pytest.raises(ValueError) as error:
            decoder.decode(*arguments)
        assert says in str(error.value)
    assert decoder.decode(z[:0], temperature=0).shape == (0, 32, 1)
    with pytest.raises(ValueError, match="musicvae export MODEL --onnx"):
        OnnxDecoder(tmp_path)


def test_an_export_replaces_nothing_unasked(exported: Path) -> None:
    with pytest.raises(ValueError, match="--overwrite"):
        export_onnx_runtime("melody-2", exported)


def test_without_the_packages_the_error_names_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "onnxruntime.quantization", raising=False)
    with pytest.raises(ValueError, match="pip install"):
        export_onnx_runtime("melody-2", tmp_path / "out")
    assert not (tmp_path / "out").exists()
