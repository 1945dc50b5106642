"""Attribute vectors: learning them, and bending songs with them (sections 2.1.2 and 5.5)."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

if TYPE_CHECKING:
    from musicvae.composer import Composer
    from musicvae.music.midi import Song

from tyro.conf import Positional, arg

from musicvae.commands.checks import check, check_song
from musicvae.commands.latent import Joined
from musicvae.commands.options import (
    Device,
    File,
    Json,
    Model,
    Playing,
    WholeSong,
    about,
    label,
    load,
    named,
    print_json,
    read_as,
    through,
)
from musicvae.commands.output import Files, Output, write

Vectors = Annotated[
    Optional[Path],  # noqa: UP045 (see Track)
    arg(metavar="FILE", help="Attribute vectors beside those of the model, as written by attribute learn."),
]

MAX_SKIPPED = 20  # named on screen


def learn(
    model: Model,
    dataset: Annotated[
        Positional[Path | None], arg(metavar="DATASET", help="All that can be measured, from its training windows.")
    ] = None,
    /,
    out: Annotated[
        Path | None, arg(metavar="FILE", help="Default: attributes.safetensors in the run folder. Other names stay.")
    ] = None,
    having: Annotated[
        Path | None, arg(name="with", metavar="FOLDER", help="Instead of DATASET: MIDI that has the attribute.")
    ] = None,
    lacking: Annotated[Path | None, arg(name="without", metavar="FOLDER", help="MIDI that lacks it.")] = None,
    name: Annotated[str | None, arg(help="Of an attribute learnt from two folders.")] = None,
    windows: Annotated[int | None, arg(help="At most so many to learn from, drawn by the seed.")] = 20_000,
    measured: Annotated[int, arg(help="At most so many to measure effects on; 0 leaves it out.")] = 512,
    seed: Annotated[int, arg(help="Of the draw of windows.")] = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Learn attribute vectors from a data set, or one of your own from two folders of MIDI."""
    path = learn_target(model, out)
    check(model, device, seed=seed)
    folders = [folder for folder in (dataset, having, lacking) if folder is not None and not folder.exists()]
    if folders:
        raise ValueError(f"{folders[0]}: no such file or folder")
    from musicvae.learn import learn_from_dataset, learn_from_folders, save_learned

    composer = load(model, device, encodes=True)
    if dataset is not None and not (having or lacking or name):
        learned = learn_from_dataset(composer, dataset, windows, measured, seed)
    elif dataset is None and having and lacking and name and having.resolve() != lacking.resolve():
        learned = learn_from_folders(composer, name, having, lacking, windows, measured, seed)
    else:
        raise ValueError("give either a DATASET, or --with FOLDER, --without another FOLDER and --name NAME")
    report = save_learned(path, composer, learned)
    if json:
        print_json(report)
        return
    show_report({**report, "attributes": {key: report["attributes"][key] for key in learned.lessons}})
    for skipped, why in list(learned.skipped.items())[:MAX_SKIPPED]:
        print(f"{skipped}: left out, {why}")
    if len(learned.skipped) > MAX_SKIPPED:
        print(f"and {len(learned.skipped) - MAX_SKIPPED} more left out")
    print(f"{path}: {len(learned.lessons)} attribute vectors of {composer.latent_size} numbers")


def show(model: Model, /, vectors: Vectors = None, json: Json = False) -> None:
    """List the attributes of a model, how far each moves the music, and what else it changes."""
    from musicvae.box import find_model
    from musicvae.model.vectors import ATTRIBUTES, read_report

    path = find_model(model) / ATTRIBUTES
    own, report = read_report(path), read_report(vectors or path)
    if not report:
        raise ValueError(
            f"{vectors or path}: nothing is known of such attributes. Learn them: musicvae attribute learn"
        )
    if own.get("columns") == report["columns"]:
        report = {**report, "attributes": own["attributes"] | report["attributes"]}
    print_json(report) if json else show_report(report)


def apply(
    model: Model,
    file: File,
    /,
    output: Output,
    playing: Playing,
    settings: Annotated[list[str], arg(name="set", metavar="NAME=AMOUNT", help="Such as note-density=+1.5.")],
    vectors: Vectors = None,
) -> None:
    """Bend a whole song; +1 is the way from the lowest quarter of real music to the highest."""
    amounts = parse_amounts(settings)
    check_bend(model, file, output, playing, vectors, amounts)
    composer = load(model, playing.device, encodes=True)
    variants = {"reconstructed": {}, "bent": amounts}
    songs = bend(composer, file, variants, vectors, playing)
    words = "-".join(f"{name}{amount:+g}" for name, amount in amounts.items())
    write({named(file, f"-{label(composer)}-{words}"): songs["bent"]}, output)


def swap(
    model: Model,
    file: File,
    /,
    output: Output,
    playing: Playing,
    source: Annotated[str, arg(name="from", metavar="NAME", help="The attribute to take away.")],
    target: Annotated[str, arg(name="to", metavar="NAME", help="The attribute to put in its place.")],
    amount: Annotated[float, arg(help="How much of both.")] = 1.0,
    vectors: Vectors = None,
) -> None:
    """Put one attribute in the place of another: less of one, more of the other (section 2.1.2)."""
    if source == target:
        raise ValueError(f"--from and --to are both {source!r}; swap two different attributes")
    check_bend(model, file, output, playing, vectors, {source: -amount, target: amount})
    composer = load(model, playing.device, encodes=True)
    variants = {"reconstructed": {}, "swapped": {source: -amount, target: amount}}
    songs = bend(composer, file, variants, vectors, playing)
    write({named(file, f"-{label(composer)}-{source}-to-{target}"): songs["swapped"]}, output)


def sweep(
    model: Model,
    file: File,
    /,
    output: Output,
    playing: Playing,
    attribute: Annotated[str, arg(metavar="NAME", help="See: musicvae attribute list.")],
    amounts: Annotated[tuple[float, ...], arg(help="One file each.")] = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5),
    joined: Joined = False,
    vectors: Vectors = None,
) -> None:
    """Bend a whole song by less and by more of one attribute, a file each (figure 6)."""
    variants = {f"{amount:+g}": {attribute: amount} for amount in amounts}
    if not amounts or len(variants) < len(amounts):
        raise ValueError(f"--amounts {' '.join(map(str, amounts))}; give one or more that differ in six digits")
    check_bend(model, file, output, playing, vectors, *variants.values())
    composer = load(model, playing.device, encodes=True)
    songs = bend(composer, file, variants, vectors, playing)
    digits = len(str(len(songs)))
    longest = f"-{0:0{digits}d}-{max(songs, key=len)}"
    base = named(file, f"-{label(composer)}-{attribute}{longest}").removesuffix(longest)
    files = {f"{base}-{i:0{digits}d}-{amount}": song for i, (amount, song) in enumerate(songs.items(), 1)}
    write(files, output, row=base, joined=joined, labels=list(songs))


def check_bend(
    model: str, file: Path, output: Files, playing: WholeSong, vectors: Path | None, *variants: dict[str, float]
) -> None:
    """Raises ValueError for what can be seen to be wrong without the model."""
    from musicvae.limits import checked_shift
    from musicvae.model.vectors import load_vectors

    for name, amount in (pair for amounts in variants for pair in amounts.items()):
        checked_shift(name, amount)
    check_song(model, file, output, playing)
    if vectors is not None:
        load_vectors(vectors)


def bend(
    composer: "Composer",
    file: Path,
    variants: dict[str, dict[str, float]],
    vectors: Path | None,
    playing: WholeSong,
) -> "dict[str, Song]":
    """The song under each name bent by its amounts, and lines that say what became of the attributes in question."""
    from musicvae.model.vectors import ATTRIBUTES, load_vectors
    from musicvae.music.cutting import paste

    song = read_as(composer, file, playing.melody, playing.drums, playing.track)
    known = composer.attributes() | (load_vectors(vectors, composer.latent_size) if vectors else {})
    done = {}
    for name, amounts in variants.items():
        composer.direction(amounts, known)  # a wrong name is no fault of the file
        with about(file):
            done[name] = composer.shift(song, amounts, vectors=known, **through(playing))
    path = vectors or (composer.folder / ATTRIBUTES if composer.folder else None)
    warn(path, variants.values())
    encoding = next(iter(done.values())).encoding
    print(f"{file}: {encoding.chosen}; {len(encoding.spans)} windows of {composer.bars} bars")
    songs = {name: result.song for name, result in done.items()}
    original = paste(encoding.tokens, encoding.spans, composer.representation, song.tempo)
    tell(composer, {"the song": original, **songs}, [a for amounts in variants.values() for a in amounts])
    return songs


def warn(path: Path | None, variants: Iterable[dict[str, float]]) -> None:
    """Prints which vectors hardly change what they are named for, and on stderr which amounts were never measured."""
    from musicvae.evaluation.attributes import WEAK, own_change
    from musicvae.model.vectors import read_report

    report = (read_report(path) if path else {}) or {"columns": [], "attributes": {}}
    given: dict[str, list[float]] = {}
    for name, amount in (pair for amounts in variants for pair in amounts.items()):
        given.setdefault(name, []).append(amount)
    for name, amounts in given.items():
        effect, change = report["attributes"].get(name, {}).get("effect"), own_change(report, name)
        far = [amount for amount in amounts if effect and abs(amount) > effect["amount"]]
        if effect is None:
            print(f"warning: what {name} does to music was not measured", file=sys.stderr)
        if far:
            words = f"{' and '.join(f'{amount:+g}' for amount in far)} of {name}: measured was {effect['amount']:+g}"
            print(f"warning: {words}; beyond it music may break", file=sys.stderr)
        if change is not None and change < WEAK:
            print(f"  {name} is weak in this model: +1 changes it by {change:+.2f} standard deviations of real music")


def tell(composer: "Composer", songs: "dict[str, Song]", names: list[str]) -> None:
    """Prints what each song measures in the attributes asked for, where they can be measured."""
    from musicvae.evaluation.attributes import own_column
    from musicvae.music.attributes import attribute_units, measure

    units = attribute_units(composer.representation)
    columns = [own_column(name, list(units)) for name in dict.fromkeys(names)]
    wanted = dict.fromkeys(list(units)[column] for column in columns if column is not None)
    for title, song in songs.items() if wanted else ():
        values = measure(composer.representation.to_tokens(song)[None], composer.representation)
        print(f"  {title:13}  " + ", ".join(f"{name} {values[name][0]:.2f} {units[name]}" for name in wanted))


def parse_amounts(settings: list[str]) -> dict[str, float]:
    """["note-density=+1.5"] -> {"note-density": 1.5}. Raises ValueError for anything else."""
    amounts: dict[str, float] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name in amounts:
            raise ValueError(f"--set {setting}: {name} has an amount already ({amounts[name]:+g}); give it one")
        try:
            amounts[name] = float(value)
        except ValueError:
            raise ValueError(f"--set {setting}; write NAME=AMOUNT, such as note-density=+1.5") from None
    if not amounts:
        raise ValueError("nothing to change; give --set NAME=AMOUNT, such as note-density=+1.5")
    return amounts


def learn_target(model: str, out: Path | None) -> Path:
    """Where learnt vectors go. ValueError for a model in the box, which is not the user's to change."""
    if out is not None:
        return out if out.suffix == ".safetensors" else out.with_name(out.name + ".safetensors")
    if not Path(model).is_dir():
        raise ValueError(f"{model} is no run folder; say where to write the vectors with --out FILE.safetensors")
    from musicvae.model.vectors import ATTRIBUTES

    return Path(model) / ATTRIBUTES


def show_report(report: dict[str, Any]) -> None:
    from rich.console import Console

    from musicvae.evaluation.attributes import attributes_table, without_effect

    console = Console()
    console.print(attributes_table(report))
    apart = without_effect(report)
    if apart:
        console.print("\nWithout an effect of their own that was measured:")
    for name, why in apart.items():
        console.print(f"  {name}: {why}", markup=False, highlight=False)
