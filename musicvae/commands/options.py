"""What the commands share: their options, and the way from a file to a song; output.py has the way back."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Optional

if TYPE_CHECKING:
    from musicvae.composer import Composer
    from musicvae.music.midi import Song
    from musicvae.music.roles import Roles

from tyro.conf import Positional, arg

Model = Annotated[
    Positional[str],
    arg(metavar="MODEL", help="A model in the box (see: musicvae models), a run folder, or owner/name on the hub."),
]
File = Annotated[Positional[Path], arg(metavar="FILE", help="A MIDI file; - reads standard input.")]
Overwrite = Annotated[bool, arg(help="Write into a folder that holds files, replacing those of the same name.")]
Number = Annotated[int, arg(aliases=["-n"], help="How many.")]
Temperature = Annotated[float, arg(help="0 is the most likely music, 1 the model's own spread.")]
Seed = Annotated[int, arg(help="The same seed writes the same files.")]
MelodyTrack = Annotated[  # Optional: for `str | None` tyro imports typeguard, which takes as long as NumPy
    Optional[str],  # noqa: UP045
    arg(
        metavar="TRACK", help="The track that is the melody, by number or name; by default the one that inspect marks."
    ),
]
DrumsTrack = Annotated[
    str | None,
    arg(metavar="TRACK", help="The track that is the drums, by number or name; by default all of channel 10."),
]
Track = Annotated[str | None, arg(metavar="TRACK", help="Another word for --melody, and in drum models for --drums.")]
Bar = Annotated[int, arg(help="First bar to take, counted from 1.")]
Pad = Annotated[bool, arg(help="Fill a song that is shorter than the model's window with silence.")]
Device = Annotated[str, arg(help="cpu, cuda, or auto.")]
Json = Annotated[bool, arg(help="Print JSON.")]

STANDARD_INPUT = Path("-")
MOST_BYTES = 255 - len("..overview.partial.mid")  # of a name that is written, with what is put around it


@dataclass(frozen=True)
class WholeSong:
    """How a whole song goes through a model and back."""

    temperature: Temperature = 0.0
    seed: Seed = 0
    melody: MelodyTrack = None
    drums: DrumsTrack = None
    track: Track = None
    bar: Bar = 1
    pad: Pad = False
    device: Device = "cpu"


Playing = Annotated[WholeSong, arg(name="")]


def load(model: str, device: str, encodes: bool = False) -> "Composer":
    """The model of that name in the box, or of that run folder. ValueError where there is none.

    encodes: ValueError also for a model that cannot encode, before any file is read.
    """
    from musicvae.composer import load as load_composer

    composer = load_composer(model, device)
    if encodes:
        composer.check_encodes()
    return composer


def read(file: Path) -> "Song":
    """The song in a MIDI file, or in standard input. ValueError, with the file's name, where it cannot be read."""
    from musicvae.music.midi import Song

    try:
        return Song.read(sys.stdin.buffer if file == STANDARD_INPUT else file)
    except ValueError as error:  # no other command could show more of such a file
        raise ValueError(f"{file}: {error}".replace(f"({file}: ", "(")) from None


def named(file: Path, rest: str) -> str:
    """The name of an output file: that of the song it comes from, cut where it would be too long, and the rest."""
    stem = "song" if file == STANDARD_INPUT else file.stem
    room = MOST_BYTES - len(os.fsencode(rest))
    return stem + rest if len(os.fsencode(stem)) <= room else shortened(stem, room) + rest


def shortened(name: str, size: int) -> str:
    """So much of a name as takes at most so many bytes, without those that are no text."""
    return name.encode(errors="surrogateescape")[: max(size, 0)].decode(errors="ignore")


@contextmanager
def about(file: Path) -> Iterator[None]:
    """Puts the file's name before the message of a ValueError, and after it the way to see what a song holds."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(f"{file}: "):
            raise
        from musicvae.shell import command

        if file.suffix == ".npz" or "musicvae inspect" in str(error):
            raise ValueError(f"{file}: {error}") from None
        raise ValueError(f"{file}: {error}. See the tracks with: {command('inspect', file)}") from None


def read_as(
    composer: "Composer", file: Path, melody: str | None = None, drums: str | None = None, track: str | None = None
) -> "Song":
    """The song in a file, with the tracks named as its melody and drums. ValueError, with the file's name."""
    from musicvae.music.roles import with_roles

    song = read(file)
    with about(file):
        return with_roles(song, composer.representation, roles(melody, drums, track, composer.representation.name))


def roles(melody: str | None, drums: str | None, track: str | None, kind: str = "melody") -> "Roles":
    """The options --melody and --drums, and --track for one of them. ValueError where both words are used."""
    from musicvae.music.roles import Roles

    if track is not None and (drums if kind == "drums" else melody) is not None:
        raise ValueError(f"--track is another word for --{'drums' if kind == 'drums' else 'melody'}; give one of them")
    melody, drums = (melody, drums or track) if kind == "drums" else (melody or track, drums)
    return Roles(*(() if given is None else (given,) for given in (melody, drums)))


def bar_index(bar: int) -> int:
    """Bars are counted from 1 for people and from 0 for the composer. ValueError for a bar before the first."""
    if bar < 1:
        raise ValueError(f"--bar {bar}; bars are counted from 1")
    return bar - 1


def through(playing: WholeSong) -> dict[str, Any]:
    """The options as `Composer.reconstruct` and `shift` take them."""
    return {
        "temperature": playing.temperature,
        "seed": playing.seed,
        "bar": bar_index(playing.bar),
        "pad": playing.pad,
    }


def label(composer: "Composer") -> str:
    """The model's name as it stands in the names of files."""
    return composer.name or "model"


class Vectors(NamedTuple):
    """What a .npz file of vectors holds: z (N, Z) in float32, and the model that wrote it, if `encode` did."""

    z: Any
    model: str


def read_vectors(path: Path) -> Vectors:
    """The vectors of a .npz file: its array z, else mu. ValueError where it has neither, or not of numbers (N, Z)."""
    import zipfile

    import numpy as np

    if not zipfile.is_zipfile(path):
        found = "no such file" if not path.exists() else "it is no .npz file"
        raise ValueError(f"{path}: {found}. Write one with: musicvae encode")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, held = [name for name in ("z", "mu") if name in arrays], ", ".join(arrays) or "nothing"
            z = np.asarray(arrays[names[0]]) if names else np.zeros(0)
            model = arrays["model"] if "model" in arrays else np.array("")
    except Exception as error:  # a damaged archive raises many kinds
        raise ValueError(f"{path}: cannot be read ({error}). Write one with: musicvae encode") from None
    if z.ndim != 2 or z.dtype.kind not in "fiu":
        found = f"{names[0]} of shape {z.shape} and type {z.dtype}" if names else held
        raise ValueError(f"{path}: holds {found}; needed is an array z or mu of numbers of shape (N, Z)")
    with np.errstate(over="ignore"):  # infinity is refused where vectors are decoded
        return Vectors(z.astype(np.float32), str(model) if model.shape == () and model.dtype.kind == "U" else "")


def print_json(value: Any) -> None:
    """Prints a value as JSON; arrays become lists, and what JSON does not know its text."""
    import json

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(value, indent=1, ensure_ascii=not unicode, default=plain))
