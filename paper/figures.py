"""Figures 1, 2, 4 and 6-12 of the paper with our models, and a page to see and hear them.

    python paper/figures.py --data data --out results/figures
    python paper/figures.py --data data --models runs/melody-16 runs/trio-16 --only 6 12 --out results/figures

`--data` is the folder of the data sets, by name of their preset (data/melody-2, data/melody-16, ...): originals are
test windows, the first that fit in an order drawn by the seed; none was chosen by ear. `--models` are tried before
those in the box. A figure whose model or data is not there is named with the reason. Numbers are those of the paper's
online supplement, where figures 6 to 11 are about attribute vectors; the interpolation follows as 12.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from effects import draw_effects, draw_matrix
from gallery import Section, missing_section, write_page, write_section
from scene import MELODIES, Missing, Scene, attributes, bending
from schematic import draw_model

from musicvae.composer import Composer
from musicvae.evaluation.attributes import measure_effects
from musicvae.evaluation.interpolation import mixed_paths
from musicvae.model.vectors import ATTRIBUTES, read_report
from musicvae.music.attributes import C_MAJOR, measure
from musicvae.music.midi import STEPS_PER_BAR, Song, join
from musicvae.music.panels import VERMILION, Blocks, Panel, panels
from musicvae.music.picture import draw, draw_row, draw_sheet, ink
from musicvae.presets import preset

AMOUNTS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)  # figure 6
BETWEEN, EXTENDED = 6, 13  # figure 12: songs between the ends; songs of the extended interpolation, ends included
EFFECT_WINDOWS = 512


def average(scene: Scene) -> Section:
    composer = scene.composer(*MELODIES)
    a, b = scene.originals(composer, 2)
    songs = {"A": a, "average of A and B": composer.average([a, b]), "B": b}
    text = f"Two test windows, and between them what {composer.name} decodes from the average of their latent vectors."
    return Section("1", "latent averaging", text, {"": draw_sheet(list(songs.values()), list(songs), 1)}, songs)


def schematic(scene: Scene) -> Section:
    shown = {name: composer.model.config for name, composer in scene.known.items()}
    for name in ("melody-16", "trio-16"):
        if name not in shown:
            shown[f"{name} at the paper's size (not trained here)"] = preset(name).model("paper")
    text = (
        "The models as they are built, from the bottom up: input, encoder, latent vector, conductor, decoders, output."
    )
    return Section("2", "the model", text, {name: draw_model(config, name) for name, config in shown.items()})


def effects(scene: Scene) -> Section:
    composer = scene.composer(*MELODIES)
    vectors = attributes(composer)
    pictures = {}
    report = read_report(composer.folder / ATTRIBUTES) if composer.folder else {}
    if report:
        pictures["What +1 of each vector does to every attribute, in standard deviations"] = draw_matrix(report)
    text = f"Attribute vectors of {composer.name}, added and subtracted once."
    try:
        tokens, _ = scene.windows(composer)
    except Missing as why:
        if not pictures:
            raise
        return Section(
            "4", "attribute vectors", f"{text} The bars of adding and subtracting are missing: {why}.", pictures
        )
    some = tokens[np.random.default_rng(scene.seed).permutation(len(tokens))[:EFFECT_WINDOWS]]
    both = [measure_effects(composer, some, vectors, amount=amount, seed=scene.seed) for amount in (1.0, -1.0)]
    caption = f"Adding (above) and subtracting (below), mean over {len(some)} test windows, most likely tokens"
    return Section("4", "attribute vectors", text, {caption: draw_effects(*both), **pictures})


def density(scene: Scene) -> Section:
    composer, original, z, vector = bending(scene, "note-density", 1.5, 6)
    songs = played(composer, z + np.outer(AMOUNTS, vector), [f"{amount:+g}" if amount else "0" for amount in AMOUNTS])
    text = (
        f"One test window with {AMOUNTS[0]:g} to +{AMOUNTS[-1]:g} of the note-density vector of {composer.name} added; "
    )
    text += "most likely tokens."
    return Section("6", "note density by degrees", text, {"": sheet(songs)}, {"original": original, **songs})


def resampled(scene: Scene) -> Section:
    composer, _, z, vector = bending(scene, "note-density", 1.5, 6)
    one = z + AMOUNTS[-2] * vector
    tokens = composer.decode_tokens(np.repeat(one[None], 7, axis=0), 1.0, scene.seed)
    songs = {f"draw {i}": composer.representation.to_song(t) for i, t in enumerate(tokens, 1)}
    text = (
        f"The same latent vector seven times (note density {AMOUNTS[-2]:+g} of figure 6), at temperature 1: what "
        "differs is the draw of the tokens alone."
    )
    return Section("7", "one vector, several draws", text, {"": sheet(songs)}, songs)


def c_major(scene: Scene) -> Section:
    def outside(song: Song) -> np.ndarray:
        return ~np.isin(song.notes.pitch % 12, C_MAJOR)

    return pair(scene, "8", "c-major", "the C major scale", "Notes outside the scale are orange.", outside)


def interval(scene: Scene) -> Section:
    return pair(scene, "9", "average-interval", "average interval", "", None)


def sixteenths(scene: Scene) -> Section:
    return pair(scene, "10", "syncopation-16", "syncopation on sixteenths",
                "Syncopated notes are orange; the first two bars.", off_beat(2, 1), bars=2)  # fmt: skip


def eighths(scene: Scene) -> Section:
    return pair(scene, "11", "syncopation-8", "syncopation on eighths",
                "Syncopated notes are orange; the first four bars at most.", off_beat(4, 2), bars=4)  # fmt: skip


def interpolation(scene: Scene) -> Section:
    pictures: dict[str, Any] = {}
    songs: dict[str, Song] = {}
    for names in (("melody-2", "melody-90"), ("melody-16",)):
        try:
            composer = scene.composer(*names)
            drawn, heard = way(composer, scene.ends(composer), scene.seed)
        except Missing as why:
            missing = why
            continue
        pictures |= {f"{composer.name}: {caption}": figure for caption, figure in drawn.items()}
        songs |= {f"{composer.name}: {label}": song for label, song in heard.items()}
    if not pictures:
        raise missing
    text = (
        f"From one test window to another: {BETWEEN} songs between, the same ends mixed step by step in the data "
        f"space, and the way extended to {EXTENDED} steps. Most likely tokens."
    )
    return Section("12", "interpolation", text, pictures, songs)


def way(composer: Composer, ends: np.ndarray, seed: int) -> tuple[dict[str, Any], dict[str, Song]]:
    """The pictures of one interpolation by caption, and its sounds by label."""
    a, b = (composer.representation.to_song(tokens) for tokens in ends)
    points, fine = np.linspace(0, 1, BETWEEN + 2), np.linspace(0, 1, EXTENDED)
    latent = [a, *composer.interpolate(a, b, len(points))[1:-1], b]
    mixed = [composer.representation.to_song(t[0]) for t in mixed_paths(ends[:1], ends[1:], points, seed)]
    extended = composer.interpolate(a, b, EXTENDED)
    labels = ["A", *(f"{p:.2f}" for p in points[1:-1]), "B"]
    reconstructed = ["A rebuilt", *(f"{p:.2f}" for p in fine[1:-1]), "B rebuilt"]
    pictures = {
        "in the latent space": draw_row(latent, labels),
        "mixed in the data space": draw_row(mixed, labels),
        f"extended to {EXTENDED} steps, from the reconstruction of A to that of B": draw_row(extended, reconstructed),
    }
    songs = {"latent space": join(latent), "data space": join(mixed), f"{EXTENDED} steps": join(extended)}
    return pictures, songs


def trios(scene: Scene) -> Section:
    composer = scene.composer("trio-16", "trio-16-flat")
    songs = {f"sample {i}": song for i, song in enumerate(composer.sample(4, 0.5, scene.seed), 1)}
    text = f"The first four samples of {composer.name} at temperature 0.5, seed {scene.seed}: not chosen."
    return Section("", "trio samples", text, {name: draw(song) for name, song in songs.items()}, songs)


# --- what the figures share --------------------------------------------------------------------------------------


def played(composer: Composer, z: np.ndarray, labels: list[str]) -> dict[str, Song]:
    """Songs of the most likely tokens of each z (N, Z), by label."""
    return dict(zip(labels, composer.decode(z, 0.0)))


def pair(
    scene: Scene,
    number: str,
    name: str,
    title: str,
    remark: str,
    marked: Callable[[Song], np.ndarray] | None,
    bars: int | None = None,
) -> Section:
    """Figures 8 to 11: a window with an attribute subtracted, as it is, and added."""
    composer, original, z, vector = bending(scene, name, 3, 10)
    songs = played(composer, z + np.outer((-1, 0, 1), vector), ["subtracted", "reconstructed", "added"])
    values = [
        float(measure(composer.representation.to_tokens(song)[None], composer.representation)[name][0])
        for song in songs.values()
    ]
    text = (
        f"One test window with the vector {name} of {composer.name} subtracted (top) and added (bottom) once. {remark}"
    )
    text += f" Measured: {', '.join(f'{value:.2f}' for value in values)}."
    picture = sheet({label: beginning(song, bars) for label, song in songs.items()}, marked)
    return Section(number, title, text, {"": picture}, {"original": original, **songs})


def off_beat(grid: int, offset: int) -> Callable[[Song], np.ndarray]:
    """Marks notes `offset` steps after the grid with nothing on the steps just before, which are syncopated."""

    def marked(song: Song) -> np.ndarray:
        start = song.notes.start
        free = [~np.isin(start - back, start) for back in range(1, offset + 1)]
        return (start % grid == offset) & np.logical_and.reduce(free)

    return marked


def sheet(songs: dict[str, Song], marked: Callable[[Song], np.ndarray] | None = None):
    """Songs one below the other; notes that are marked are drawn over in another colour."""
    figure = draw_sheet(list(songs.values()), list(songs), columns=1)
    for axes, song in zip(figure.axes, songs.values()) if marked else ():
        chosen = marked(song)
        blocks = Blocks(*(column[chosen] for column in panels(song)[0].blocks))
        ink(axes, Panel("marked", VERMILION, False, blocks))
    return figure


def beginning(song: Song, bars: int | None) -> Song:
    """The first bars of a song of one instrument."""
    steps = min(song.steps, bars * STEPS_PER_BAR if bars else song.steps)
    here = song.notes.start < steps
    notes = song.notes._replace(end=np.minimum(song.notes.end, steps))
    piece = song.pieces[0]._replace(end=steps)
    return Song(type(notes)(*(column[here] for column in notes)), song.instruments, (piece,), song.tempos)


FIGURES: dict[str, tuple[str, Callable[[Scene], Section]]] = {
    "1": ("latent averaging", average),
    "2": ("the model", schematic),
    "4": ("attribute vectors", effects),
    "6": ("note density by degrees", density),
    "7": ("one vector, several draws", resampled),
    "8": ("the C major scale", c_major),
    "9": ("average interval", interval),
    "10": ("syncopation on sixteenths", sixteenths),
    "11": ("syncopation on eighths", eighths),
    "12": ("interpolation", interpolation),
    "trios": ("trio samples", trios),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--data", type=Path, help="folder of data sets, by preset: DATA/melody-2, DATA/melody-16")
    parser.add_argument("--models", nargs="*", default=[], help="run folders or names, before those in the box")
    parser.add_argument("--only", nargs="*", choices=list(FIGURES), default=list(FIGURES), help="figures to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=("png", "svg"), default="png")
    parser.add_argument("--sound", choices=("auto", "fluidsynth", "synth"), default="auto")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    scene = Scene(given.data, tuple(given.models), given.seed)
    sections, parts = [], []
    for number in given.only:
        title, figure = FIGURES[number]
        try:
            sections.append(figure(scene))
            parts.append(write_section(sections[-1], given.out, given.format, given.sound))
            made = sections[-1]
            print(f"{made.heading}: pictures {len(made.pictures)}, sounds {len(made.songs)}", flush=True)
        except Missing as why:
            sections.append(Section(number if number.isdigit() else "", title, str(why)))
            parts.append(missing_section(sections[-1]))
            print(f"{sections[-1].heading}: not drawn: {why}", flush=True)
    about = (
        "Roberts et al., A Hierarchical Latent Vector Model for Learning Long-Term Structure in Music, with our models."
    )
    print(f"{write_page(given.out, 'MusicVAE: figures to see and to hear', about, sections, parts)} written")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"figures.py: {error}")
