"""Figure 4: what attribute vectors do, as bars above and below an axis, and as a matrix."""

from typing import TYPE_CHECKING, Any

import numpy as np

from musicvae.evaluation.attributes import Effects, own_column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, one an attribute; two attributes more than there are colours would repeat.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442", "#000000")
INK, FAINT = "#222222", "#777777"


def draw_effects(added: Effects, subtracted: Effects) -> "Figure":
    """A group of bars a vector, a bar an attribute: its change in standard deviations, adding and subtracting."""
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows, columns = added.rows, added.columns
    figure = Figure(figsize=(max(8.0, 1.55 * len(rows)), 4.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    width = 0.8 / len(columns)
    for c, name in enumerate(columns):
        x = np.arange(len(rows)) + (c - (len(columns) - 1) / 2) * width
        own = [own_column(row, list(columns)) == c for row in rows]
        frames = [1.3 if mine else 0.0 for mine in own]
        full = np.array(to_rgb(COLOURS[c % len(COLOURS)]))
        for effects, colour in ((added, full), (subtracted, 0.5 + 0.5 * full)):
            axes.bar(x, effects.change[:, c], width * 0.9, color=[colour], linewidth=frames,
                     edgecolor=INK, label=name if effects is added else None)  # fmt: skip
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_xticks(range(len(rows)), rows, rotation=20, ha="right")
    axes.set_ylabel("change, standard deviations of the attribute")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=9)
    patches, labels = axes.get_legend_handles_labels()
    plain = [Rectangle((0, 0), 1, 1, color=bar.patches[0].get_facecolor()) for bar in patches]
    axes.legend(plain, labels, frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    axes.text(1.0, -0.22, "full: added; pale: subtracted; framed: the vector's own attribute", fontsize=8, color=FAINT,
              transform=axes.transAxes, ha="right")  # fmt: skip
    return figure


def draw_matrix(report: dict[str, Any]) -> "Figure":
    """The report beside a model's vectors: a row a vector, a column an attribute, its change in standard deviations."""
    from matplotlib.figure import Figure

    columns = report["columns"]
    rows = [name for name, record in report["attributes"].items() if record.get("effect")]
    values = np.array([report["attributes"][name]["effect"]["change"] for name in rows], float)
    figure = Figure(
        figsize=(2.6 + 0.85 * len(columns), 1.6 + 0.42 * len(rows)), layout="constrained", facecolor="white"
    )
    axes = figure.add_subplot()
    limit = max(float(np.nanmax(np.abs(values))), 1e-9)
    shades = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for r, name in enumerate(rows):
        for c in range(len(columns)):
            own = own_column(name, columns) == c
            colour = "white" if abs(values[r, c]) > 0.6 * limit else INK
            text = "–" if np.isnan(values[r, c]) else f"{values[r, c]:+.2f}"
            axes.text(c, r, text, ha="center", va="center", fontsize=8, color=colour,
                      fontweight="bold" if own else "normal")  # fmt: skip
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), [f"+1 {name}" for name in rows])
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.spines[:].set_visible(False)
    figure.colorbar(shades, ax=axes, shrink=0.8).set_label("standard deviations", fontsize=8)
    return figure
