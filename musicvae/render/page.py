"""Songs -> one HTML page that shows and plays them, offline: rolls, notes, files and synth are inside."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from musicvae.files import replacing
from musicvae.music.midi import Song
from musicvae.render.roll import roll_svg

HERE = Path(__file__).parent
TEMPLATE = HERE / "page.html"
SYNTH = HERE / "webaudio-tinysynth" / "webaudio-tinysynth.min.js"  # Apache-2.0, with its licence beside it
DRUM_CHANNEL = 9
PITCHED_CHANNELS = [channel for channel in range(16) if channel != DRUM_CHANNEL]


Groups = Mapping[str, Sequence[tuple[str, Song]]]  # headings, which may be empty, and under each its named songs


def save_page(path: Path, groups: Groups, title: str) -> None:
    """Writes the page of the songs."""
    with replacing(path) as temporary:
        temporary.write_text(page(groups, title), encoding="utf-8")


def page(groups: Groups, title: str) -> str:
    """The page as HTML."""
    clips = [_clip(song) for songs in groups.values() for _, song in songs]
    numbers = iter(range(len(clips)))
    sections = "".join(_section(heading, songs, numbers) for heading, songs in groups.items())
    content = {
        "TITLE": escape(title),
        "SECTIONS": sections,
        "CLIPS": json.dumps(clips, separators=(",", ":")).replace("<", "\\u003c"),
        "SYNTH": SYNTH.read_text(encoding="utf-8"),
    }
    parts = TEMPLATE.read_text(encoding="utf-8").split("%%")  # text, a name, text, a name, ...
    return "".join(content[part] if i % 2 else part for i, part in enumerate(parts))


def _section(heading: str, songs: Sequence[tuple[str, Song]], numbers: Iterator[int]) -> str:
    title = f"<h2>{escape(heading)}</h2>" if heading else ""
    return f"<section>{title}{''.join(_figure(name, song, next(numbers)) for name, song in songs)}</section>"


def _figure(name: str, song: Song, number: int) -> str:
    midi = base64.b64encode(song.to_bytes()).decode()
    shown = escape(name)
    return (
        f'<figure data-clip="{number}"><figcaption><button type="button" aria-pressed="false">Play</button>'
        f"<b>{shown}</b><span>{song.bars} bars, {song.tempo:g} beats a minute</span>"
        f'<a download="{shown}.mid" href="data:audio/midi;base64,{midi}">MIDI file</a></figcaption>'
        f'<div class="roll" style="max-width:{song.steps / 2}rem" tabindex="0" role="slider" '
        f'aria-label="Position in {shown}" aria-valuemin="0" '
        f'aria-valuemax="{song.steps}" aria-valuenow="0">{roll_svg(song, name)}<i></i></div></figure>'
    )


def _clip(song: Song) -> dict[str, Any]:
    """What the synth needs: tempo changes, a program a channel, and notes as [start, end, channel, pitch, velocity]."""
    pitched = iter(PITCHED_CHANNELS * (len(song.instruments) // len(PITCHED_CHANNELS) + 1))
    channels = [DRUM_CHANNEL if player.is_drum else next(pitched) for player in song.instruments]
    programs = {channel: player.program for channel, player in zip(channels, song.instruments)}
    notes = song.notes
    columns = (notes.start, notes.end, notes.instrument, notes.pitch, notes.velocity)
    rows = [[start, end, channels[i], pitch, v] for start, end, i, pitch, v in zip(*(c.tolist() for c in columns))]
    return {"steps": song.steps, "tempos": song.tempos, "programs": programs, "notes": sorted(rows)}
