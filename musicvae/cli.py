"""The command line: one function a command. What is heavy is imported by the command that needs it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from musicvae.composer import Composer
    from musicvae.music.midi import Song

import tyro
from tyro.conf import Positional, arg

import musicvae

Model = Annotated[
    Positional[str], arg(metavar="MODEL", help="A model in the box (see: musicvae models), or a run folder.")
]
File = Annotated[Positional[Path], arg(metavar="FILE")]
Out = Annotated[Path, arg(metavar="DIR", help="Folder to write to; must be new or empty.")]
Overwrite = Annotated[bool, arg(help="Write into a folder that holds files, replacing those of the same name.")]
Number = Annotated[int, arg(aliases=["-n"], help="How many.")]
Temperature = Annotated[float, arg(help="0 is the most likely music, 1 the model's own spread.")]
Seed = Annotated[int, arg(help="The same seed writes the same files.")]
Track = Annotated[
    int | None, arg(help="Which track of the song, as numbered by inspect; by default the one with most notes.")
]
Bar = Annotated[int, arg(help="First bar to take, from 0.")]
Pad = Annotated[bool, arg(help="Fill a song that is shorter than the model's window with silence.")]
Device = Annotated[str, arg(help="cpu, cuda, or auto.")]
Json = Annotated[bool, arg(help="Print JSON.")]


def sample(
    model: Model,
    /,
    out: Out,
    number: Number = 8,
    temperature: Temperature = 0.5,
    seed: Seed = 0,
    tempo: Annotated[float, arg(help="Beats a minute.")] = 120.0,
    overwrite: Overwrite = False,
    device: Device = "cpu",
) -> None:
    """Write new music: MIDI files of one window each, from vectors drawn at random."""
    composer = _load(model, device)
    songs = composer.sample(number, temperature, seed, tempo)
    _write(
        {f"{_label(composer)}-seed{seed}-{i:0{len(str(number))}d}": song for i, song in enumerate(songs, 1)},
        out,
        overwrite,
    )


def reconstruct(
    model: Model,
    file: File,
    /,
    out: Out,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    track: Track = None,
    bar: Bar = 0,
    pad: Pad = False,
    overwrite: Overwrite = False,
    device: Device = "cpu",
) -> None:
    """Send a song through the latent space and back: what does the model keep of it?"""
    composer, song = _load(model, device), _read(file)
    with _about(file):
        result = composer.reconstruct(song, temperature, seed, instrument=_index(track), bar=bar, pad=pad)
    windows = len(result.encoding.spans)
    cut = f"{windows} windows of {composer.bars} bars"
    print(f"{file}: {result.encoding.chosen}; {cut}; {result.accuracy:.1%} of the steps came back")
    _write({f"{file.stem}-{_label(composer)}": result.song}, out, overwrite)


def encode(
    model: Model,
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...")],
    /,
    out: Annotated[Path, arg(metavar="FILE.npz", help="File to write: arrays mu, sigma (windows, Z), source, bar.")],
    track: Track = None,
    bar: Bar = 0,
    pad: Pad = False,
    overwrite: Annotated[bool, arg(help="Replace the file if it exists.")] = False,
    device: Device = "cpu",
) -> None:
    """Turn songs into vectors: mu and sigma of every window, in a NumPy file."""
    import numpy as np

    if not files:
        raise ValueError("no file to encode; name one or more MIDI files")
    out = out if out.suffix == ".npz" else out.with_name(out.name + ".npz")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists already. Give another --out, or --overwrite to replace it")
    composer = _load(model, device)
    parts = []
    for file in files:
        with _about(file):
            parts.append(composer.encode(_read(file), instrument=_index(track), bar=bar, pad=pad))
        print(f"{file}: {parts[-1].chosen}; {len(parts[-1].spans)} windows of {composer.bars} bars")
    arrays: dict[str, Any] = {
        "mu": np.concatenate([p.posterior.mu for p in parts]),
        "sigma": np.concatenate([p.posterior.sigma for p in parts]),
        "source": np.array([str(f) for f, p in zip(files, parts) for _ in p.spans]),
        "bar": np.array([s.bar for p in parts for s in p.spans]),
        "model": np.array(composer.name),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.partial")
    try:
        with temporary.open("wb") as handle:
            np.savez(handle, **arrays)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{out}: {len(arrays['mu'])} vectors of {composer.latent_size} numbers")


def decode(
    model: Model,
    vectors: Annotated[Positional[Path], arg(metavar="Z.npz", help="As written by encode, or with an array z (N, Z).")],
    /,
    out: Out,
    number: Annotated[
        int, arg(aliases=["-n"], help="How many times each vector is played (figure 8 of the paper).")
    ] = 1,
    temperature: Temperature = 0.5,
    seed: Seed = 0,
    tempo: Annotated[float, arg(help="Beats a minute.")] = 120.0,
    overwrite: Overwrite = False,
    device: Device = "cpu",
) -> None:
    """Turn vectors back into music, each of them as often as asked."""
    import numpy as np

    if number < 1:
        raise ValueError(f"-n {number}; it must be at least 1")
    composer, z = _load(model, device), _read_vectors(vectors)
    with _about(vectors):
        songs = composer.decode(np.repeat(z, number, axis=0), temperature, seed, tempo)
    names = [f"{_label(composer)}-z{i:03d}-seed{seed}-{k}" for i in range(1, len(z) + 1) for k in range(1, number + 1)]
    _write(dict(zip(names, songs)), out, overwrite)


def inspect(
    file: File,
    /,
    track: Track = None,
    bar: Bar = 0,
    bars: Annotated[int, arg(help="How many bars to draw.")] = 4,
    json: Json = False,
) -> None:
    """Show what each track of a MIDI file would give, what stops it, and a piano roll."""
    from musicvae.music.inspection import inspect_song, print_inspection

    song = _read(file)
    found = inspect_song(song)
    if json:
        _print_json({"file": str(file), **found})
    else:
        with _about(file):
            print_inspection(song, found, track, bar, bars)


def build(
    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER...")],
    /,
    representation: Literal["melody", "melody-90", "drums", "trio"],
    out: Annotated[Path, arg(metavar="DIR", help="The data set to make.")],
    bars: Annotated[Literal[2, 16], arg(help="Bars of a window.")] = 2,
    workers: Annotated[int, arg(help="Processes; 0 is one for each core.")] = 0,
    groups: Annotated[Path | None, arg(help="CSV with columns file and group: files that must not be parted.")] = None,
    train_only: Annotated[tuple[Path, ...], arg(help="Folders whose music never validates or tests.")] = (),
    drum_map: Annotated[Literal["current", "2018"], arg(help="Which pitches make the nine drum classes.")] = "current",
    overwrite: Annotated[bool, arg(help="Replace a data set of that name.")] = False,
) -> None:
    """Turn folders of MIDI (and archives of it) into unique windows, split into train, validation and test.

    The same command goes on where it was interrupted, with the same result.
    """
    import os

    from musicvae.music.dataset import DatasetSettings, build_dataset
    from musicvae.music.inspection import Bars, print_report

    if not folders:
        raise ValueError("no folder given; name one or more folders of MIDI files")
    settings = DatasetSettings(representation, bars, drum_map)
    with Bars() as progress:
        dataset = build_dataset(
            list(folders),
            settings,
            out,
            workers=workers or os.cpu_count() or 1,
            groups=groups,
            train_only=list(train_only),
            overwrite=overwrite,
            progress=progress,
        )
    print_report(dataset.report)
    kind = representation.removesuffix("-90")
    print(f"\n{out}: ready. Train with: musicvae train {kind}-{bars} {out} --out RUN")


def info(dataset: Annotated[Positional[Path], arg(metavar="DIR")], /, json: Json = False) -> None:
    """Show the report of a data set."""
    from musicvae.music.dataset import Dataset
    from musicvae.music.inspection import print_report

    report = Dataset(dataset).report
    _print_json(report) if json else print_report(report)


def train(
    preset: Annotated[
        Positional[str], arg(metavar="PRESET", help="melody-2 drums-2 melody-16 drums-16 trio-16, 16 also with -flat.")
    ],
    dataset: Annotated[Positional[Path], arg(metavar="DATASET")],
    /,
    out: Annotated[Path, arg(metavar="RUN", help="Folder of the run; the same command again goes on with it.")],
    size: Annotated[Literal["small", "medium", "paper"], arg(help="Widths and schedules.")] = "small",
    steps: Annotated[int | None, arg(help="Updates in all; the schedules stretch over them.")] = None,
    max_time: Annotated[str | None, arg(help="Pause after this time: 90s, 10m, 2h.")] = None,
    seed: Annotated[int, arg(help="Weights, order of the data, noise.")] = 0,
    device: Device = "auto",
    settings: Annotated[list[str], arg(name="set", metavar="KEY=VALUE", help="Such as training.batch_size=64.")] = [],  # noqa: B006
    threads: Annotated[int, arg(help="CPU threads; 0 is one for each core.")] = 0,
) -> None:
    """Train a model on a data set. Ctrl-C saves; the same command again resumes exactly."""
    from musicvae.train import train_preset

    train_preset(preset, dataset, out, size, steps, max_time, seed, device, settings, threads)


def evaluate(
    model: Model,
    dataset: Annotated[Positional[Path], arg(metavar="DATASET")],
    /,
    split: Annotated[Literal["train", "validation", "test"], arg(help="Which windows.")] = "test",
    windows: Annotated[int | None, arg(help="At most so many, drawn by the seed.")] = None,
    seed: Annotated[int, arg(help="Of the draw, of z and of the tokens.")] = 0,
    samples: Annotated[
        int, arg(help="Also compare so many samples from the prior with the windows; 0 leaves it out.")
    ] = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure how well a model gives windows back: Table 1 of the paper, and what must stand beside it."""
    from musicvae.evaluation.command import evaluate_model

    report = evaluate_model(_load(model, device), dataset, split, windows, seed, samples, show=not json)
    if json:
        _print_json(report)


def models(json: Json = False) -> None:
    """List the models in the box."""
    from dataclasses import asdict

    from musicvae.composer import models as boxed

    found = boxed()
    if json:
        _print_json({name: asdict(config) for name, config in found.items()})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "music", "bars", "size", "sampled accuracy", "licence", box=None, pad_edge=False)
    for name, config in found.items():
        accuracy = config.trained.get("test", {}).get("sampled_accuracy")
        shown = f"{accuracy:.3f}" if accuracy is not None else "not measured"
        table.add_row(name, config.representation, str(config.model.steps // 16), config.size, shown, "Apache-2.0")
    Console().print(table)


COMMANDS: dict[str, Callable[..., None]] = {
    "sample": sample,
    "reconstruct": reconstruct,
    "encode": encode,
    "decode": decode,
    "inspect": inspect,
    "dataset build": build,
    "dataset info": info,
    "train": train,
    "evaluate": evaluate,
    "models": models,
}


def main() -> None:
    """Entry point: `musicvae COMMAND ...`. Errors that a user can mend are one line; the exit code is then 1."""
    words = sys.argv[1:]
    name = " ".join(words[:2]) if words[:1] == ["dataset"] else " ".join(words[:1])
    if name not in COMMANDS:
        _other(words)
        return
    try:
        tyro.cli(
            COMMANDS[name],
            args=words[len(name.split()) :],
            prog=f"musicvae {name}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except (ValueError, OSError) as error:
        print(f"musicvae {name}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"musicvae {name}: interrupted", file=sys.stderr)
        sys.exit(130)


def _other(words: list[str]) -> None:
    """Everything that is no command: help, version, mistakes."""
    if words == ["--version"]:
        print(f"musicvae {musicvae.__version__}")
        return
    lines = [f"  {name:15} {(function.__doc__ or '').splitlines()[0]}" for name, function in COMMANDS.items()]
    usage = "\n".join(
        ["Music you can hold as a vector.", "", "usage: musicvae COMMAND ... (each has --help)", "", *lines]
    )
    if (
        not words
        or words[0] in ("--help", "-h", "help")
        or (words[0] == "dataset" and words[1:] in ([], ["--help"], ["-h"]))
    ):
        print(usage)
        return
    print(f"musicvae: no command {' '.join(words[:2])!r}\n\n{usage}", file=sys.stderr)
    sys.exit(2)


# --- what the commands share ---------------------------------------------------------------------------------------


def _load(model: str, device: str) -> "Composer":
    from musicvae.composer import load

    return load(model, device)


def _read(file: Path) -> "Song":
    from musicvae.music.midi import Song

    with _about(file):
        return Song.read(file)


class _about:
    """Puts the file's name before the message of a ValueError."""

    def __init__(self, file: Path):
        self.file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, ValueError) and not str(error).startswith(f"{self.file}: "):
            raise ValueError(f"{self.file}: {error}. See the tracks with: musicvae inspect {self.file}") from None


def _index(track: int | None) -> int | None:
    if track is not None and track < 1:
        raise ValueError(f"--track {track}; tracks are numbered from 1, see: musicvae inspect FILE")
    return None if track is None else track - 1


def _label(composer: "Composer") -> str:
    return composer.name or "model"


def _read_vectors(path: Path) -> Any:
    import zipfile

    import numpy as np

    if not zipfile.is_zipfile(path):
        found = "no such file" if not path.exists() else "it is no .npz file"
        raise ValueError(f"{path}: {found}. Write one with: musicvae encode")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "z" in arrays or "mu" in arrays:
                return np.asarray(arrays["z" if "z" in arrays else "mu"], np.float32)
            held = ", ".join(arrays) or "nothing"
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Write one with: musicvae encode") from None
    raise ValueError(f"{path}: holds {held}; needed is an array z or mu of shape (N, Z)")


def _write(songs: "dict[str, Song]", out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out must be a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out} holds files already. Give another --out, or --overwrite")
    out.mkdir(parents=True, exist_ok=True)
    for name, song in songs.items():
        song.save(out / f"{name}.mid")
    print(f"{out}: {len(songs)} MIDI file{'s' if len(songs) > 1 else ''} written")


def _print_json(value: Any) -> None:
    import json

    print(
        json.dumps(
            value, indent=1, ensure_ascii=False, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)
        )
    )


if __name__ == "__main__":
    main()
