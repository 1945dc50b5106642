"""Figure 2: the model as a drawing, with its own sizes and numbers of weights."""

from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING

import torch

from musicvae.model.config import ModelConfig
from musicvae.model.vae import MusicVAE
from musicvae.music.panels import BLUE, GREEN, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER, PURPLE = "#222222", "#F6F6F6", "#CC79A7"
LEFT, RIGHT = 0.6, 8.9  # of the drawing; the notes stand to the right of it
SHOWN = (0.6, 2.75, 6.75)  # left edges of the bars that are drawn: the first two and the last
WIDTH = 2.0


def draw_model(config: ModelConfig, title: str) -> "Figure":
    """The paper's figure 2 from below: input, encoder, z, conductor, a decoder for each bar, output."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.0, 7.4), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 14.0), ylim=(0, 7.4))
    axes.axis("off")
    axes.text(0.3, 7.05, title, fontsize=13, fontweight="bold", color=INK, va="center")
    weights = count_weights(config)
    _encoder(axes, config, weights["encoder"])
    if config.bars > 1:
        _conductor(axes, config, weights["conductor"])
    _decoders(axes, config, weights["decoder"])
    total = sum(weights.values())
    axes.text(9.5, 7.05, f"{_millions(total)} weights", fontsize=11, fontweight="bold", color=INK, va="center")
    return figure


def count_weights(config: ModelConfig) -> dict[str, int]:
    """Numbers in the encoder (with mu and sigma), the conductor and the decoders, of the model as it is built."""
    with torch.device("meta"):  # sizes without memory
        model = MusicVAE(config)
    counts = {"encoder": 0, "conductor": 0, "decoder": 0}
    for name, value in model.named_parameters():
        part = name.split(".")[0]
        home = {"decoders": "decoder", "conductor": "conductor", "conductor_start": "conductor"}.get(part, "encoder")
        counts["conductor" if part == "to_condition" else home] += value.numel()
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    return counts


def _encoder(axes: "Axes", config: ModelConfig, weights: int) -> None:
    vocabulary = " + ".join(str(v) for v in config.vocab_sizes)
    _cells(axes, 0.35, "input", INK)
    _note(axes, 0.6, "input", f"{config.steps} steps of {vocabulary} tokens, one-hot")
    xs = [*(LEFT + 0.55 * i for i in range(7)), *(RIGHT - 0.55 * (7 - i) for i in range(7))]
    for x in xs:
        _arrow(axes, (x + 0.2, 0.78), (x + 0.2, 1.12), INK)
        _box(axes, x, 1.12, 0.42, 0.36, "", BLUE)
        _box(axes, x, 1.6, 0.42, 0.36, "", BLUE)
    for a, b in pairwise(xs):
        if b - a < 0.6:
            _arrow(axes, (a + 0.42, 1.3), (b, 1.3), BLUE)
            _arrow(axes, (b, 1.78), (a + 0.42, 1.78), BLUE)
    axes.text(4.75, 1.54, "…", fontsize=18, color=BLUE, ha="center", va="center")
    layers = f"{config.encoder_layers} layer{'s' if config.encoder_layers > 1 else ''}"
    what = f"bidirectional LSTM, {layers} of {config.encoder_units} a direction"
    if config.encoder_bars > 1:
        what += f", over each of {config.encoder_bars} bars; then one of {config.conductor_units} over their summaries"
    _note(axes, 1.54, "encoder", what, weights, BLUE)
    axes.plot([xs[-1] + 0.44, RIGHT + 0.12, RIGHT + 0.12], [1.3, 1.3, 2.7], color=BLUE, lw=1.2)  # the last of each
    axes.plot([xs[0] + 0.2] * 2, [1.98, 2.7], color=BLUE, lw=1.2)
    _arrow(axes, (RIGHT + 0.12, 2.7), (5.58, 2.7), BLUE)
    _arrow(axes, (xs[0] + 0.2, 2.7), (3.92, 2.7), BLUE)
    _box(axes, 3.95, 2.45, 1.6, 0.5, "z", PURPLE, 14)
    _note(axes, 2.7, "latent vector", f"{config.latent_size} numbers: z = mu + sigma · noise (eq. 6, 7)", None, PURPLE)


def _conductor(axes: "Axes", config: ModelConfig, weights: int) -> None:
    for left in SHOWN:
        _box(axes, left + 0.3, 3.5, 1.4, 0.55, "", GREEN)
        _arrow(axes, (left + 1.0, 4.05), (left + 1.0, 4.62), GREEN)
    axes.plot([4.75, 4.75, SHOWN[0] + 1.0], [2.97, 3.2, 3.2], color=PURPLE, lw=1.2)
    _arrow(axes, (SHOWN[0] + 1.0, 3.2), (SHOWN[0] + 1.0, 3.48), PURPLE)
    for left, right, number in ((SHOWN[0], SHOWN[1], "1"), (SHOWN[1], SHOWN[2], "2")):
        _arrow(axes, (left + 1.7, 3.78), (right + 0.3, 3.78), GREEN)
        axes.text(left + 1.12, 4.33, f"c{number}", fontsize=9, color=GREEN, va="center")
    axes.text(SHOWN[2] + 1.12, 4.33, f"c{config.bars}", fontsize=9, color=GREEN, va="center")
    for left, label in zip(SHOWN, ("bar 1", "bar 2", f"bar {config.bars}")):
        axes.text(left + 1.0, 3.775, label, fontsize=9, color=INK, ha="center", va="center")
    axes.text(5.75, 3.9, "…", fontsize=18, color=GREEN, ha="center", va="center")
    _note(axes, 3.78, "conductor", f"LSTM, {config.conductor_layers} layers of {config.conductor_units}, "
          f"a condition of {config.condition_size} for each bar", weights, GREEN)  # fmt: skip


def _decoders(axes: "Axes", config: ModelConfig, weights: int) -> None:
    flat, streams = config.bars == 1, len(config.vocab_sizes)
    parts = [(LEFT, RIGHT - LEFT)] if flat else [(left, WIDTH) for left in SHOWN]
    if flat:
        _arrow(axes, (4.75, 2.97), (4.75, 4.62), PURPLE)
    for left, width in parts:
        for behind in range(0 if flat else streams - 1, -1, -1):
            _box(axes, left + 0.05 * behind, 4.62 + 0.07 * behind, width, 0.75, "", VERMILION)
        count = 14 if flat else 4
        for i in range(count):
            x = left + width * (i + 0.5) / count
            _arrow(axes, (x, 5.37 + (0 if flat else 0.07 * (streams - 1))), (x, 5.95), VERMILION)
            if i:
                _arrow(axes, (x - width / count + 0.1, 5.0), (x - 0.06, 5.0), VERMILION)
            axes.plot([x], [5.0], "o", color=VERMILION, markersize=5)
    if not flat:
        axes.text(5.75, 5.0, "…", fontsize=18, color=VERMILION, ha="center", va="center")
    _cells(axes, 5.97, "output", INK, flat=flat)
    steps = config.steps // config.bars
    what = "decoder" if flat else "bar decoder" + (f"s, one for each of {streams} streams" if streams > 1 else "")
    how = f"LSTM, {config.decoder_layers} layers of {config.decoder_units}, {steps} steps"
    how += "" if flat else " a bar; its state never crosses a bar line"
    _note(axes, 5.0, what, how, weights, VERMILION)
    given = "hears the token before, and z" if flat else "hears the token before, and the condition of its bar"
    _note(axes, 6.2, "output", f"{len(config.vocab_sizes)} softmax a step; each step {given}")


def _cells(axes: "Axes", y: float, what: str, colour: str, flat: bool = True) -> None:
    """A row of steps: the whole window, or that of each bar shown."""
    spans = [(LEFT, RIGHT - LEFT)] if flat else [(left, WIDTH) for left in SHOWN]
    for left, width in spans:
        count = max(round(width / 0.25), 4)
        for i in range(count):
            _box(axes, left + i * width / count, y, width / count - 0.04, 0.4, "", colour, fill="white")
    if not flat:
        axes.text(5.75, y + 0.2, "…", fontsize=18, color=colour, ha="center", va="center")


def _box(axes: "Axes", x: float, y: float, width: float, height: float, text: str, colour: str, size: float = 10,
         fill: str | None = None) -> None:  # fmt: skip
    from matplotlib.colors import to_rgb
    from matplotlib.patches import FancyBboxPatch

    pale = fill or tuple(0.78 + 0.22 * c for c in to_rgb(colour))
    style = f"round,pad=0,rounding_size={min(width, height) / 5}"
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=pale, edgecolor=colour, lw=1.1))
    axes.text(x + width / 2, y + height / 2, text, fontsize=size, color=INK, ha="center", va="center")


def _arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 0,
                                              "shrinkB": 0, "mutation_scale": 9})  # fmt: skip


def _note(axes: "Axes", y: float, what: str, how: str, weights: int | None = None, colour: str = INK) -> None:
    count = f"   {_millions(weights)} weights" if weights else ""
    axes.text(9.5, y + 0.13, what + count, fontsize=10, fontweight="bold", color=colour, va="center")
    axes.text(9.5, y - 0.02, "\n".join(wrap(how, 62)), fontsize=8, color=INK, va="top")


def _millions(n: int) -> str:
    return f"{n / 1e6:.1f} M"
