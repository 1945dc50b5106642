"""The latent space as an instrument: ways between songs, means of them, variations, and squares of four corners."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

if TYPE_CHECKING:
    from musicvae.composer import Composer, Phrase
    from musicvae.music.midi import Song

from tyro.conf import Positional, arg

from musicvae.commands.checks import check
from musicvae.commands.options import (
    Device,
    File,
    Model,
    Number,
    Pad,
    Seed,
    Temperature,
    about,
    bar_index,
    label,
    load,
    named,
    read_as,
    shortened,
)
from musicvae.commands.output import Files, Output, write

FileA = Annotated[Positional[Path], arg(metavar="A.mid")]
FileB = Annotated[Positional[Path], arg(metavar="B.mid")]
MelodyTracks = Annotated[
    tuple[str, ...],
    arg(
        metavar="TRACK",
        help="The track that is the melody of each song, or of all, by number or name; by default the one that "
        "inspect marks.",
    ),
]
DrumsTracks = Annotated[
    tuple[str, ...],
    arg(metavar="TRACK", help="The track that is the drums of each song, or of all; by default all of channel 10."),
]
Tracks = Annotated[
    tuple[str, ...], arg(metavar="TRACK", help="Another word for --melody, and in drum models for --drums.")
]
Bars = Annotated[
    tuple[int, ...],
    arg(help="Bar of each song, or of all, counted from 1, from which to take the first full window with a note."),
]
Linear = Annotated[bool, arg(help="Go in straight lines instead of turning (slerp): what lies between is duller.")]
Joined = Annotated[bool, arg(help="Write one more file that plays them in a row.")]


@dataclass(frozen=True)
class Windows:
    """Which window of each song is meant, and how what is found in the latent space is played."""

    temperature: Temperature = 0.0
    seed: Seed = 0
    melody: MelodyTracks = ()
    drums: DrumsTracks = ()
    track: Tracks = ()
    bar: Bars = (1,)
    pad: Pad = False
    device: Device = "cpu"


Playing = Annotated[Windows, arg(name="")]


def interpolate(
    model: Model,
    a: FileA,
    b: FileB,
    /,
    output: Output,
    playing: Playing,
    steps: Annotated[int, arg(help="How many files; the two ends count, and are reconstructions.")] = 7,
    linear: Linear = False,
    joined: Joined = False,
) -> None:
    """Go from one song to another, a window of the model at a time (section 5.4, figure 11)."""
    if steps < 2:
        raise ValueError(f"{steps} steps; an interpolation needs at least 2, as its ends count")
    check_phrases(model, (a, b), output, playing, steps)
    composer = load(model, playing.device, encodes=True)
    start, end = phrases(composer, (a, b), playing)
    songs = composer.interpolate(start, end, steps, linear=linear, temperature=playing.temperature, seed=playing.seed)
    name = f"{short(a)}-to-{short(b)}-{label(composer)}{'-linear' if linear else ''}"
    labels = [short(a), *(f"{i / (steps - 1):.2f}" for i in range(1, steps - 1)), short(b)]
    write(numbered(name, songs), output, row=name, joined=joined, labels=labels)


def average(
    model: Model,
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="A.mid B.mid...")],
    /,
    output: Output,
    playing: Playing,
    weights: Annotated[tuple[float, ...], arg(help="How much of each song; by default as much of all.")] = (),
) -> None:
    """Write what lies between several songs: one window, by weights if given."""
    if len(files) < 2:
        raise ValueError("an average needs at least two MIDI files")
    if weights and len(weights) != len(files):
        raise ValueError(f"{len(weights)} weights for {len(files)} files; give one for each, or none")
    if weights and not (min(weights) >= 0 and 0 < sum(weights) < float("inf")):
        raise ValueError(f"weights {list(weights)}; they must be 0 or more, and not all 0")
    check_phrases(model, files, output, playing)
    composer = load(model, playing.device, encodes=True)
    places = phrases(composer, files, playing)
    song = composer.average(places, weights or None, playing.temperature, playing.seed)
    write({f"average-of-{len(files)}-{label(composer)}": song}, output)


def vary(
    model: Model,
    file: File,
    /,
    output: Output,
    playing: Playing,
    number: Number = 8,
    amount: Annotated[float, arg(help="From 0, the song itself, to 1, anything.")] = 0.5,
    joined: Joined = False,
) -> None:
    """Write variations of a song: some way from its vector towards others drawn at random."""
    check_phrases(model, (file,), output, playing, number, amount)
    composer = load(model, playing.device, encodes=True)
    place = phrases(composer, (file,), playing)[0]
    songs = composer.vary(place, number, amount, playing.temperature, playing.seed)
    different = len({song.to_bytes() for song in songs})
    if different < number:
        print(f"only {different} of {number} differ; for more, an --amount above {amount:g} or a --temperature above 0")
    name = named(file, f"-{label(composer)}-varied{amount:g}-seed{playing.seed}")
    write(numbered(name, songs), output, row=name, joined=joined, labels=[str(i + 1) for i in range(number)])


def grid(
    model: Model,
    a: FileA,
    b: FileB,
    c: Annotated[Positional[Path], arg(metavar="C.mid")],
    d: Annotated[Positional[Path], arg(metavar="D.mid")],
    /,
    output: Output,
    playing: Playing,
    size: Annotated[int, arg(help="Files a side; the corners count, and are reconstructions.")] = 5,
    linear: Linear = False,
    joined: Joined = False,
) -> None:
    """Fill a square between four songs: A and B are the corners above, C and D those below."""
    if size < 2:
        raise ValueError(f"a grid of size {size}; it needs at least 2, as its corners count")
    check_phrases(model, (a, b, c, d), output, playing, size * size)
    composer = load(model, playing.device, encodes=True)
    corners = phrases(composer, (a, b, c, d), playing)
    rows = composer.grid(corners, size, linear=linear, temperature=playing.temperature, seed=playing.seed)
    base = f"grid-{label(composer)}{'-linear' if linear else ''}"
    digits = len(str(size))
    songs = {
        f"{base}-row{r:0{digits}d}-column{c:0{digits}d}": song
        for r, row in enumerate(rows, 1)
        for c, song in enumerate(row, 1)
    }
    places = [f"{r}, {c}" for r in range(1, size + 1) for c in range(1, size + 1)]
    write(songs, output, row=base, joined=joined, columns=size, labels=places)


T = TypeVar("T")


def check_phrases(
    model: str, files: tuple[Path, ...], output: Files, playing: Windows, number: int = 1, variation: float = 0.0
) -> None:
    """Raises ValueError for what can be seen to be wrong without the model."""
    for option in ("melody", "drums", "track", "bar"):
        one_each(getattr(playing, option), len(files), f"--{option}")
    given = {"temperature": playing.temperature, "seed": playing.seed, "number": number, "variation": variation}
    check(model, playing.device, output, files, playing.bar, **given)


def phrases(composer: "Composer", files: tuple[Path, ...], playing: Windows) -> "list[Phrase]":
    """The first full window of each file from its --bar on, and a line about each: which track, which bars."""
    found = []
    options = ("melody", "drums", "track")
    named = zip(*(one_each(getattr(playing, option), len(files), f"--{option}") for option in options))
    for file, tracks, bar in zip(files, named, one_each(playing.bar, len(files), "--bar")):
        song = read_as(composer, file, *tracks)
        with about(file):
            phrase = composer.phrase(song, bar=bar_index(bar or 1), pad=playing.pad)
        first, last = phrase.span.bar + 1, phrase.span.bar + phrase.span.bars
        rest = f" of {song.bars}; others with --bar" if song.bars > phrase.span.bars else ""
        print(f"{file}: {phrase.chosen}; bars {first} to {last}{rest}")
        found.append(phrase)
    return found


def one_each(values: tuple[T, ...], files: int, option: str) -> list[T | None]:
    """The value of an option for each file: its own, that of all, or none."""
    if len(values) not in (0, 1, files):
        raise ValueError(f"{option} has {len(values)} values for {files} files; give one for each, or one for all")
    return list(values) if len(values) == files else [values[0] if values else None] * files


def short(file: Path) -> str:
    """The file's name without its ending, in so few bytes that two fit into the name of a file."""
    return shortened(named(file, ""), 80)


def numbered(name: str, songs: "list[Song]") -> "dict[str, Song]":
    """The songs by file name, numbered from 1."""
    digits = len(str(len(songs)))
    return {f"{name}-{i:0{digits}d}": song for i, song in enumerate(songs, 1)}
