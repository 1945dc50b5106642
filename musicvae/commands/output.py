"""What every command that writes music offers: MIDI files, and beside them pictures, sounds and a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from musicvae.music.midi import Song

from tyro.conf import arg

_CHOICES = {"--picture": ("png", "svg"), "--sound": ("auto", "fluidsynth", "synth")}


@dataclass(frozen=True)
class Files:
    """Where a command writes, and what beside MIDI."""

    out: Annotated[Path, arg(metavar="DIR", help="Folder to write to; must be new or empty.")]
    overwrite: Annotated[bool, arg(help="Write into a folder that holds files, replacing those of the same name.")] = (
        False
    )
    picture: Annotated[
        Literal["png", "svg"] | None,
        arg(metavar="[png|svg]", help="Also draw a piano roll of each file, and one of all of them. PNG by default."),
    ] = None
    sound: Annotated[
        Literal["auto", "fluidsynth", "synth"] | None,
        arg(
            metavar="[fluidsynth|synth]",
            help="Also write WAV files: by FluidSynth and a soundfont where found, else by the own synth.",
        ),
    ] = None
    page: Annotated[bool, arg(help="Also write page.html, which shows and plays all files in a browser, offline.")] = (
        False
    )


Output = Annotated[Files, arg(name="")]


def spelled_out(words: Sequence[str]) -> list[str]:
    """--picture and --sound may stand alone on the command line; this writes what they then mean."""
    spelled = []
    for word, following in zip(words, [*words[1:], ""]):
        spelled.append(word)
        if word in _CHOICES and following not in _CHOICES[word]:
            spelled.append(_CHOICES[word][0])
    return spelled


def gathered(words: Sequence[str], option: str = "--set") -> list[str]:
    """A --set that stands twice means both, not the last: the values of all of them, at the place of the first."""
    kept, values, place, inside = list[str](), list[str](), None, False
    for word in words:
        name, equals, value = word.partition("=")
        if name == option:
            inside, place = True, len(kept) if place is None else place
            values += [value] if equals else []
        elif inside and not word.startswith("-"):
            values.append(word)
        else:
            inside = False
            kept.append(word)
    return kept if place is None else [*kept[:place], option, *values, *kept[place:]]


def write(
    songs: "dict[str, Song]",
    output: Files,
    *,
    row: str = "",
    joined: bool = False,
    columns: int = 0,
    labels: Sequence[str] = (),
) -> None:
    """Writes each song to `out/NAME.mid`, with its picture and its sound beside it where asked for.

    `row` names what belongs together, as a path through the latent space: one picture then shows all songs, a shaded
    column each, or with `columns` a sheet with so many to a line; and with `joined` a file of that name plays them in
    a row. Several songs without a name get a sheet too. `labels` are short names for columns or cells. ValueError
    where `out` is a file or may not be added to.
    """
    check_output(output)
    output.out.mkdir(parents=True, exist_ok=True)
    everything = dict(songs)
    if row and joined:
        from musicvae.music.midi import join

        everything[row] = join(list(songs.values()))
    for name, song in everything.items():
        song.save(output.out / f"{name}.mid")
    written = [_count(len(everything), "MIDI file")]
    if output.picture:
        written.append(_count(_pictures(songs, output, row, columns, labels), "picture"))
    if output.sound:
        written.append(_sounds(everything, output))
    if output.page:
        from musicvae.render.page import save_page

        save_page(output.out / "page.html", {"": list(everything.items())}, row or output.out.name)
        written.append("page.html")
    print(f"{output.out}: {', '.join(written)} written")


def check_output(output: Files) -> None:
    """Finds out before any work what would fail after it. Raises ValueError."""
    if output.out.exists() and not output.out.is_dir():
        raise ValueError(f"{output.out} is a file; --out must be a folder")
    if output.out.is_dir() and any(output.out.iterdir()) and not output.overwrite:
        raise ValueError(f"{output.out} holds files already. Give another --out, or --overwrite")
    if output.picture:
        from musicvae.music.picture import checked_matplotlib

        checked_matplotlib()
    if output.sound:
        from musicvae.music.audio import checked_engine

        checked_engine(output.sound)


def _pictures(songs: "dict[str, Song]", output: Files, row: str, columns: int, labels: Sequence[str]) -> int:
    """Draws one picture a song and one of all, and says how many that makes."""
    from musicvae.music.picture import draw, draw_row, draw_sheet, save_picture

    def save(figure: "Figure", name: str) -> None:
        save_picture(figure, output.out / f"{name}.{output.picture}")

    for name, song in songs.items():
        save(draw(song, name), name)
    if len(songs) == 1 and not row:
        return 1
    several = list(songs.values())
    if row and not columns:
        save(draw_row(several, labels, row), row)
    else:
        save(draw_sheet(several, labels or list(songs), columns, row), row or "overview")
    return len(songs) + 1


def _sounds(songs: "dict[str, Song]", output: Files) -> str:
    """Writes a WAV file a song, and says how many, how long, and by whom."""
    from musicvae.music.audio import TAIL, save_sound

    made = [save_sound(song, output.out / f"{name}.wav", output.sound or "auto") for name, song in songs.items()]
    seconds = sorted({round(s.loop_seconds, 2) for s in made})
    length = f"{seconds[0]:g}" if len(seconds) == 1 else f"{seconds[0]:g} to {seconds[-1]:g}"
    return f"{_count(len(made), 'WAV file')} ({length} s and a tail of {TAIL:g} s, by {made[0].engine})"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
