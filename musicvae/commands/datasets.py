"""Data sets: folders of MIDI become windows on disk, and say what became of every file."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from musicvae.commands.options import Json, print_json


def build(
    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER...")],
    /,
    representation: Literal["melody", "melody-90", "drums", "trio", "trio-90"],
    out: Annotated[Path, arg(metavar="DIR", help="The data set to make.")],
    bars: Annotated[Literal[2, 16], arg(help="Bars of a window.")] = 2,
    workers: Annotated[int, arg(help="Processes; 0 is one for each core.")] = 0,
    groups: Annotated[Path | None, arg(help="CSV with columns file and group: files that must not be parted.")] = None,
    train_only: Annotated[tuple[Path, ...], arg(help="Folders whose music never validates or tests.")] = (),
    drum_map: Annotated[Literal["current", "2018"], arg(help="Which pitches make the nine drum classes.")] = "current",
    melody: Annotated[
        tuple[str, ...], arg(metavar="NAME", help="Names of tracks: where a file has one, only that is the melody.")
    ] = (),
    drums: Annotated[
        tuple[str, ...], arg(metavar="NAME", help="Names of tracks: where a file has one, only that is the drums.")
    ] = (),
    overwrite: Annotated[bool, arg(help="Replace a data set of that name.")] = False,
) -> None:
    """Turn folders of MIDI (and archives of it) into unique windows, split into train, validation and test.

    The same command goes on where it was interrupted, with the same result. Columns of the Parquet files count from 0:
    bar 0 is the first bar of its file.
    """
    import os

    from musicvae.music.dataset import DatasetSettings, build_dataset
    from musicvae.music.inspection import Bars, print_report
    from musicvae.shell import command

    if not folders:
        raise ValueError("no folder given; name one or more folders of MIDI files")
    settings = DatasetSettings(representation, bars, drum_map, melody, drums)
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
    preset = f"{representation.removesuffix('-90')}-{bars}"
    hint = f"Train with: {command('train', preset, out, '--out', 'RUN')}"
    print(f"\n{out}: ready. {'No preset learns trios of 2 bars' if preset == 'trio-2' else hint}")


def info(dataset: Annotated[Positional[Path], arg(metavar="DIR")], /, json: Json = False) -> None:
    """Show the report of a data set."""
    from musicvae.music.dataset import Dataset
    from musicvae.music.inspection import print_report

    report = Dataset(dataset).report
    print_json(report) if json else print_report(report)
