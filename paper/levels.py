"""A hierarchical model taught level by level before equation 4: first its bars, then the window that they make.

    python paper/warm_start.py melody-16 runs/warm-melody-16 --melody melody-2 data/melody-90
    python paper/levels.py bars runs/warm-melody-16 data/melody-16 runs/bars-melody-16 --steps 1000
    python paper/levels.py windows runs/bars-melody-16 data/melody-16 runs/levels-melody-16 --steps 2000
    musicvae train melody-16 data/melody-16 --from runs/levels-melody-16 --out runs/melody-16

Between equation 4 and an encoder that hears nothing yet stand a conductor and bar decoders. `bars` leaves the two upper
levels out: each bar's summary goes straight to its decoders as their condition, a variational autoencoder of single
bars with one sigma for all. `windows` keeps these and teaches the reader of summaries and the conductor to give the
summaries back through z, by the same bound, with no step of music to write: hundreds of windows a second on one core.
Killed, the same command goes on from its last checkpoint; `windows` then has no older readings at first.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import torch
from teach import CPU, study
from torch import Tensor
from torch.nn import functional as F

from musicvae.model.checkpoint import load_run
from musicvae.model.config import ModelConfig
from musicvae.model.feed import Feed, draw_noise, draw_uniform
from musicvae.model.objective import TrainingConfig, dropout, kl_from_prior
from musicvae.model.precision import wants_bf16
from musicvae.model.recurrence import Recurrent
from musicvae.model.stages import faster
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import Dataset
from musicvae.train import keep_memory

SIGMA = 0.25  # of a summary, for every bar and dimension
BAR_WEIGHT = 0.02  # of the prior of summaries
BETA, FREE_BITS = 0.5, 448.0  # of the windows
FRESH, AGAIN = 64, 3  # windows read anew in each step of `windows`, and how often as many that were read before
KEPT = 64  # readings to draw them from

Reader = MusicVAE | Recurrent


def bars_loss(
    model: MusicVAE, reader: Reader, tokens: Tensor, noise: Tensor, unheard: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """tokens (B, T, streams), noise (B*U, C), unheard (B, T): the bound of single bars, mean over them."""
    summaries = model.to_summary(reader.read(tokens).to(model.to_mu.weight.dtype))
    logits = reader.predict_bars(tokens, summaries + SIGMA * noise, unheard)
    streams = list(zip(logits, tokens.unbind(-1)))
    nats = [F.cross_entropy(part.float().flatten(0, 1), truth.flatten(), reduction="sum") for part, truth in streams]
    prior = summaries.float().square().sum(-1).mean() / 2
    right = [float((part.argmax(-1) == truth).float().mean()) for part, truth in streams]
    figures = {f"accuracy_{i}": share for i, share in enumerate(right)} | {"spread": float(prior.detach())}
    return torch.stack(nats).sum() / len(summaries) + BAR_WEIGHT * prior, figures


def windows_loss(
    model: MusicVAE, summaries: Tensor, noise: Tensor, free_bits: float = FREE_BITS
) -> tuple[Tensor, dict[str, float]]:
    """summaries (B, U, C), noise (B, Z): equation 4 with summaries in the place of music, mean over windows."""
    posterior = model.posterior_of_bars(summaries)
    wrong = model.conduct(posterior.mean + posterior.stddev * noise).float() - summaries
    kl = kl_from_prior(posterior)
    spread = (summaries - summaries.mean((0, 1))).square().sum()
    figures = {
        "explained": 1 - float((wrong.square().sum() / spread).detach()),
        "kl_bits": float(kl.detach().mean()) / math.log(2),
    }
    loss = wrong.square().sum((1, 2)) / (2 * SIGMA**2) + BETA * (kl - free_bits * math.log(2)).clamp(min=0)
    return loss.mean(), figures


class Readings:
    """Summaries (N, U, C) of windows: some read anew at every step, beside others that were read not long ago."""

    def __init__(self, model: MusicVAE, reader: Reader, feed: Feed):
        self.model, self.reader, self.feed = model, reader, feed
        self.kept: list[Tensor] = []

    @torch.no_grad()
    def batch(self, step: int) -> Tensor:
        read = self.reader.read(self.feed.batch(step)).to(self.model.to_mu.weight.dtype)
        fresh = self.model.to_summary(read).float().unflatten(0, (-1, self.model.config.encoder_bars))
        generator = torch.Generator().manual_seed(step)
        places = torch.randint(max(len(self.kept), 1), (AGAIN if self.kept else 0,), generator=generator).tolist()
        old = [self.kept[place][torch.randperm(len(fresh), generator=generator)] for place in places]
        self.kept = [*self.kept[-KEPT + 1 :], fresh]
        return torch.cat([fresh, *old])


def check_levels(name: str | Path, sizes: ModelConfig) -> None:
    """Raises ValueError for a model without two levels."""
    if not sizes.bars == sizes.encoder_bars > 1:
        raise ValueError(f"{name} has {sizes.bars} bars and {sizes.encoder_bars} encoder_bars; levels need both")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("level", choices=("bars", "windows"))
    parser.add_argument("start", type=Path, help="run of warm_start.py, or of the level before")
    parser.add_argument("data", type=Path, help="data set of 16 bars")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32, help="windows, of `bars`")
    parser.add_argument("--free-bits", type=float, default=FREE_BITS, help="of `windows`")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args(arguments)
    torch.set_num_threads(words.threads)
    keep_memory()
    start = load_run(words.start)
    model, sizes = start.model.train(), start.config.model
    check_levels(words.start, sizes)
    dataset, rate, bars = Dataset(words.data), words.learning_rate, words.level == "bars"
    config = TrainingConfig(
        steps=words.steps,
        batch_size=words.batch_size if bars else FRESH,
        learning_rate=rate,
        final_learning_rate=rate / 30,
        warmup=0.03,
        token_dropout=0.3,
    )
    feed = Feed(dataset.tokens("train"), config, dataset.settings.tokens.augment)
    reader = faster(model, config.batch_size, CPU, wants_bf16("auto", CPU))
    readings = Readings(model, reader, feed)

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        if bars:
            tokens = feed.batch(step)
            noise = draw_noise((len(tokens) * sizes.bars, sizes.condition_size), config.seed, 2, step)
            unheard = draw_uniform(tokens.shape[:2], config.seed, 4, step) < dropout(config, step)
            return bars_loss(model, reader, tokens, noise, unheard)
        summaries = readings.batch(step)
        noise = draw_noise((len(summaries), sizes.latent_size), config.seed, 2, step)
        return windows_loss(model, summaries, noise, words.free_bits)

    if "source" not in start.config.trained:
        raise ValueError(f"{words.start} is no run of warm_start.py, nor of a level, which this goes on from")
    given = start.config.trained["source"]
    taught = given if isinstance(given, dict) else {"began_with": given, "lessons": []}
    parts = (
        ("encoder", "to_summary", "decoders") if bars else ("reader", "to_mu", "to_sigma", "conductor", "to_condition")
    )
    run = replace(start.config, name=words.level, trained={"source": taught})
    study(words.out, model, run, config, dict.fromkeys(parts, 1.0), lesson)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"levels.py: {error}")
