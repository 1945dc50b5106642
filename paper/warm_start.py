"""A 16-bar model whose bar decoders begin with what a 2-bar decoder knows: `musicvae train --from` goes on from there.

    python paper/warm_start.py melody-16 runs/warm-melody-16 --melody runs/melody-90 data/melody-90
    python paper/warm_start.py drums-16 runs/warm-drums-16 --drums runs/drums-2 data/drums-2
    musicvae train melody-16 data/melody-16 --from runs/warm-melody-16 --out runs/melody-16

A bar decoder hears a condition where the 2-bar decoder heard z. Conditions are coordinates of z along the principal
components of mu over the training windows, scaled to unit variance, so that a conductor which says little yet asks for
average music. The bass starts as the melody does. The encoder is taken over too, with its widths, from a model of the
same music, for a trio from that of the drums, and then learns to read the other streams: a fresh encoder makes nothing
of 256 steps for so long that the decoders learn to do without it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from musicvae.composer import load
from musicvae.evaluation.reconstruction import draw_windows
from musicvae.model.checkpoint import save_run
from musicvae.model.config import RunConfig
from musicvae.model.trainer import new_model
from musicvae.model.vae import MusicVAE, StepDecoder
from musicvae.music.dataset import Dataset
from musicvae.music.representation import representation
from musicvae.presets import change, preset

WINDOWS = 8192  # behind the principal components
UNKNOWN = -8.0  # logit of a token that the 2-bar decoder does not have


class Source(NamedTuple):
    """A trained 2-bar model and the conditions that stand for its z: z = mean + conditions @ axes."""

    model: MusicVAE
    name: str
    mean: Tensor  # (Z)
    axes: Tensor  # (C, Z)
    tokens: Tensor  # of the target's tokens, the source's (V), -1 where it has none


def source(run: str, data: str, size: int, kind: str, places: slice = slice(None)) -> Source:
    """The 2-bar model of a run, seen from `places` of conditions of `size`. Raises ValueError unless it is flat."""
    composer = load(run)
    tokens = Dataset(Path(data)).seen_as(composer.config.representation).tokens("train")
    if composer.model.config.bars > 1 or len(composer.model.config.vocab_sizes) > 1:
        raise ValueError(f"{run} has bars or streams of its own; a flat 2-bar model of one stream is needed")
    rows = draw_windows(len(tokens), WINDOWS, 0)
    mu = torch.from_numpy(composer.encode_tokens(np.asarray(tokens[rows])).mu)
    mean = mu.mean(0)
    _, lengths, directions = torch.linalg.svd(mu - mean, full_matrices=False)
    axes = (lengths / len(rows) ** 0.5).unsqueeze(1) * directions
    own = min(len(range(size)[places]), len(axes))
    conditions = axes.new_zeros(size, axes.shape[1])
    conditions[places][:own] = axes[:own]
    kept = float(lengths[:own].square().sum() / lengths.square().sum())
    print(f"{run}: {own} conditions hold {kept:.1%} of the variance of mu ({kind})")
    return Source(composer.model, composer.name, mean, conditions, renamed(composer.config.representation, kind))


def renamed(before: str, now: str) -> Tensor:
    """Of each token of `now` its number in `before`, -1 where it is missing there."""
    size = representation(now).vocab_sizes[0]
    if before != "melody-90" or now != "melody":
        return torch.arange(size)
    return torch.tensor([token if token < 2 else token - 21 if 23 <= token <= 110 else -1 for token in range(size)])


@torch.no_grad()
def take_over(decoder: StepDecoder, given: Source) -> None:
    """The weights of the source's decoder, with conditions in the place of z."""
    old = given.model.decoders[0]
    assert isinstance(old, StepDecoder)
    vocab, known = sum(old.vocab_sizes), given.tokens >= 0
    for (name, new), weights in zip(decoder.lstm.named_parameters(), old.lstm.parameters()):
        if name == "weight_ih_l0":
            rows, latent = weights.split([vocab, weights.shape[1] - vocab], dim=1)
            table = rows[:, given.tokens.clamp(min=0)] * known
            new.copy_(torch.cat([table, latent @ given.axes.t()], dim=1))
            shift = latent @ given.mean
        else:
            new.copy_(weights)
    decoder.lstm.bias_ih_l0 += shift
    dense = old.start.dense
    decoder.start.dense.weight.copy_(dense.weight @ given.axes.t())
    decoder.start.dense.bias.copy_(dense.bias + dense.weight @ given.mean)
    places = given.tokens.clamp(min=0)
    decoder.to_logits.weight.copy_(old.to_logits.weight[places] * known.unsqueeze(1))
    decoder.to_logits.bias.copy_(torch.where(known, old.to_logits.bias[places], torch.tensor(UNKNOWN)))


@torch.no_grad()
def take_over_encoder(encoder: nn.LSTM, given: Source, first: int) -> None:
    """The weights of the source's encoder, where its tokens are the target's from number `first` on."""
    known, places = given.tokens >= 0, given.tokens.clamp(min=0)
    for (name, new), weights in zip(encoder.named_parameters(), given.model.encoder.parameters()):
        if name.startswith("weight_ih_l0"):
            new[:, first : first + len(places)] = weights[:, places] * known
        else:
            new.copy_(weights)


@torch.no_grad()
def take_over_summary(model: MusicVAE, given: Source) -> None:
    """What a bar is summed up to: the condition that stands for mu, as far as the source gives conditions."""
    lengths = given.axes.square().sum(1, keepdim=True)
    known = lengths.flatten() > 0
    back = given.axes[known] / lengths[known]  # (conditions given, Z)
    model.to_summary.weight[known] = back @ given.model.to_mu.weight
    model.to_summary.bias[known] = back @ (given.model.to_mu.bias - given.mean)


def warm_start(
    name: str, out: Path, melody: list[str] | None, drums: list[str] | None, settings: Sequence[str] = ()
) -> None:
    """A run folder for `levels.py` and `musicvae train --from`. ValueError where a decoder is missing."""
    chosen = preset(name)
    kinds = {"melody": ["melody"], "drums": ["drums"], "trio": ["melody", "melody", "drums"]}[chosen.representation]
    given = {"melody": melody, "drums": drums}
    missing = [kind for kind in kinds if given[kind] is None]
    if missing:
        raise ValueError(f"{name} needs a 2-bar model of {missing[0]}: --{missing[0]} RUN DATASET")
    sizes, _ = change(chosen.model("small"), chosen.training("small"), list(settings))
    share = sizes.condition_size // len(kinds)
    places = [slice(i * share, (i + 1) * share) for i in range(len(kinds))]
    sources = [source(*given[kind], sizes.condition_size, kind, place) for kind, place in zip(kinds, places)]  # type: ignore[misc]
    reader = sources[-1]
    model = new_model(sizes, 0, None)
    for decoder, stream in zip(model.decoders, sources):
        assert isinstance(decoder, StepDecoder)
        take_over(decoder, stream)
    taken = "bar decoders"
    if sizes.encoder_units == reader.model.config.encoder_units and sizes.encoder_layers == 1:
        take_over_encoder(model.encoder, reader, sum(sizes.vocab_sizes[:-1]))
        if sizes.encoder_bars > 1:
            take_over_summary(model, reader)
        taken += " and encoder"
    save_run(
        out,
        model,
        RunConfig(
            name=name,
            representation=chosen.representation,
            drum_map="" if chosen.representation == "melody" else "current",
            preset=name,
            size="small",
            model=model.config,
            trained={"steps": 0, "source": f"{taken} of " + ", ".join(dict.fromkeys(s.name for s in sources))},
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("melody-16", "drums-16", "trio-16"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--melody", nargs=2, metavar=("RUN", "DATASET"), help="a 2-bar model of melodies, and its data")
    parser.add_argument("--drums", nargs=2, metavar=("RUN", "DATASET"), help="a 2-bar model of drums, and its data")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="such as model.encoder_units=160")
    given = parser.parse_args()
    warm_start(given.name, given.out, given.melody, given.drums, given.set)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"warm_start.py: {error}")
