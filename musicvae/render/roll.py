"""Song -> a piano roll as SVG that stands inside a page: no library, a few kilobytes."""

from html import escape

from musicvae.music.midi import STEPS_PER_BAR, Song
from musicvae.music.panels import Panel, panels

ROW, GAP = 4, 6  # heights in units of the drawing; a step is as wide as a row is high


def roll_svg(song: Song, name: str = "") -> str:
    """A panel for each stream, one above the other: time from left to right, a line at each bar, pitches upwards.

    It stretches to the width of what it stands in. A reader without sight gets the name, the length and the parts.
    """
    shown = panels(song)
    heights = [ROW * (panel.rows[1] - panel.rows[0] + 1) for panel in shown]
    width, height = max(song.steps, 1) * ROW, sum(heights) + GAP * (len(shown) - 1)
    parts, top = list[str](), 0
    for panel, tall in zip(shown, heights):
        parts += _panel(panel, top, width, tall)
        top += tall + GAP
    says = f"{name or 'Piano roll'}: {song.bars} bars; {', '.join(panel.name for panel in shown)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(says)}" style="width:100%;height:{max(height, 40)}px">{"".join(parts)}</svg>'
    )


def _panel(panel: Panel, top: int, width: int, height: int) -> list[str]:
    highest = panel.rows[1]
    lines = "".join(f"M{x} {top}v{height}" for x in range(0, width + 1, STEPS_PER_BAR * ROW))
    blocks = zip(panel.blocks.start.tolist(), panel.blocks.end.tolist(), panel.blocks.row.tolist())
    notes = "".join(
        f"M{start * ROW} {top + (highest - row) * ROW}h{max((end - start) * ROW - 1, 1)}v{ROW - 1}H{start * ROW}z"
        for start, end, row in blocks
    )
    return [
        f'<rect y="{top}" width="{width}" height="{height}" fill="currentColor" fill-opacity=".06"/>',
        f'<path d="{lines}" stroke="currentColor" stroke-opacity=".35" vector-effect="non-scaling-stroke"/>',
        f'<path d="{notes}" fill="{panel.colour}"><title>{escape(panel.name)}</title></path>',
    ]
