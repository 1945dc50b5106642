"""Songs -> piano rolls as PNG or SVG: one song in lines, several in a row with a column each, or a sheet of many.

Lengths on the page are in inches, measured from its upper left corner; times are in steps.
"""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musicvae.files import replacing
from musicvae.music.midi import STEPS_PER_BAR, STEPS_PER_QUARTER, Song, join
from musicvae.music.panels import Panel, panels
from musicvae.music.pianoroll import pitch_name
from musicvae.music.representation import DRUM_CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
DOTS = 150  # of a PNG, an inch
BARS_PER_LINE, MAX_HEIGHT = 16, 50.0  # a page higher than so many inches is cut there
MAX_CELLS = 100
INK, FAINT, RULE, BEAT, SHADE, KEYS = "#222222", "#777777", "#9A9A9A", "#E3E3E3", "#E4EDF6", "#F3F3F3"
_BLACK_KEYS = (1, 3, 6, 8, 10)
_EDGE = 0.35, 0.025  # of a note's beginning that is drawn in the full colour: steps, and at least inches


# --- pages -------------------------------------------------------------------------------------------------------


def draw(song: Song, title: str = "", drum_map: str = "current") -> "Figure":
    """One song: lines of up to 16 bars, in each a panel a stream. Raises ValueError without matplotlib."""
    shown = panels(song, drum_map)
    per_line = min(max(song.bars, 1), BARS_PER_LINE)
    left, width = _margin(shown), max(7.0, 0.95 * per_line)
    heights = [_height(p.rows, p.is_drum) for p in shown]
    line_height = sum(heights) + 0.1 * (len(heights) - 1) + 0.42
    lines = min(math.ceil(max(song.bars, 1) / per_line), max(int(MAX_HEIGHT / line_height), 1))
    figure = _figure(left + width + 0.15, 0.42 + lines * line_height)
    drawn = min(song.bars, lines * per_line)
    rest = f", bars 1 to {drawn} of {song.bars}" if drawn < song.bars else ""
    _heading(figure, title, f"{song.tempo:g} bpm{rest}")
    for line in range(lines):
        top, span = 0.62 + line * line_height, (line * per_line * STEPS_PER_BAR, (line + 1) * per_line * STEPS_PER_BAR)
        for n, (panel, height) in enumerate(zip(shown, heights)):
            axes = _axes(figure, left, top, width, height)
            _paper(axes, panel.rows, panel.is_drum, span, min(song.steps, span[1]))
            ink(axes, panel)
            _name(axes, panel)
            if n == 0:
                _bar_numbers(axes, span, min(song.steps, span[1]))
            top += height + 0.1
    return figure


def draw_row(songs: Sequence[Song], labels: Sequence[str] = (), title: str = "", drum_map: str = "current") -> "Figure":
    """Songs one after another in one roll, a shaded column each, as a path through the latent space is heard."""
    whole = join(list(songs))
    shown = panels(whole, drum_map)
    ends = np.cumsum([s.steps for s in songs])
    starts = ends - [s.steps for s in songs]
    left, width = _margin(shown), min(max(9.0, 0.8 * whole.bars), 26.0)
    heights = [_height(p.rows, p.is_drum) for p in shown]
    top = 0.75
    figure = _figure(left + width + 0.15, top + sum(heights) + 0.1 * len(heights) + 0.1)
    _heading(figure, title, f"{len(songs)} x {songs[0].bars} bars, {whole.tempo:g} bpm")
    for n, (panel, height) in enumerate(zip(shown, heights)):
        axes = _axes(figure, left, top, width, height)
        _paper(axes, panel.rows, panel.is_drum, (0, whole.steps), whole.steps, shaded=list(zip(starts, ends))[1::2])
        axes.vlines(ends[:-1], *axes.get_ylim(), color=INK, lw=1.1, zorder=2)
        ink(axes, panel)
        _name(axes, panel)
        for at, end, label in zip(starts, ends, _labels(labels, len(songs)) if n == 0 else ()):
            room = max(int((end - at) * _inches_a_step(axes) / 0.09), 1)  # letters
            short = label if len(label) <= room else label[: room - 1] + "…"
            axes.text((at + end) / 2, axes.get_ylim()[1], short, ha="center", va="bottom", fontsize=9, color=INK)
        top += height + 0.1
    return figure


def draw_sheet(
    songs: Sequence[Song],
    labels: Sequence[str] = (),
    columns: int = 0,
    title: str = "",
    drum_map: str = "current",
) -> "Figure":
    """Many songs at a glance: a small roll each, `columns` in a line, all with the same rows so that they compare."""
    songs = songs[:MAX_CELLS]
    columns = min(columns or max(1, min(4, round(math.sqrt(len(songs))))), len(songs))
    cells = [panels(song, drum_map) for song in songs]
    most = max(len(cell) for cell in cells)
    rows = [_common([cell[n] for cell in cells if len(cell) > n]) for n in range(most)]
    model = max(cells, key=len)
    heights = [0.6 * _height(r, p.is_drum) for r, p in zip(rows, model)]
    bars, left = max(s.bars for s in songs), _margin(model) - 0.3
    width = min(max(1.4 * bars, 6.0 / columns, 1.6), max(4.4, 14.0 / columns))
    top = 0.68 if title else 0.3
    cell_height = sum(heights) + 0.05 * len(heights) + 0.33
    lines = math.ceil(len(songs) / columns)
    figure = _figure(left + columns * (width + 0.22), top - 0.26 + lines * cell_height)
    _heading(figure, title, f"{len(songs)} songs" if title else "")
    longest = max(s.steps for s in songs)
    for i, (song, cell, label) in enumerate(zip(songs, cells, _labels(labels, len(songs)))):
        y, x = top + i // columns * cell_height, left + i % columns * (width + 0.22)
        for n, panel in enumerate(cell):
            axes = _axes(figure, x, y, width, heights[n])
            _paper(axes, rows[n], panel.is_drum, (0, longest), song.steps, names=i % columns == 0)
            ink(axes, panel)
            if n == 0:
                axes.set_title(label, fontsize=8, color=INK, loc="left", pad=3)
            y += heights[n] + 0.05
    return figure


def save_picture(figure: "Figure", path: str | Path) -> None:
    """Writes a PNG or SVG file, by the path's ending; the same drawing gives the same bytes."""
    from matplotlib import rc_context

    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"{path.name}: a picture is written as {' or '.join('.' + f for f in FORMATS)}")
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with replacing(path) as temporary, rc_context({"svg.hashsalt": "musicvae"}):
        figure.savefig(temporary, format=kind, dpi=DOTS, metadata=metadata)


# --- what the pages share ----------------------------------------------------------------------------------------


def checked_matplotlib() -> None:
    """Raises ValueError where pictures cannot be drawn, and says what is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("pictures need matplotlib, which is not installed: pip install matplotlib")


def _figure(width: float, height: float) -> "Figure":
    checked_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def _axes(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    page, tall = figure.get_size_inches()
    axes = figure.add_axes((left / page, 1 - (top + height) / tall, width / page, height / tall))
    axes.tick_params(length=0, labelsize=8, labelcolor=FAINT, pad=4)
    for spine in axes.spines.values():
        spine.set(color=RULE, linewidth=0.8)
    return axes


def _paper(axes: "Axes", rows: tuple[int, int], is_drum: bool, span: tuple[int, int], end: int, *,
           shaded: Sequence[tuple[int, int]] = (), names: bool = True) -> None:  # fmt: skip
    """The empty roll: rows, beats, bars and names, from span[0] to span[1]; the song itself ends at `end`."""
    low, high = rows
    axes.set(xlim=span, ylim=(low - 0.5, high + 0.5), xticks=[])
    for a, b in shaded:
        axes.axvspan(a, b, color=SHADE, lw=0, zorder=0)
    for row in range(low, high + 1):
        if row % 2 if is_drum else row % 12 in _BLACK_KEYS:
            axes.axhspan(row - 0.5, row + 0.5, color=INK, alpha=0.045, lw=0, zorder=0.5)
    octaves = [row for row in range(low, high + 1) if row % 12 == 0]
    if not is_drum:
        axes.hlines([row - 0.5 for row in octaves], *span, color=BEAT, lw=0.8, zorder=1)
    if _inches_a_step(axes) > 0.02:
        axes.vlines(np.arange(span[0], end, STEPS_PER_QUARTER), low - 0.5, high + 0.5, color=BEAT, lw=0.6, zorder=1)
    bars = np.arange(span[0], end + 1, STEPS_PER_BAR)
    crowded = _inches_a_step(axes) * STEPS_PER_BAR < 0.3
    axes.vlines(bars, low - 0.5, high + 0.5, color=BEAT if crowded else RULE, lw=0.8, zorder=1.5)
    if end < span[1]:
        axes.axvspan(max(end, span[0]), span[1], color="white", lw=0, zorder=3)
    if is_drum:
        axes.set_yticks(range(low, high + 1), DRUM_CLASSES if names else [])
    else:
        axes.set_yticks(octaves, [pitch_name(row) for row in octaves] if names else [])


def ink(axes: "Axes", panel: Panel) -> None:
    """The notes: pale while they are held, in the stream's full colour where they begin."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb

    row, start, end = (column.astype(float) for column in panel.blocks)
    if panel.is_drum:
        parts: list[tuple[np.ndarray, np.ndarray, Any]] = [(start + 0.08, start + 0.86, panel.colour)]
    else:
        pale = tuple(0.5 + 0.5 * c for c in to_rgb(panel.colour))
        onset = max(_EDGE[0], _EDGE[1] / _inches_a_step(axes))
        parts = [(start + 0.04, end - 0.08, pale), (start + 0.04, np.minimum(start + onset, end - 0.08), panel.colour)]
    for left, right, colour in parts:
        corners = [(left, row - 0.42), (right, row - 0.42), (right, row + 0.42), (left, row + 0.42)]
        boxes = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)
        axes.add_collection(PolyCollection(list(boxes), facecolors=[colour], linewidths=0, zorder=2.5), autolim=False)


def _inches_a_step(axes: "Axes") -> float:
    first, last = axes.get_xlim()
    return float(axes.bbox.width / axes.figure.dpi / (last - first))


def _height(rows: tuple[int, int], is_drum: bool) -> float:
    return (rows[1] - rows[0] + 1) * (0.17 if is_drum else max(0.062, 0.11 - 0.001 * (rows[1] - rows[0])))


def _margin(shown: list[Panel]) -> float:
    return 1.3 if any(p.is_drum for p in shown) else 0.85


def _name(axes: "Axes", panel: Panel) -> None:
    """The stream's name along the left edge, in its colour."""
    left = 0.16 * axes.figure.dpi / axes.figure.bbox.width
    box = axes.get_position()
    axes.figure.text(left, box.y0 + box.height / 2, panel.name[:24], rotation=90, ha="center", va="center",
                     fontsize=9, fontweight="bold", color=panel.colour)  # fmt: skip


def _bar_numbers(axes: "Axes", span: tuple[int, int], end: int) -> None:
    """At the beginning of each bar, counted from 1 as the option --bar does."""
    for at in range(span[0], end, STEPS_PER_BAR):
        axes.text(at, axes.get_ylim()[1], f" {at // STEPS_PER_BAR + 1}", fontsize=7.5, color=FAINT, va="bottom")


def _heading(figure: "Figure", title: str, note: str) -> None:
    page, tall = figure.get_size_inches()
    room = int((page - 0.075 * len(note)) / 0.1)  # letters
    title = title if len(title) <= room else title[: room - 1] + "…"
    figure.text(0.1 / page, 1 - 0.22 / tall, title, fontsize=11, fontweight="bold", color=INK, va="center")
    figure.text(1 - 0.15 / page, 1 - 0.22 / tall, note, fontsize=8.5, color=FAINT, va="center", ha="right")


def _labels(labels: Sequence[str], n: int) -> list[str]:
    return [str(label) for label in labels] or [str(i) for i in range(1, n + 1)]


def _common(shown: list[Panel]) -> tuple[int, int]:
    """The rows that several panels need together."""
    sounding = [p for p in shown if len(p.blocks.row)] or shown
    return min(p.rows[0] for p in sounding), max(p.rows[1] for p in sounding)
