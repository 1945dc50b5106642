"""What the commands share: their options, and the way from a file to a song; output.py has the way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

if TYPE_CHECKING:
    from musicvae.composer import Composer
    from musicvae.music.midi import Song

from tyro.conf import Positional, arg

Model = Annotated[
    Positional[str],
    arg(metavar="MODEL", help="A model in the box (see: musicvae models), a run folder, or owner/name on the hub."),
]
File = Annotated[Positional[Path], arg(metavar="FILE")]
Overwrite = Annotated[bool, arg(help="Write into a folder that holds files, replacing those of the same name.")]
Number = Annotated[int, arg(aliases=["-n"], help="How many.")]
Temperature = Annotated[float, arg(help="0 is the most likely music, 1 the model's own spread.")]
Seed = Annotated[int, arg(help="The same seed writes the same files.")]
Track = Annotated[  # Optional: for `int | None` tyro imports typeguard, which takes as long as NumPy
    Optional[int],  # noqa: UP045
    arg(help="Which track of the song, as numbered by inspect; by default the one that inspect marks."),
]
Bar = Annotated[int, arg(help="First bar to take, from 0.")]
Pad = Annotated[bool, arg(help="Fill a song that is shorter than the model's window with silence.")]
Device = Annotated[str, arg(help="cpu, cuda, or auto.")]
Json = Annotated[bool, arg(help="Print JSON.")]


@dataclass(frozen=True)
class WholeSong:
    """How a whole song goes through a model and back."""

    temperature: Temperature = 0.0
    seed: Seed = 0
    track: Track = None
    bar: Bar = 0
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
    """The song in a MIDI file. ValueError, with the file's name, where it cannot be read."""
    from musicvae.music.midi import Song

    try:
        return Song.read(file)
    except ValueError as error:  # no other command could show more of such a file
        raise ValueError(f"{file}: {error}") from None


@contextmanager
def about(file: Path) -> Iterator[None]:
    """Puts the file's name before the message of a ValueError, and after it the way to see what a song holds."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(f"{file}: "):
            raise
        if file.suffix == ".npz" or "musicvae inspect" in str(error):
            raise ValueError(f"{file}: {error}") from None
        raise ValueError(f"{file}: {error}. See the tracks with: musicvae inspect {file}") from None


def index(track: int | None) -> int | None:
    """Tracks are numbered from 1 for people and from 0 for the composer; None leaves the choice to it."""
    if track is not None and track < 1:
        raise ValueError(f"--track {track}; tracks are numbered from 1, see: musicvae inspect FILE")
    return None if track is None else track - 1


def through(playing: WholeSong) -> dict[str, Any]:
    """The options as `Composer.reconstruct` and `shift` take them. ValueError for a track that cannot be."""
    return {
        "temperature": playing.temperature,
        "seed": playing.seed,
        "instrument": index(playing.track),
        "bar": playing.bar,
        "pad": playing.pad,
    }


def label(composer: "Composer") -> str:
    """The model's name as it stands in the names of files."""
    return composer.name or "model"


def read_vectors(path: Path) -> Any:
    """Vectors (N, Z) in float32 from a .npz file: its array z, else mu. ValueError where the file has neither."""
    import zipfile
    import zlib

    import numpy as np

    if not zipfile.is_zipfile(path):
        found = "no such file" if not path.exists() else "it is no .npz file"
        raise ValueError(f"{path}: {found}. Write one with: musicvae encode")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "z" in arrays or "mu" in arrays:
                return np.asarray(arrays["z" if "z" in arrays else "mu"], np.float32)
            held = ", ".join(arrays) or "nothing"
    except (OSError, EOFError, ValueError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Write one with: musicvae encode") from None
    raise ValueError(f"{path}: holds {held}; needed is an array z or mu of shape (N, Z)")


def source_of(path: Path) -> str:
    """The model that wrote the vectors of a .npz file, as `encode` notes it; empty where the file does not say."""
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return str(arrays["model"]) if "model" in arrays else ""


def print_json(value: Any) -> None:
    """Prints a value as JSON; arrays become lists, and what JSON does not know its text."""
    import json

    def plain(value: Any) -> Any:
        return value.tolist() if hasattr(value, "tolist") else str(value)

    print(json.dumps(value, indent=1, ensure_ascii=False, default=plain))
