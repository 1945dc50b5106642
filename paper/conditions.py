"""Teaching a 16-bar model of one stream its conditions, bar by bar, from what a 2-bar model makes of the same bars.

    python paper/warm_start.py melody-16 runs/warm-melody-16 --melody runs/melody-2 data/melody-90
    python paper/conditions.py runs/warm-melody-16 runs/melody-2 data/melody-90 data/melody-16 runs/conditions
    musicvae train melody-16 data/melody-16 --from runs/conditions --out runs/melody-16

Between equation 4 and an encoder that hears nothing yet stand a conductor and bar decoders; here every bar has a target
of its own: mu of the 2-bar window that begins with it. Encoder and conductor learn to give it through z, in squared
distance of mu; the bar decoders, which already turn it into music, are left alone. Killed, the same command goes on.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from teach import study
from torch import Tensor
from torch.nn import functional as F
from warm_start import Source, source

from musicvae.composer import load
from musicvae.model.checkpoint import load_run
from musicvae.model.objective import TrainingConfig
from musicvae.model.training import Feed, draw_noise
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import Dataset
from musicvae.music.midi import STEPS_PER_BAR
from musicvae.train import keep_memory

NOISE = 0.1  # standard deviation of z about mu, so that the conductor does not hang on its last digits


class Lesson(NamedTuple):
    loss: Tensor  # squared distance of mu, summed over z, mean over bars
    explained: float  # share of the variance of mu about its mean that the conditions give


def targets(two: MusicVAE, tokens: Tensor) -> Tensor:
    """tokens (B, T, 1) of the 2-bar model -> mu (B, U, Z) of each bar with the next; silence follows the last bar."""
    padded = F.pad(tokens, (0, 0, 0, STEPS_PER_BAR))
    windows = padded.unfold(1, 2 * STEPS_PER_BAR, STEPS_PER_BAR).transpose(2, 3)  # (B, U, 32, 1)
    with torch.no_grad():
        return two.encode(windows.flatten(0, 1)).mean.view(len(tokens), -1, two.config.latent_size)


def learn(model: MusicVAE, given: Source, tokens: Tensor, noise: Tensor) -> Lesson:
    """One lesson from tokens (B, T, 1) of the 2-bar model, with noise (B, Z)."""
    wanted = targets(given.model, tokens)
    places = torch.nonzero(given.tokens >= 0).flatten()  # of each token of the 2-bar model, its number in this one
    posterior = model.encode(places[tokens])
    conditions = model.conduct(posterior.mean + NOISE * noise).float()
    wrong = given.mean + conditions @ given.axes - wanted
    spread = (wanted - given.mean).square().mean()
    return Lesson(wrong.square().sum(-1).mean(), 1 - float((wrong.square().mean() / spread).detach()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, help="run of warm_start.py")
    parser.add_argument("two", help="2-bar model whose decoder it begins with")
    parser.add_argument("two_data", help="data set that gave its conditions their axes")
    parser.add_argument("data", type=Path, help="data set of 16 bars")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args(arguments)
    torch.set_num_threads(words.threads)
    keep_memory()
    start = load_run(words.start)
    model, kind = start.model.train(), start.config.representation
    given = source(words.two, words.two_data, model.config.condition_size, kind)
    given.model.requires_grad_(False)
    dataset = Dataset(words.data).seen_as(load(words.two).config.representation)
    transpose = None if kind == "drums" else dataset.settings.tokens.transpose
    rate = words.learning_rate
    config = TrainingConfig(
        steps=words.steps, batch_size=words.batch_size, learning_rate=rate, final_learning_rate=rate / 100, warmup=0.05
    )
    feed = Feed(dataset.tokens("train"), config, transpose)
    shape = (config.batch_size, model.config.latent_size)

    def lesson(step: int) -> tuple[Tensor, dict[str, float]]:
        found = learn(model, given, feed.batch(step), draw_noise(shape, config.seed, 2, step))
        return found.loss, {"explained": found.explained}

    taught = {"taught_by": f"{given.name}, with whose bar decoders and encoder it began", "licence": "", "lessons": []}
    run = replace(start.config, name="conditions", trained={"source": taught})
    study(words.out, model, run, config, {"encoder": 1.0, "to_": 1.0, "conductor": 1.0}, lesson)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"conditions.py: {error}")
