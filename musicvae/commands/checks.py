"""What can be wrong with the words of a command, found before torch is loaded, which takes seconds."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from musicvae.commands.options import WholeSong, bar_index, read
from musicvae.commands.output import Files, check_output

STANDARD_INPUT = Path("-")


def check(
    model: str | None = None,
    device: str = "cpu",
    output: Files | None = None,
    files: Iterable[Path] = (),
    bars: Iterable[int] = (),
    **numbers: Any,
) -> None:
    """Raises ValueError for an option, a model, a target or a MIDI file that no model could make anything of.

    `numbers` are named as their rows below; None is none.
    """
    from musicvae import limits
    from musicvae.music.midi import checked_tempo

    known: dict[str, Callable[[Any], Any]] = {
        "number": limits.checked_number,
        "seed": limits.checked_seed,
        "temperature": limits.checked_temperature,
        "rounds": limits.checked_rounds,
        "variation": limits.checked_variation,
        "tempo": checked_tempo,
        "steps": limits.checked_steps,
        "threads": limits.checked_threads,
        "max_time": limits.seconds,
        "preset": limits.checked_preset,
        "samples": limits.checked_samples,
        "windows": limits.checked_windows,
    }
    for name, value in numbers.items():
        if value is not None:
            known[name](value)
    limits.checked_device(device)
    for bar in bars:
        bar_index(bar)
    if model is not None:
        check_model(model)
    if output is not None:
        check_output(output)
    for file in files:
        if file != STANDARD_INPUT and not file.is_fifo():  # which can be read only once
            read(file)


def check_song(model: str, file: Path, output: Files, playing: WholeSong) -> None:
    """The same for a whole song that goes through a model."""
    given = {"temperature": playing.temperature, "seed": playing.seed}
    check(model, playing.device, output, [file], [playing.bar], **given)


def check_dataset(folder: Path) -> None:
    """Raises ValueError for a folder that is no data set of this version."""
    from musicvae.music.dataset import Dataset

    Dataset(folder)


def check_model(model: str) -> None:
    """Raises ValueError for a name that is no model here and cannot be one on the hub."""
    from musicvae.box import find_here

    find_here(model)
