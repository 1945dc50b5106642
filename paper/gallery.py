"""A folder of pictures, sounds and MIDI files, and the page that shows them: opens in a browser, needs nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from musicvae.files import replacing
from musicvae.music.audio import save_sound
from musicvae.music.midi import Song
from musicvae.music.picture import save_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 3rem 0 .3rem; }
p { max-width: 46rem; margin: .3rem 0 1rem; }
img { max-width: 100%; background: #fff; border: 1px solid #8885; border-radius: 6px; margin: .4rem 0; }
.songs { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .4rem 1rem; }
.songs div { display: flex; align-items: center; gap: .6rem; }
.songs span { flex: 0 0 6rem; font-size: .85rem; } audio { flex: 1; min-width: 8rem; height: 2rem; }
.missing { opacity: .7; } nav a { margin-right: .9rem; white-space: nowrap; }
"""


@dataclass
class Section:
    """One figure of the page. `number` is the paper's, if it has one; a section without pictures says in `text` why."""

    number: str
    title: str
    text: str
    pictures: "dict[str, Figure]" = field(default_factory=dict)  # by what stands under them
    songs: Mapping[str, Song] = field(default_factory=dict)  # by label

    @property
    def name(self) -> str:
        return f"figure-{self.number.rjust(2, '0')}" if self.number else self.title.replace(" ", "-")

    @property
    def heading(self) -> str:
        return f"Figure {self.number}: {self.title}" if self.number else self.title.capitalize()


def write_section(section: Section, out: Path, kind: str, engine: str) -> str:
    """Writes the files of a figure below `out`, and gives its part of the page."""
    folder = out / section.name
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_heading(section), f"<p>{escape(section.text)}</p>"]
    for i, (caption, figure) in enumerate(section.pictures.items(), 1):
        path = folder / f"{section.name}-{i}.{kind}"
        save_picture(figure, path)
        parts.append(f'<figure style="margin:0"><img src="{section.name}/{path.name}" alt="{escape(caption)}">'
                     f"<figcaption>{escape(caption)}</figcaption></figure>")  # fmt: skip
    rows = []
    for i, (label, song) in enumerate(section.songs.items(), 1):
        path = folder / f"{section.name}-sound-{i:02d}.mid"
        song.save(path)
        save_sound(song, path.with_suffix(".wav"), engine)
        source = f"{section.name}/{path.stem}"
        rows.append(f'<div><span>{escape(label)}</span><audio controls preload="none" src="{source}.wav"></audio>'
                    f'<a href="{source}.mid">MIDI</a></div>')  # fmt: skip
    if rows:
        parts.append(f'<div class="songs">{"".join(rows)}</div>')
    return "\n".join(parts)


def missing_section(section: Section) -> str:
    """The part of the page that says why a figure is not there."""
    return f'<div class="missing">{_heading(section)}<p>Not drawn: {escape(section.text)}</p></div>'


def write_page(out: Path, title: str, text: str, sections: Sequence[Section], parts: Sequence[str]) -> Path:
    """Writes `out/index.html` over the parts, and gives its path."""
    links = "".join(f'<a href="#{s.name}">{escape(f"{s.number} {s.title}".strip())}</a>' for s in sections)
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n<p>{escape(text)}</p>\n"
        f"<nav>{links}</nav>\n" + "\n".join(parts) + "\n</html>\n"
    )
    with replacing(out / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / "index.html"


def _heading(section: Section) -> str:
    return f'<h2 id="{section.name}">{escape(section.heading)}</h2>'
