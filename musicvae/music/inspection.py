"""What a MIDI file would give, and what a data set holds, for the eye."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from musicvae.music.melody_track import Choice
from musicvae.music.midi import STEPS_PER_BAR, Song
from musicvae.music.pianoroll import terminal_roll
from musicvae.music.representation import (
    TRIO_BASS_PROGRAMS,
    TRIO_MELODY_PROGRAMS,
    Drums,
    Melody,
    NoPart,
    Representation,
    Trio,
)
from musicvae.music.roles import Roles, labelled, with_roles
from musicvae.music.windows import find_windows

BARS = (2, 16)


def inspect_song(song: Song, roles: Roles = Roles()) -> dict[str, Any]:  # noqa: B008 (never changed)
    """Tracks, stretches of 4/4, and how many windows each track and the whole song would give, or what stops them.

    Bars are counted from 1, as tracks are. Raises ValueError for roles of tracks that the song has not.
    """
    song, given = labelled(song, roles), song
    melody = {bars: find_windows([song], Melody(), bars) for bars in BARS}
    tracks = []
    for i, player in enumerate(song.instruments):
        row: dict[str, Any] = {
            "track": i + 1,
            "name": player.name,
            "program": player.program + 1,
            "drums": player.is_drum,
        }
        row["notes"] = int((song.notes.instrument == i).sum())
        if not player.is_drum:
            row["melody"] = {f"{b} bars": int((w.instrument == i).sum()) for b, w in melody.items()}
            row["trio"] = _role(player.program)
            if not any(row["melody"].values()):
                row["stopped_by"] = _why(song, 2)
        tracks.append(row)
    pitched = any(not player.is_drum for player in song.instruments)
    chosen = Melody().choose_and_say(with_roles(given, Melody(), roles)) if pitched else Choice(None, "")
    why = "asked for" if roles.melody else chosen.why
    whole: dict[str, Representation] = {"drums": Drums(), "trio": Trio()}
    return {
        "bars": song.bars,
        "pieces": [
            {
                "bar": p.start // STEPS_PER_BAR + 1,
                "bars": (p.end - p.start) // STEPS_PER_BAR,
                "bar_in_file": p.source_bar,
            }
            for p in song.pieces
        ],
        "dropped": list(song.dropped),
        "tempos": [{"bar": 1 + at / STEPS_PER_BAR, "bpm": round(bpm, 3)} for at, bpm in song.tempos],
        "notes": len(song.notes.start),
        "off_grid": round(song.off_grid / max(len(song.notes.start), 1), 4),
        "tracks": tracks,
        "melody_track": None if chosen.instrument is None else chosen.instrument + 1,  # what commands take by default
        "melody_why": None if chosen.instrument is None else why,
        **{name: _whole(with_roles(given, kind, roles), kind) for name, kind in whole.items()},
    }


def _role(program: int) -> str:
    if program in TRIO_MELODY_PROGRAMS:
        return "melody"
    return "bass" if program in TRIO_BASS_PROGRAMS else "not used"


def _whole(song: Song, kind: Representation) -> dict[str, Any]:
    counts: dict[str, Any] = {f"{b} bars": len(find_windows([song], kind, b).bar) for b in BARS}
    if not any(counts.values()):
        counts["stopped_by"] = _missing(song, kind) or _why(song, 2)
    return counts


def _missing(song: Song, kind: Representation) -> str:
    try:
        if isinstance(kind, Trio):
            lead, low = kind.choose(song)
            parts = {"melody (programs 1-32)": lead is not None, "bass (programs 33-40)": low is not None}
            parts["drums (channel 10)"] = any(i.is_drum for i in song.instruments)
            return ", ".join(f"no {part}" for part, there in parts.items() if not there)
        kind.to_tokens(song)
    except NoPart as error:
        return str(error)
    return ""


def _why(song: Song, bars: int) -> str:
    longest = max(p.end - p.start for p in song.pieces) // STEPS_PER_BAR
    if longest < bars:
        return f"no stretch of 4/4 has {bars} bars (longest: {longest})"
    return "silent for more than a bar in every window"


def print_inspection(song: Song, found: dict[str, Any], track: int | None, bar: int, bars: int) -> None:
    """The findings as a table, and some bars of a track, an index, by default of the melody's, as a roll.

    `bar` is an index, 0 for the first.
    """
    console = Console()
    pieces = ", ".join(f"{p['bars']} from bar {p['bar_in_file']} of the file" for p in found["pieces"])
    tempos = ", ".join(f"{t['bpm']:g}" for t in found["tempos"][:6]) + (" ..." if len(found["tempos"]) > 6 else "")
    console.print(
        f"{found['bars']} bars in 4/4 ({pieces}); {tempos} beats a minute; "
        f"{found['notes']:,} notes, {found['off_grid']:.0%} off the grid"
    )
    if found["dropped"]:
        console.print(f"dropped: {'; '.join(found['dropped'])}")
    table = Table(
        "track", "name", "program", "notes", "melody 2 / 16 bars", "in a trio", "stopped by", box=None, pad_edge=False
    )
    for row in found["tracks"]:
        counts = " / ".join(map(str, row["melody"].values())) if "melody" in row else "-"
        role = "drums" if row["drums"] else row["trio"]
        program = "drums" if row["drums"] else str(row["program"])
        mark = " *" if row["track"] == found["melody_track"] else ""
        table.add_row(
            f"{row['track']}{mark}", row["name"], program, str(row["notes"]), counts, role, row.get("stopped_by", "")
        )
    console.print(table)
    if found["melody_track"]:
        text = f"* the melody that is taken unless --melody says otherwise: {found['melody_why']}"
        console.print(text, markup=False, highlight=False)
    for name in ("drums", "trio"):
        counts = found[name]
        console.print(
            f"{name}: {counts['2 bars']} windows of 2 bars, {counts['16 bars']} of 16"
            + (f" ({counts['stopped_by']})" if "stopped_by" in counts else "")
        )
    if not found["tracks"]:
        return
    if not 0 <= bar < song.bars:
        raise ValueError(f"no bar {bar + 1}; the song has bars 1 to {song.bars}")
    shown = (found["melody_track"] or 1) - 1 if track is None else track
    console.print(f"\ntrack {shown + 1}, bars {bar + 1} to {min(bar + bars, song.bars)}:")
    console.print(terminal_roll(song, shown, bar, bars), markup=False, highlight=False, soft_wrap=True)


def print_report(report: dict[str, Any]) -> None:
    """The report of a data set as tables."""
    console = Console()
    settings, files, windows = report["settings"], report["files"], report["windows"]
    console.print(f"\n{settings['representation']}, windows of {settings['bars']} bars")
    console.print(
        f"files: {files['read']:,} read, {files['used']:,} used, {files['rejected']:,} rejected; "
        f"{report['tracks']:,} tracks"
    )
    for entry in report["rejected"].values():
        console.print(
            f"  {entry['files']:>7,}  {entry['why']}; such as {entry['examples'][0]}", markup=False, highlight=False
        )
    if report.get("cut", {}).get("files"):  # reports of the first version have no such entry
        cut = report["cut"]
        text = f"cut: {cut['files']:,} songs have {cut['why']}, {cut['pairs']:,} in all; such as {cut['examples'][0]}"
        console.print(text, markup=False, highlight=False)
    names = {
        "in_4_4": "in 4/4 and long enough",
        "after_silence_rule": "of these never silent for more than a bar",
        "unique_in_their_song": "of these different within their song",
        "unique": "of these different from all others",
        "left_other_splits_for_train": "(in validation and test songs, but left out: train has them too)",
    }
    console.print("windows:")
    for key, name in names.items():
        console.print(f"  {windows[key]:>10,}  {name}")
    table = Table("split", "songs", "groups", "windows", box=None, pad_edge=False)
    for split, counts in report["splits"].items():
        table.add_row(split, *(f"{counts[c]:,}" for c in ("songs", "groups", "windows")))
    console.print(table)
    onsets = ", ".join(f"{o:.1f}" for o in report["onsets_a_bar"])
    console.print(f"onsets a bar: {onsets}; {report['off_grid']:.1%} of the notes were off the grid")


class Bars:
    """A live progress bar, as `build_dataset` wants it: `with Bars() as progress`, then progress(what, done, of)."""

    def __enter__(self) -> "Bars":
        screen = Console(stderr=True)
        columns = (TextColumn("{task.description:>20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=screen, disable=not screen.is_terminal)
        self.tasks: dict[str, TaskID] = {}
        self.progress.start()
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.tasks:
            self.tasks[what] = self.progress.add_task(what, total=total)
        self.progress.update(self.tasks[what], completed=done)

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
