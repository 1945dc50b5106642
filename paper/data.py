"""The data sets of all models, from one folder of corpora; and data.md, which says what they hold.

    python paper/data.py CORPORA data
    python paper/data.py CORPORA data --only melody-16 trio-16 --workers 2

What is there already is kept. Validation and test hold music that people composed or played; what was assembled,
or written by a program, trains alone, and of it what is tied to a song that validates or tests is left out.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groups import group_of, write

from musicvae.files import replacing
from musicvae.music.dataset import Dataset, DatasetSettings, build_dataset
from musicvae.music.inspection import Bars

MELODIES = (
    "freedoom",
    "easyrpg",
    "cre_irish",
    "openscore_lieder",
    "openscore_quartets",
    "mutopia_pd",
    "mutopia_cc_by",
    "open_hymnal",
    "openewld_us_pd",
)
SYNTHETIC = ("trio_synth_hymn", "trio_synth_ewld_us_pd")
ASSEMBLED = ("trio_hymn_groove",)  # its drums are loops of grooves that are in groove already
ORIGIN = {"js_fakes": "machine-made", **dict.fromkeys(SYNTHETIC, "synthetic"), **dict.fromkeys(ASSEMBLED, "assembled")}
SPLITS = ("train", "validation", "test")
REPORT = Path(__file__).with_name("data.md")


@dataclass(frozen=True)
class Recipe:
    """One data set: its settings, the corpora that are split, and those that only train."""

    representation: str
    bars: int
    played: tuple[str, ...]
    train_only: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What decides which songs are alike: the tune (melody, trio) or the drummer (drums)."""
        return self.representation.removesuffix("-90")


RECIPES = {
    "melody-2": Recipe("melody", 2, MELODIES, ("js_fakes",)),
    "melody-90": Recipe("melody-90", 2, MELODIES, ("js_fakes",)),
    "melody-16": Recipe("melody", 16, MELODIES, ("js_fakes",)),
    "drums-2": Recipe("drums", 2, ("groove", "freedoom", "easyrpg"), SYNTHETIC),
    "drums-16": Recipe("drums", 16, ("groove", "freedoom", "easyrpg"), SYNTHETIC),
    "trio-16": Recipe("trio", 16, ("freedoom", "easyrpg"), (*ASSEMBLED, *SYNTHETIC)),
}


def recipe_of(representation: str, bars: int) -> str:
    """The name of the data set for models of this kind. Raises ValueError where there is none."""
    for name, recipe in RECIPES.items():
        if (recipe.representation, recipe.bars) == (representation, bars):
            return name
    raise ValueError(f"no recipe for {representation} of {bars} bars; there are {', '.join(RECIPES)}")


def build(name: str, corpora: Path, out: Path, workers: int) -> Dataset:
    """The data set of that name in the folder `out`, built unless it is there. ValueError names missing corpora."""
    recipe = RECIPES[name]
    if (out / name).exists():
        return check(name, Dataset(out / name))
    missing = [c for c in (*recipe.played, *recipe.train_only) if not (corpora / c).is_dir()]
    if missing:
        raise ValueError(f"{corpora}: lacks {', '.join(missing)}, without which {name} would have other splits")
    out.mkdir(parents=True, exist_ok=True)
    groups = out / f"groups-{recipe.kind}.csv"
    with replacing(groups) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        write(corpora, recipe.kind, file)
    with Bars() as progress:
        return build_dataset(
            [corpora / c for c in recipe.played],
            DatasetSettings(recipe.representation, recipe.bars),
            out / name,
            workers=workers,
            groups=groups,
            train_only=[corpora / c for c in recipe.train_only],
            progress=progress,
        )


def check(name: str, dataset: Dataset) -> Dataset:
    """The data set itself. ValueError if it was built from other corpora, or by other settings, than the recipe's."""
    recipe, report = RECIPES[name], dataset.report
    wanted = (recipe.representation, recipe.bars, {*recipe.played, *recipe.train_only})
    found = (report["settings"]["representation"], report["settings"]["bars"], set(report["folders"]))
    held_out = [c for c in recipe.train_only for split in SPLITS[1:] if report["folders"].get(c, {}).get(split)]
    if found != wanted or held_out:
        raise ValueError(f"{dataset.folder} was not built by this recipe. Move it away, and the same command builds it")
    return dataset


# --- data.md -----------------------------------------------------------------------------------------------------


def describe(datasets: dict[str, Dataset]) -> str:
    """What each data set holds, from its report, as Markdown."""
    lines = [
        "# The data sets",
        "",
        "Written by `python paper/data.py CORPORA data`, from the reports of the data sets; which corpora these are,",
        "and under which terms, is in `sources/`. A window is kept once; one that stands in train and in another split",
        "stays in train. Songs that share half of their 2-bar windows, or whose names say that they are one piece",
        "(`groups.py`), are one group, and a group is never parted. 4/4 only.",
        "",
        *overview(datasets),
    ]
    for name, dataset in datasets.items():
        lines += ["", f"## {name}", "", *section(name, dataset.report)]
    lines += ["", "## What a model that starts from another has seen", "", *seen(datasets)]
    return "\n".join(lines) + "\n"


def overview(datasets: dict[str, Dataset]) -> list[str]:
    rows = [["data set", "windows", "train", "validation", "test", "groups of the three", "songs of the three"]]
    for name, dataset in datasets.items():
        report = dataset.report
        splits = [report["splits"][split] for split in SPLITS]
        windows = [f"{s['windows']:,}" for s in splits]
        counts = [" / ".join(f"{s[what]:,}" for s in splits) for what in ("groups", "songs")]
        rows.append([name, f"{report['windows']['unique']:,}", *windows, *counts])
    return table(rows)


def section(name: str, report: dict[str, Any]) -> list[str]:
    files, windows, recipe = report["files"], report["windows"], RECIPES[name]
    unused = "; ".join(f"{r['files']:,} because {r['why']}" for r in report["rejected"].values()) or "none"
    onsets = ", ".join(f"{o:.2f}" for o in report["onsets_a_bar"])
    rows = [["corpus", "part", "files", "used", *SPLITS]]
    for corpus, entry in report["folders"].items():
        part = f"{ORIGIN[corpus]}: train only" if corpus in recipe.train_only else "composed or played: all splits"
        counts = [entry["files"], entry["used"], *(entry[split] for split in SPLITS)]
        rows.append([corpus, part, *(f"{count:,}" for count in counts)])
    return [
        f"* {files['read']:,} files read, {files['used']:,} used; not used: {unused}.",
        f"* {report['held_back']:,} songs that only train were left out, as their groups fell to validation or test.",
        f"* {windows['in_4_4']:,} windows in 4/4; {windows['after_silence_rule']:,} of them never silent for more than "
        f"a bar; {windows['unique_in_their_song']:,} different within their song; {windows['unique']:,} different from "
        f"all others ({windows['duplicates']:,} duplicates); {windows['left_other_splits_for_train']:,} left "
        "validation or test because train has them.",
        f"* onsets a bar (each stream): {onsets}; {report['off_grid']:.1%} of the notes were off the grid.",
        "",
        *table(rows),
    ]


def seen(datasets: dict[str, Dataset]) -> list[str]:
    """How much of each test split is of songs that trained another model, which matters to who starts from that."""
    rows = [["share of the test windows of", *(f"trained by {name}" for name in datasets)]]
    for name, dataset in datasets.items():
        kind = RECIPES[name].kind
        tested = songs(dataset, "test", kind)
        alike = [other if {kind, RECIPES[n].kind} != {"melody", "drums"} else None for n, other in datasets.items()]
        trained = [None if other is None else set(songs(other, "train", kind)) for other in alike]
        rows.append([name, *("" if t is None else f"{share(tested, t):.1%}" for t in trained)])
    return [
        "By song and by the groups of `groups.py`. A model that starts from the weights of another, or learns from its",
        "samples, has an advantage on songs that the other trained on: leave them out of its test, or say so.",
        "",
        *table(rows),
    ]


def songs(dataset: Dataset, split: str, kind: str) -> list[str]:
    """The group (else the file) of each window of a split."""
    names = dataset.rows(split, ["file"])["file"].combine_chunks().dictionary_encode()
    groups = [group_of(*file.split("/", 1), kind) or file for file in names.dictionary.to_pylist()]
    return [groups[i] for i in names.indices.to_pylist()]


def share(tested: list[str], trained: set[str]) -> float:
    return sum(song in trained for song in tested) / max(len(tested), 1)


def table(rows: list[list[str]]) -> list[str]:
    """Rows of cells, the first of them headings, as a table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path, help="folder with one folder of MIDI for each corpus")
    parser.add_argument("out", type=Path, help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="NAME")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", type=Path, default=REPORT, help="Markdown file to write")
    given = parser.parse_args(arguments)
    for name in given.only:
        dataset = build(name, given.corpora, given.out, given.workers)
        print(f"{dataset.folder}: {dataset.report['windows']['unique']:,} windows", flush=True)
    there = {name: check(name, Dataset(given.out / name)) for name in RECIPES if (given.out / name).exists()}
    with replacing(given.report) as temporary:
        temporary.write_text(describe(there), encoding="utf-8")
    print(f"{given.report}: written")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"data.py: {error}")
