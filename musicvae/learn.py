"""Attribute vectors from windows, or from two folders of MIDI: what `musicvae attribute learn` does (section 5.5)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from musicvae.composer import Composer
from musicvae.evaluation.attributes import effect_records, measure_effects, own_column
from musicvae.evaluation.command import fitting_dataset
from musicvae.evaluation.reconstruction import draw_windows
from musicvae.files import replacing
from musicvae.model.latent import attribute_vector
from musicvae.model.vectors import FORMAT, load_vectors, read_report, report_path, save_vectors
from musicvae.music.attributes import attribute_units, measure
from musicvae.music.midi import STEPS_PER_BAR, Song
from musicvae.music.reasons import MidiError
from musicvae.music.representation import Representation
from musicvae.music.sources import list_sources, read_sources
from musicvae.music.windows import TooManyWindows, find_windows

SCALE = "An amount of 1 adds the mean vector of one group less that of the other"
CONTRARY = -0.1  # standard deviations of its own attribute; a vector that does less than this is not learnt
LEAST_WINDOWS = 10  # in a group; the mean of fewer says more about them than about the attribute
BUSY = (64 / 16, 180 / 16)  # notes a bar: the paper's sparse and dense windows of 16 bars, fewer than and more than


@dataclass(frozen=True)
class Lesson:
    """An attribute vector (Z,), and from which two groups of windows it was learnt."""

    vector: np.ndarray
    how: str
    lacking: str  # where the bound of the group lies: "≤ 3"
    having: str
    unit: str
    lacking_windows: int
    having_windows: int


class Learned(NamedTuple):
    lessons: dict[str, Lesson]
    effects: dict[str, dict[str, Any]]  # `effect_records`, empty if nothing was measured
    skipped: dict[str, str]  # attributes without a vector, or files without a window, and why


class Groups(NamedTuple):
    """Which windows lack an attribute and which have it, (N,) booleans, and in words where the bounds lie."""

    lacking: np.ndarray
    having: np.ndarray
    lacking_words: str
    having_words: str


def learn_from_dataset(
    composer: Composer, folder: Path, windows: int | None = None, measured: int = 512, seed: int = 0
) -> Learned:
    """Every attribute that can be measured, from so many training windows; effects on so many of validation.

    Without validation windows the effects are those on training windows. A vector that does the contrary of its name
    is left out. Raises ValueError for a data set that is not of the model's kind.
    """
    dataset = fitting_dataset(composer, folder)
    train, validation = dataset.tokens("train"), dataset.tokens("validation")
    tokens = np.asarray(train[draw_windows(len(train), windows, seed)], np.int64)
    mu, values = composer.encode_tokens(tokens).mu, measure(tokens, composer.representation)
    units = attribute_units(composer.representation)
    lessons, skipped = {}, {}
    for name, groups, how in _all_groups(values, units):
        counts = int(groups.lacking.sum()), int(groups.having.sum())
        if min(counts) < LEAST_WINDOWS:
            words = f"{counts[0]} {groups.lacking_words}, {counts[1]} {groups.having_words}"
            skipped[name] = f"too few windows ({words})"
            continue
        vector = attribute_vector(mu[groups.having], mu[groups.lacking])
        unit = units[name.replace("busy", "note-density")]
        lessons[name] = Lesson(vector, how, groups.lacking_words, groups.having_words, unit, *counts)
    others = validation if len(validation) else train
    chosen = others[draw_windows(len(others), measured, seed)] if measured else others[:0]
    effects = _effects(composer, lessons, np.asarray(chosen, np.int64), tokens)
    columns = list(units)
    for name, effect in effects.items():
        own = own_column(name, columns)
        moved = None if own is None else effect["change"][own]
        if moved is not None and moved < CONTRARY:
            skipped[name] = f"more of its vector is less of it ({moved:+.2f} standard deviations)"
    kept = lessons.keys() - skipped.keys()
    return Learned(
        {name: lesson for name, lesson in lessons.items() if name in kept},
        {name: effect for name, effect in effects.items() if name in kept},
        skipped,
    )


def learn_from_folders(
    composer: Composer,
    name: str,
    having: Path,
    lacking: Path,
    windows: int | None = None,
    measured: int = 512,
    seed: int = 0,
) -> Learned:
    """One attribute from two folders of MIDI, or archives of it: what the music of the first has and the second lacks.

    Every different window counts once. Effects are measured on windows of the second folder. Raises ValueError for a
    folder with too few windows.
    """
    tokens, skipped = dict[Path, np.ndarray](), dict[str, str]()
    for folder in (having, lacking):
        found, problems = folder_windows(folder, composer.representation, composer.bars)
        skipped |= {f"{folder}: {file}": why for file, why in problems.items()}
        if len(found) < LEAST_WINDOWS:
            kind = f"{composer.representation.name} windows of {composer.bars} bars"
            raise ValueError(f"{folder}: {len(found)} {kind}; at least {LEAST_WINDOWS} are needed")
        tokens[folder] = found[draw_windows(len(found), windows, seed)]
    mu = {folder: composer.encode_tokens(t).mu for folder, t in tokens.items()}
    vector, counts = attribute_vector(mu[having], mu[lacking]), (len(mu[lacking]), len(mu[having]))
    words = f"music of {lacking.resolve().name}", f"music of {having.resolve().name}"
    lessons = {name: Lesson(vector, "folders", *words, "", *counts)}
    chosen = tokens[lacking][draw_windows(counts[0], measured, seed)] if measured else tokens[lacking][:0]
    return Learned(lessons, _effects(composer, lessons, chosen, np.concatenate(list(tokens.values()))), skipped)


class FolderWindows(NamedTuple):
    tokens: np.ndarray  # (N, T, streams), all different
    problems: dict[str, str]  # files that gave none, and why


def folder_windows(folder: Path, representation: Representation, bars: int) -> FolderWindows:
    """All windows of the MIDI below a folder, also in archives."""
    sources = list_sources([folder])
    parts, problems = [np.zeros((0, bars * STEPS_PER_BAR, len(representation.vocab_sizes)), np.int64)], {}
    for source, data in zip(sources, read_sources(sources)):
        try:
            if isinstance(data, MidiError):
                raise data
            parts.append(find_windows([Song.read(data or b"")], representation, bars).tokens.astype(np.int64))
            if not len(parts[-1]):
                problems[source.name] = f"no {representation.name} window of {bars} bars"
        except (MidiError, TooManyWindows) as error:
            problems[source.name] = str(error)
    return FolderWindows(np.unique(np.concatenate(parts), axis=0), problems)


def quartiles(values: np.ndarray) -> Groups:
    """values (N,), NaN where they have no meaning -> the least and the greatest quarter of the windows, ties included.

    Where more than half of them are equal, those make one group, and the larger side of the rest the other.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        nobody = np.zeros(len(values), bool)
        return Groups(nobody, nobody, "any", "any")
    low, high = np.quantile(known, [0.25, 0.75], method="nearest")
    if low < high:
        return Groups(values <= low, values >= high, f"≤ {low:.3g}", f"≥ {high:.3g}")
    below, above = values < low, values > high
    if above.sum() >= below.sum():
        return Groups(values == low, above, f"= {low:.3g}", f"> {low:.3g}")
    return Groups(below, values == low, f"< {low:.3g}", f"= {low:.3g}")


def save_learned(path: Path, composer: Composer, learned: Learned) -> dict[str, Any]:
    """Adds the vectors to a file, and what is known of them to the JSON beside it. Gives the JSON.

    Other names stay, but for those that were found to have no vector, and vectors of another latent size: they were
    learnt of another model.
    """
    before, report = load_vectors(path) if path.exists() else {}, read_report(path) if path.exists() else {}
    here = {n for n, v in before.items() if len(v) == composer.latent_size} - learned.skipped.keys()
    columns = list(attribute_units(composer.representation))
    kept = report.get("attributes", {}) if report.get("columns") == columns else {}
    before, kept = ({n: x for n, x in known.items() if n in here} for known in (before, kept))
    new = {
        name: {key: value for key, value in vars(lesson).items() if key != "vector"}
        | {"length": round(float(np.linalg.norm(lesson.vector)), 4), "effect": learned.effects.get(name)}
        for name, lesson in learned.lessons.items()
    }
    save_vectors(path, before | {name: lesson.vector for name, lesson in learned.lessons.items()})
    report = {"format": FORMAT, "model": composer.name, "scale": SCALE, "columns": columns, "attributes": kept | new}
    with replacing(report_path(path)) as temporary:
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _all_groups(values: dict[str, np.ndarray], units: dict[str, str]) -> list[tuple[str, Groups, str]]:
    """Quartiles of every attribute, and beside every note density the paper's own pair of extremes."""
    found = [(name, quartiles(values[name]), "quartiles") for name in units]
    sparse, dense = BUSY
    for name in (name for name in units if name.endswith("note-density")):
        groups = Groups(
            values[name] < sparse,
            values[name] > dense,
            f"< {sparse:g}",
            f"> {dense:g}",
        )
        found.append((name.replace("note-density", "busy"), groups, "fewer than 64, more than 180 notes in 16 bars"))
    return found


def _effects(
    composer: Composer, lessons: dict[str, Lesson], tokens: np.ndarray, reference: np.ndarray
) -> dict[str, dict[str, Any]]:
    if not len(tokens) or not lessons:
        return {}
    vectors = {name: lesson.vector for name, lesson in lessons.items()}
    return effect_records(measure_effects(composer, tokens, vectors, reference=reference))
