"""Training speed on this machine, beside what its matrix multiplication allows for the same FLOPs.

    python benchmarks/training.py --threads 2

Windows are random tokens: the speed does not depend on what is in them. FLOPs of one window (multiply and add count 2):

    LSTM layer of H units over n inputs     8 H (n + H) a step and direction
    dense layer from n to m                 2 n m

summed over the encoder, the conductor and the decoders, times 3: the backward pass counts twice the forward. Gates,
softmax, loss and Adam are left out. The peak is that of large products in the faster precision of this machine,
whatever the training takes, so that a slower choice looks slower. "own shapes" is how many windows a second the
products of the model itself allow; our own recurrence (`musicvae/model/recurrence.py`) saves some of them. The last
column is the speed against the same step with nn.LSTM in all places and the same precision.
"""

import time
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import tyro

from musicvae.model.config import ModelConfig
from musicvae.model.feed import Feed
from musicvae.model.objective import TrainingConfig
from musicvae.model.precision import denormals_flushed
from musicvae.model.stages import Windows
from musicvae.model.trainer import Trainer, new_model
from musicvae.model.trial import chosen_precision
from musicvae.presets import preset


@dataclass(frozen=True)
class Options:
    """What is measured; several models one after another."""

    models: tuple[str, ...] = ("melody-2", "melody-16")
    batch: int = 256
    threads: int = 1
    seconds: float = 10.0  # a model
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    size: Literal["small", "medium", "paper"] = "small"
    latent: int | None = None  # these override the widths of the models
    encoder: int | None = None
    decoder: int | None = None
    encoder_layers: int | None = None


@dataclass(frozen=True)
class Product:
    """One matrix multiplication, (rows, inner) x (inner, columns), done `count` times in a forward pass."""

    name: str
    rows: int
    inner: int
    columns: int
    count: int

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns * self.count


def products(config: ModelConfig, batch: int) -> list[Product]:
    """Those of a forward pass: the inputs of a layer for all steps at once, its state step by step."""
    found: list[Product] = []

    def lstm(name: str, rows: int, steps: int, inputs: int, hidden: int, layers: int, directions: int = 1) -> None:
        for layer in range(layers):
            inner = inputs if layer == 0 else hidden * directions
            found.append(Product(f"{name} {layer} inputs", rows * steps, inner, 4 * hidden, directions))
            found.append(Product(f"{name} {layer} state", rows, hidden, 4 * hidden, directions * steps))

    vocab, bars, steps = sum(config.vocab_sizes), config.bars, config.steps // config.bars
    parts, summary = config.encoder_bars, 2 * config.encoder_units
    lstm("encoder", batch * parts, config.steps // parts, vocab, summary // 2, config.encoder_layers, directions=2)
    if parts > 1:
        found.append(Product("summary", batch * parts, summary, config.condition_size, 1))
        summary = 2 * config.conductor_units
        lstm("reader", batch, parts, config.condition_size, config.conductor_units, 1, directions=2)
    found.append(Product("mu and sigma", batch, summary, config.latent_size, 2))
    groups, condition = [vocab], config.latent_size
    if bars > 1:
        groups, condition, units, layers = (
            list(config.vocab_sizes),
            config.condition_size,
            config.conductor_units,
            config.conductor_layers,
        )
        found.append(Product("conductor start", batch, config.latent_size, 2 * layers * units, 1))
        lstm("conductor", batch, bars, 1, units, layers)
        found.append(Product("condition", batch * bars, units, condition, 1))
        if config.linear:
            found.append(Product("linear", batch, bars * condition, config.latent_size, 2))
    for size in groups:
        units, layers = config.decoder_units, config.decoder_layers
        found.append(Product("decoder start", batch * bars, condition, 2 * layers * units, 1))
        lstm("decoder", batch * bars, steps, size + condition, units, layers)
        found.append(Product("softmax", batch * config.steps, units, size, 1))
    return found


def flops_per_window(config: ModelConfig) -> int:
    """Of one training step, forward and backward, divided by the windows of its batch."""
    return 3 * sum(product.flops for product in products(config, batch=1))


def rate(rows: int, inner: int, columns: int, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """FLOP/s of this matrix multiplication here and now: the best of a few rounds."""
    a, b, out = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype), None
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds or best == 0:
        start = time.perf_counter()
        out = torch.mm(a, b, out=out)
        best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start))
    return best


def possible(config: ModelConfig, batch: int, dtype: torch.dtype) -> float:
    """Windows a second if a step were nothing but its own matrix multiplications, each at the rate measured for it."""
    seconds = sum(3 * p.flops / rate(p.rows, p.inner, p.columns, dtype) for p in products(config, batch))
    return batch / seconds


class Speed(NamedTuple):
    windows: float  # a second
    dtype: torch.dtype  # of the products


def measure(config: ModelConfig, options: Options, reference: bool = False) -> Speed:
    """Whole training steps of equation 4, after one to warm up; `reference` forces nn.LSTM."""
    settings = TrainingConfig(batch_size=options.batch, precision=options.precision)
    generator = torch.Generator().manual_seed(0)
    streams = [torch.randint(v, (options.batch, config.steps), generator=generator) for v in config.vocab_sizes]
    tokens = torch.stack(streams, dim=-1)
    model, cpu = new_model(config, 0, None), torch.device("cpu")
    bf16 = chosen_precision(model, settings, cpu, Feed(tokens.numpy(), settings, None))
    trainer = Trainer(model, settings, cpu, bf16)
    if reference:
        assert isinstance(trainer.stage, Windows)
        trainer.stage.forward = trainer.model.forward
    with denormals_flushed(cpu):
        trainer.update(tokens)
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < options.seconds or steps < 2:
            trainer.update(tokens)
            steps += 1
        speed = steps * options.batch / (time.perf_counter() - began)
    return Speed(speed, torch.bfloat16 if bf16 else torch.float32)


def resized(config: ModelConfig, options: Options) -> ModelConfig:
    names = {"latent_size": options.latent, "encoder_units": options.encoder, "decoder_units": options.decoder}
    names |= {"encoder_layers": options.encoder_layers}
    return ModelConfig(**vars(config) | {name: value for name, value in names.items() if value is not None})


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    print(f"{'model':10} {'parameters':>10} {'type':5} {'MFLOP/win':>10} {'windows/s':>10} {'GFLOP/s':>8} "
          f"{'peak':>7} {'ratio':>6} {'own shapes':>10} {'ratio':>6} {'/ nn.LSTM':>9}")  # fmt: skip
    peak = max(rate(2048, 2048, 2048, dtype, seconds=1.0) for dtype in (torch.float32, torch.bfloat16))
    for name in options.models:
        config = resized(preset(name).model(options.size), options)
        speed, dtype = measure(config, options)
        chosen: Any = "bf16" if dtype == torch.bfloat16 else "fp32"
        gain = speed / measure(config, replace(options, precision=chosen), reference=True).windows
        flops, limit = flops_per_window(config), possible(config, options.batch, dtype)
        parameters = sum(p.numel() for p in new_model(config, 0, None).parameters())
        print(f"{name:10} {parameters / 1e6:9.2f}M {chosen:5} {flops / 1e6:10.1f} {speed:10.1f} "
              f"{flops * speed / 1e9:8.1f} {peak / 1e9:7.1f} {flops * speed / peak:6.2f} {limit:10.1f} "
              f"{speed / limit:6.2f} {gain:9.2f}")  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
