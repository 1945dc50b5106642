"""What N(0, I) has to become to be like encoded music: a prior beside the weights of a run, which samples go through.

    python paper/prior.py runs/melody-2-white data/melody-90
    python paper/prior.py runs/melody-16-white data/melody-16 --bars

Training windows are encoded (melodies and trios also transposed, where more are asked for than there are), and a flow
learns from draws of their posteriors, or with `--bars` a prior of one bar after another from what the encoder sums bars
up in (`musicvae/model/prior.py`). Validation windows tell by how many bits encoded music of other songs is likelier
under it than under N(0, I), or with `--bars` than if all numbers of all summaries were normal, each by itself: the
prior that is best there is kept, and none where that is not above 0. A prior of another kind may lie there before.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from levels import check_levels

from musicvae.composer import Composer, load
from musicvae.model.bar_prior import BarPrior
from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.config import PRIOR
from musicvae.model.flow import Flow
from musicvae.model.precision import wants_bf16
from musicvae.model.prior import Cloud, Prior, Summaries, fit, save_prior
from musicvae.music.dataset import Dataset

CPU, BATCH = torch.device("cpu"), 4096  # windows in memory at once
GRAIN = 0.4  # of the deviation of summaries: noise that is learnt with them, finer than what tells bars apart
READ = 256  # windows read at once
OTHERS = 4096  # validation windows at most, of whose bars a prior is tested


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, of a model that is whitened")
    parser.add_argument("data", type=Path, help="its data set")
    parser.add_argument("--windows", type=int, default=65_536, help="to learn from, and at most so many of validation")
    parser.add_argument("--bars", action="store_true", help="a prior of one bar after another")
    parser.add_argument("--units", type=int, default=128, help="of each coupling of the flow")
    parser.add_argument("--layers", type=int, default=8, help="couplings of the flow")
    parser.add_argument("--hidden", type=int, default=128, help="with --bars: units that remember the bars before")
    parser.add_argument("--given", type=int, default=96, help="with --bars: numbers that each coupling hears of them")
    parser.add_argument("--spread", type=float, default=1.0, help="of the noise that samples are drawn from")
    parser.add_argument("--decay", type=float, default=0.01, help="of the weights; more for fewer windows")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    composer, began = load(given.run), time.monotonic()
    dataset = Dataset(given.data).seen_as(composer.config.representation)
    torch.manual_seed(0)
    train: Cloud | Summaries
    validation: Cloud | Summaries
    if given.bars:
        check_levels(given.run, composer.model.config)
        train = summaries(composer, dataset, "train", given.windows)
        validation = summaries(composer, dataset, "validation", min(given.windows, OTHERS))._replace(grain=train.grain)
        new: Prior = bar_prior(train, given.units, given.layers, given.hidden, given.given)
    else:
        train, validation = (posteriors(composer, dataset, split, given.windows) for split in ("train", "validation"))
        new = Flow(composer.latent_size, given.units, given.layers)
    best, size = None, 64 if given.bars else 512
    for found in fit(new, train, validation, given.steps, size, decay=given.decay):
        bits = f"{found.training:.1f} bits in training, {found.held_back:.1f} on validation windows"
        print(f"step {found.step:,}: {bits}, {time.monotonic() - began:.0f} s", flush=True)
        best = found if best is None or found.held_back > best.held_back else best
    if best is None or best.held_back <= 0:
        raise ValueError(
            f"{given.run}: no better than numbers by themselves for other songs, so no prior is kept. Give more "
            "--windows"
        )
    model, config = load_run(given.run)
    prior = {"windows": len(train[0]), "steps": best.step, "bits": round(best.held_back, 1), "of_bars": given.bars}
    save_run(given.run, model, replace(config, spread=given.spread, trained=config.trained | {"prior": prior}))
    save_prior(given.run / PRIOR, best.prior)


def posteriors(composer: Composer, dataset: Dataset, split: str, most: int) -> Cloud:
    """Those of windows of a split."""
    parts = []
    for windows in drawn(composer, dataset, split, most):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=wants_bf16("auto", CPU)):
            parts.append(composer.encode_tokens(windows))
    return Cloud(*(torch.from_numpy(np.concatenate(column)) for column in zip(*parts)))


@torch.no_grad()
def summaries(composer: Composer, dataset: Dataset, split: str, most: int) -> Summaries:
    """What the encoder sums up the bars of windows of a split in."""
    model, parts = composer.model, []
    for windows in drawn(composer, dataset, split, most):
        for tokens in torch.from_numpy(windows).split(READ):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=wants_bf16("auto", CPU)):
                read = model.to_summary(model.read(tokens))
            parts.append(read.unflatten(0, (-1, model.config.encoder_bars)).half())
    values = torch.cat(parts)
    return Summaries(values, GRAIN * float(values.float().var((0, 1)).mean().sqrt()))


def bar_prior(windows: Summaries, units: int, layers: int, hidden: int, given: int) -> BarPrior:
    """A new one, that knows the mean and the scale of each number."""
    values = windows.values.float()
    prior = BarPrior(values.shape[2], units, layers, hidden, given)
    prior.mean.copy_(values.mean((0, 1)))
    prior.scale.copy_((values.var((0, 1)) + windows.grain**2).sqrt())
    return prior


def drawn(composer: Composer, dataset: Dataset, split: str, most: int) -> Iterator[np.ndarray]:
    """Windows of a split, drawn by a seed; training windows are read again, transposed, until it is `most`."""
    tokens, rng = dataset.tokens(split), np.random.default_rng(0)
    if not len(tokens):
        raise ValueError(f"{dataset.folder}: no {split} windows (too few songs). Build it from more music")
    transpose = getattr(composer.representation, "transpose", None) if split == "train" else None
    first, left = True, most
    while left > 0 and (first or transpose):
        chosen = np.sort(rng.permutation(len(tokens))[:left])
        for at in range(0, len(chosen), BATCH):
            windows = np.asarray(tokens[chosen[at : at + BATCH]], np.int64)
            yield windows if first else transpose(windows, rng)
        first, left = False, left - len(chosen)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"prior.py: {error}")
