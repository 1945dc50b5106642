"""Decoding: the player in NumPy beside nn.LSTM called a step at a time, and beside what this machine allows.

    python benchmarks/sampling.py                                          # speed
    python benchmarks/sampling.py --before ../old                          # also the decoder of another checkout
    python benchmarks/sampling.py --accuracy DATASET --boxed melody-2      # what int8 costs on the test split

The reference is our own plain decoder, `MusicVAE.decode`, which calls nn.LSTM at every step. A hierarchical model has
its bars written in a row, 256 steps, as the original does (a bar hears the last token of the one before), or side by
side, 16 steps for all bars, as is possible where bars start from silence.

Weights are random, but for the sizes: the speed does not depend on them. The bound of a way to decode counts, for each
matrix product, the FLOPs (multiply and add count 2) at the rate that this machine reaches on large matrices, or the
bytes of its weights at the bandwidth with which it reads as many bytes as the decoders have, whichever takes longer.
Gates, softmax, the draw and Python are left out, so a share of 1 cannot be reached. Each figure is the least of several
repetitions; ratios and shares are of processor time, which neighbours disturb less than the clock.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from training import Product

from musicvae.composer import load
from musicvae.evaluation.estimates import estimate_means
from musicvae.evaluation.reconstruction import draw_windows
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.threads import openblas
from musicvae.model.torch_player import player_of
from musicvae.model.trainer import new_model
from musicvae.model.vae import MusicVAE, draw_prior, draw_uniforms
from musicvae.music.dataset import Dataset
from musicvae.presets import preset

HAS_ONNX = find_spec("onnx") is not None and find_spec("onnxruntime") is not None
LOSS = 0.005  # of accuracy, that int8 may cost
NAMES = {True: "bars in a row", False: "bars side by side"}
STEPWISE = "a step at a time"  # of flat models


@dataclass(frozen=True)
class Options:
    """What is measured."""

    presets: tuple[str, ...] = ("melody-16",)
    sizes: tuple[str, ...] = ("small", "paper")
    windows: tuple[int, ...] = (1, 16)
    threads: int = 1
    seconds: float = 2.0  # of each figure at least, and two repetitions
    before: Path | None = None  # a checkout from before the player, whose fast decoder in torch is measured too
    accuracy: Path | None = None  # a data set: measure what int8 costs instead
    boxed: str = "melody-2"  # of this model in the box, or run
    limit: int = 4096  # windows, drawn; 0 takes all


class Time(NamedTuple):
    """The least of several repetitions, in seconds."""

    wall: float
    processor: float


def least(run: Callable[[], Any], seconds: float, repetitions: int = 2) -> Time:
    """After one run to warm up."""
    run()
    found, began = [], time.perf_counter()
    while len(found) < repetitions or time.perf_counter() - began < seconds:
        wall, processor = time.perf_counter(), time.process_time()
        run()
        found.append((time.perf_counter() - wall, time.process_time() - processor))
    return Time(*(min(column) for column in zip(*found)))


# --- what the machine allows -----------------------------------------------------------------------------------


def products(config: ModelConfig, windows: int, in_a_row: bool) -> list[Product]:
    """The matrix products of a decode, with bars in a row or side by side; a one-hot token costs none: it is a row."""
    found: list[Product] = []

    def lstm(name: str, rows: int, steps: int, inputs: list[int], hidden: int) -> None:
        for layer, inner in enumerate(inputs):
            found.append(Product(f"{name} {layer}", rows, inner, 4 * hidden, steps))

    bars, steps, rows = config.bars, config.steps // config.bars, windows * config.bars
    condition, groups = config.latent_size, [sum(config.vocab_sizes)]
    if bars > 1:
        condition, groups = config.condition_size, list(config.vocab_sizes)
        units, layers = config.conductor_units, config.conductor_layers
        found.append(Product("conductor start", windows, config.latent_size, 2 * layers * units, 1))
        lstm("conductor state", windows, bars, [units] * layers, units)
        lstm("conductor inputs", rows, 1, [units] * (layers - 1), units)
        found.append(Product("condition", rows, units, condition, 1))
    written, count = (windows, config.steps) if in_a_row else (rows, steps)  # rows of a step, and steps
    for size in groups:
        units, layers = config.decoder_units, config.decoder_layers
        found.append(Product("start", rows, condition, 2 * layers * units, 1))
        found.append(Product("condition part", rows, condition, 4 * units, 1))
        lstm("decoder", written, count, [units] + [2 * units] * (layers - 1), units)
        found.append(Product("softmax", written, units, size, count))
    return found


def size_of(product: Product) -> int:
    """Bytes of its weights, read at each of its calls."""
    return 4 * product.inner * product.columns * product.count


def rate() -> float:
    """FLOP/s of a large matrix product in fp32."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    out = torch.empty(1024, 1024)
    return 2 * 1024**3 / least(lambda: torch.mm(a, b, out=out), 1.0).processor


def bandwidth(size: int) -> float:
    """Bytes a second of reading so many bytes of weights again and again: a vector times matrices of 4 MB."""
    matrices, vector, out = torch.randn(max(size // 2**22, 1), 1024, 1024), torch.randn(1, 1024), torch.empty(1, 1024)

    def read() -> None:
        for matrix in matrices:
            torch.mm(vector, matrix, out=out)

    return matrices.numel() * 4 / least(read, 0.5).processor


def bound(found: list[Product], flop_rate: float, byte_rate: float) -> float:
    """Seconds, if every product ran at the rate or the bandwidth."""
    return sum(max(product.flops / flop_rate, size_of(product) / byte_rate) for product in found)


# --- what is measured ------------------------------------------------------------------------------------------


def ways(model: MusicVAE, windows: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """Every way to decode so many windows, by name; the first is the reference."""
    sizes = model.config
    z, uniforms = (
        draw_prior(windows, sizes.latent_size, 0),
        draw_uniforms(windows, sizes.steps, len(sizes.vocab_sizes), 0),
    )
    found: dict[str, Callable[[], Any]] = {}
    for way in (True, False) if sizes.bars > 1 else (False,):
        alike = MusicVAE(replace(sizes, bar_start="previous" if way else "silent")).eval()
        alike.load_state_dict(model.state_dict(), assign=True)
        name = NAMES[way] if sizes.bars > 1 else STEPWISE
        found[f"nn.LSTM, {name}"] = partial(alike.decode, z, uniforms, 0.5)
        found[f"player, {name}"] = partial(player_of(alike).decode, z.numpy(), uniforms.numpy(), 0.5)
        if HAS_ONNX:
            for precision in ("fp32", "int8"):
                decoder = onnx_decoder(alike, folder / name, precision == "int8")
                found[f"ONNX {precision}, {name}"] = partial(decoder.decode, z.numpy(), uniforms.numpy(), 0.5)
    return found


def onnx_decoder(model: MusicVAE, folder: Path, int8: bool) -> Any:
    from musicvae.model.onnx import export_onnx
    from musicvae.model.onnx_decoder import OnnxDecoder

    if not folder.exists():
        export_onnx(player_of(model), RunConfig(model=model.config), folder)
    return OnnxDecoder(folder, int8=int8, threads=torch.get_num_threads())


BEFORE = """
import sys, time, torch
sys.path.insert(0, {checkout!r})
from musicvae.model.sampling import FastDecoder
from musicvae.model.config import ModelConfig
from musicvae.model.vae import MusicVAE, draw_prior, draw_uniforms
torch.set_num_threads({threads})
model = MusicVAE(ModelConfig(**{sizes!r})).eval()
z, numbers = draw_prior({windows}, model.config.latent_size, 0), draw_uniforms({windows}, model.config.steps, 1, 0)
decoder, found, began = FastDecoder(model), [], time.perf_counter()
decoder.decode(z, numbers, 0.5)
while len(found) < 2 or time.perf_counter() - began < {seconds}:
    wall, processor = time.perf_counter(), time.process_time()
    decoder.decode(z, numbers, 0.5)
    found.append((time.perf_counter() - wall, time.process_time() - processor))
print(*(min(column) for column in zip(*found)))
"""


def before(config: ModelConfig, windows: int, options: Options) -> Time:
    """The fast decoder of another checkout, bars side by side, in a process of its own."""
    values = {"windows": windows, "threads": options.threads, "seconds": options.seconds}
    values |= {"checkout": str(options.before), "sizes": vars(config)}
    code = BEFORE.format(**values)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return Time(*map(float, done.stdout.split()))


def measure(name: str, size: str, options: Options) -> None:
    config = preset(name).model(size)
    model = new_model(config, 0, None).eval()
    weights = 4 * sum(p.numel() for p in model.decoders.parameters())
    flop_rate, byte_rate = rate(), bandwidth(weights)
    print(f"\n{name}, {size}: decoder {config.decoder_layers} x {config.decoder_units}, "
          f"{weights / 1e6:.1f} MB of weights; this machine, {options.threads} thread(s): "
          f"{flop_rate / 1e9:.1f} GFLOP/s, {byte_rate / 1e9:.1f} GB/s at that size")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for windows in options.windows:
            reference, possible = None, {}
            print(f"\n{windows} window(s)")
            for way in (True, False) if config.bars > 1 else (False,):
                found = products(config, windows, in_a_row=way)
                possible[way] = bound(found, flop_rate, byte_rate)
                flops, read = (sum(map(count, found)) / 1e9 for count in (lambda p: p.flops, size_of))
                print(f"{NAMES[way] if config.bars > 1 else STEPWISE}: {flops:.3f} GFLOP, "
                      f"{read:.3f} GB of weights read, bound {1e3 * possible[way]:.1f} ms")  # fmt: skip
            print(f"{'':28} {'wall ms':>10} {'processor ms':>13} {'ratio':>7} {'share of bound':>15}")
            if options.before:
                taken = before(config, windows, options)
                print(f"{'before, bars side by side':28} {1e3 * taken.wall:10.1f} {1e3 * taken.processor:13.1f}")
            for name, run in ways(model, windows, Path(folder)).items():
                taken = least(run, options.seconds)
                reference = reference or taken.processor
                share = f"{possible[NAMES[True] in name] / taken.processor:15.2f}" if "int8" not in name else ""
                print(f"{name:28} {1e3 * taken.wall:10.1f} {1e3 * taken.processor:13.1f} "
                      f"{reference / taken.processor:7.1f} {share}", flush=True)  # fmt: skip


# --- what int8 costs -------------------------------------------------------------------------------------------


def measure_accuracy(options: Options) -> None:
    """Share of the steps of test windows that come back through z, fp32 beside int8 from the same z and numbers.

    Accepted is int8 if its loss of sampled accuracy is below LOSS, also at the end of the 95 % interval (over groups).
    """
    from musicvae.model.onnx import export_onnx
    from musicvae.model.onnx_decoder import OnnxDecoder

    composer, dataset = load(options.boxed), Dataset(options.accuracy)
    chosen = draw_windows(len(dataset.tokens("test")), options.limit or None, seed=0)
    tokens = np.asarray(dataset.tokens("test")[chosen], np.int64)
    groups = dataset.rows("test", ["group"])["group"].to_numpy(zero_copy_only=False)[chosen]
    posterior, shape = composer.encode_tokens(tokens), tokens.shape
    uniforms = draw_uniforms(*shape, seed=0)
    noise = draw_prior(shape[0], composer.latent_size, 0).numpy()
    with tempfile.TemporaryDirectory() as name:
        export_onnx(composer.player, composer.config, Path(name))
        int8 = OnnxDecoder(name, threads=options.threads)
    print(f"{options.boxed}: {len(tokens):,} test windows of {len(set(groups)):,} groups; accuracy (95 % interval)")
    for way, z, temperature in (
        ("sampled, z drawn", posterior.mu + posterior.sigma * noise, 1.0),
        ("most likely, z = mu", posterior.mu, 0.0),
    ):
        fp32 = composer.player.decode(z, uniforms.numpy(), temperature)
        right = [(written == tokens).mean((1, 2)) for written in (fp32, int8.decode(z, uniforms.numpy(), temperature))]
        found = estimate_means(np.stack([*right, right[1] - right[0]], axis=1), groups)
        cells = [f"{e.value:.4f} ({e.low:.4f} to {e.high:.4f})" for e in found]
        verdict = f"; {'accepted' if found[2].low > -LOSS else 'refused'} at {LOSS}" if temperature else ""
        print(f"{way:20} fp32 {cells[0]}, int8 {cells[1]}, int8 - fp32 {cells[2]}{verdict}", flush=True)


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    if blas := openblas():
        blas[1](options.threads)
    if options.accuracy:
        measure_accuracy(options)
        return
    for name in options.presets:
        for size in options.sizes:
            measure(name, size, options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
