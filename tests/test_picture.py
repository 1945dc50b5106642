"""Piano rolls: the rectangles stand where the notes are, and the files are pictures of them."""

import sys

import numpy as np
import pytest

from musicvae.commands.output import Files, spelled_out, write
from musicvae.music.midi import Song
from musicvae.music.panels import BLUE, GREEN, VERMILION, panels
from musicvae.music.picture import draw, draw_row, draw_sheet, save_picture
from musicvae.music.representation import DRUM_CLASSES, DRUM_MAPS, Drums, Melody, Trio


def tune(*notes: tuple[int, int], steps: int = 32) -> Song:
    """Notes (step, pitch), each held until the next."""
    tokens = np.zeros((steps, 1), np.int64)
    for step, pitch in notes:
        tokens[step] = 2 + pitch
    return Melody().to_song(tokens)


@pytest.fixture(scope="module")
def trio() -> Song:
    tokens = np.zeros((32, 3), np.int64)
    tokens[::4, 0], tokens[::8, 1], tokens[::2, 2] = 2 + 72, 2 + 40, 0b101
    return Trio().to_song(tokens)


def pixels(path) -> np.ndarray:
    """A PNG as (height, width, 3), from 0 to 1."""
    from matplotlib.image import imread

    return imread(path)[..., :3]


def drawn(figure) -> list[tuple[float, float, float, float]]:
    """Left, right, bottom, top of every rectangle in the first panel, in steps and rows."""
    boxes = []
    for collection in figure.axes[0].collections:
        for path in collection.get_paths():
            if len(path.vertices) == 5:
                (left, bottom), (right, top) = path.vertices.min(axis=0), path.vertices.max(axis=0)
                boxes.append((left, right, bottom, top))
    return boxes


def test_three_notes_are_three_rectangles_at_their_places():
    (panel,) = panels(tune((0, 60), (4, 64), (12, 67)))
    assert panel.name == "melody" and not panel.is_drum
    assert np.stack(panel.blocks).T.tolist() == [[60, 0, 4], [64, 4, 12], [67, 12, 32]]
    assert panel.rows[0] <= 58 and panel.rows[1] >= 69 and panel.rows[1] - panel.rows[0] >= 12


def test_what_is_drawn_is_what_the_panel_says():
    boxes = drawn(draw(tune((0, 60), (4, 64), (12, 67))))
    held = {(round(a), round(b), round((low + high) / 2)) for a, b, low, high in boxes if b - a > 2}
    assert held == {(0, 4, 60), (4, 12, 64), (12, 32, 67)}
    onsets = sorted(round(a) for a, b, _, _ in boxes if b - a < 1)
    assert onsets == [0, 4, 12]


def test_drums_stand_in_the_rows_of_their_classes():
    tokens = np.zeros((32, 1), np.int64)
    tokens[0], tokens[8], tokens[9] = 0b1, 0b10, 0b1_0000_0001
    (panel,) = panels(Drums().to_song(tokens))
    assert np.stack(panel.blocks).T.tolist() == [[0, 0, 1], [1, 8, 9], [0, 9, 10], [8, 9, 10]]
    labels = [text.get_text() for text in draw(Drums().to_song(tokens)).axes[0].get_yticklabels()]
    assert tuple(labels) == DRUM_CLASSES and panel.rows == (0, 8)


def test_the_drum_map_decides_the_class():
    song = Drums("2018").to_song(np.full((32, 1), 1 << 6))
    high_floor_tom = song.notes._replace(pitch=np.full(len(song.notes.pitch), 43, np.int32))
    song = Song(high_floor_tom, song.instruments, song.pieces)
    assert 43 in DRUM_MAPS["current"][4] and 43 in DRUM_MAPS["2018"][6]
    assert set(panels(song)[0].blocks.row.tolist()) == {4}
    assert set(panels(song, "2018")[0].blocks.row.tolist()) == {6}


def test_a_trio_has_a_panel_and_a_colour_a_stream(trio):
    shown = panels(trio)
    assert [(p.name, p.colour) for p in shown] == [("melody", BLUE), ("bass", VERMILION), ("drums", GREEN)]
    figure = draw(trio, "three")
    assert len(figure.axes) == 3
    assert {t.get_text() for t in figure.texts} >= {"three", "melody", "bass", "drums", "120 bpm"}


def test_a_silent_song_is_an_empty_roll():
    assert [len(p.blocks.row) for p in panels(tune())] == [0]
    assert len(draw(tune()).axes) == 1 and not drawn(draw(tune()))


def test_a_long_song_goes_on_in_lines_of_sixteen_bars():
    figure = draw(tune((0, 60), (600, 62), steps=40 * 16))
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 256), (256, 512), (512, 768)]
    numbers = [int(text.get_text()) for axes in figure.axes for text in axes.texts]
    assert numbers == list(range(1, 41))


def test_a_row_has_a_shaded_column_for_every_other_song():
    figure = draw_row([tune((0, 60)), tune((0, 62)), tune((0, 64))], ["A", "half", "B"])
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == ["A", "half", "B"]
    assert [t.get_position()[0] for t in axes.texts] == [16, 48, 80]
    boxes = {(round(a), round(b), round((c + d) / 2)) for a, b, c, d in drawn(figure) if b - a > 2}
    assert boxes == {(0, 32, 60), (32, 64, 62), (64, 96, 64)}
    shades = [p for p in axes.patches if p.get_height() == 1 and p.get_width() == 32]
    assert [p.get_x() for p in shades] == [32]


def test_a_sheet_shows_all_songs_with_the_same_rows():
    figure = draw_sheet([tune((0, p)) for p in (40, 60, 90)], ["low", "mid", "high"], columns=2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["low", "mid", "high"]
    limits = {axes.get_ylim() for axes in figure.axes}
    assert len(limits) == 1 and limits.pop()[0] < 40 and figure.axes[0].get_ylim()[1] > 90
    tops = [round(axes.get_position().y1, 4) for axes in figure.axes]
    assert tops[0] == tops[1] > tops[2]


def test_png_and_svg_are_pictures_of_the_notes(trio, tmp_path):
    save_picture(draw(trio, "trio"), tmp_path / "trio.png")
    save_picture(draw(trio, "trio"), tmp_path / "trio.svg")
    image = pixels(tmp_path / "trio.png")
    for colour in (BLUE, VERMILION, GREEN):
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert (np.abs(image - rgb).max(axis=2) < 0.02).sum() > 300, colour
    assert 0.5 < (image.min(axis=2) > 0.9).mean() < 0.99  # most of it is paper
    text = (tmp_path / "trio.svg").read_text()
    assert text.startswith("<?xml") and BLUE.lower() in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["trio.png", "trio.svg"]


def test_the_same_song_gives_the_same_bytes(trio, tmp_path):
    for kind in ("png", "svg"):
        for name in ("a", "b"):
            save_picture(draw(trio, "trio"), tmp_path / f"{name}.{kind}")
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_other_formats_are_refused_by_name(trio, tmp_path):
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        save_picture(draw(trio), tmp_path / "trio.gif")
    assert not list(tmp_path.iterdir())


# --- what the commands do with them ----------------------------------------------------------------------------


def test_picture_and_sound_may_stand_alone_on_the_command_line():
    assert spelled_out(["--picture", "--sound", "--out", "x"]) == ["--picture", "png", "--sound", "auto", "--out", "x"]
    assert spelled_out(["--picture", "svg", "--sound", "synth"]) == ["--picture", "svg", "--sound", "synth"]
    assert spelled_out(["melody-2", "--picture"]) == ["melody-2", "--picture", "png"]
    assert spelled_out(["--sound", "melody-2"]) == ["--sound", "auto", "melody-2"]


def test_a_command_writes_midi_pictures_and_sounds_side_by_side(tmp_path, capsys):
    songs = {"a-1": tune((0, 60)), "a-2": tune((0, 62))}
    write(songs, Files(tmp_path / "sheet", picture="png", sound="synth"))
    names = sorted(p.name for p in (tmp_path / "sheet").iterdir())
    assert names == ["a-1.mid", "a-1.png", "a-1.wav", "a-2.mid", "a-2.png", "a-2.wav", "overview.png"]
    assert "2 MIDI files, 3 pictures, 2 WAV files (4 s and a tail of 1.5 s, by own synth) written" in (
        capsys.readouterr().out
    )
    write(songs, Files(tmp_path / "plain"))
    assert len(list((tmp_path / "plain").iterdir())) == 2


def test_a_path_is_one_picture_and_plays_in_a_row(tmp_path):
    songs = {"a-1": tune((0, 60)), "a-2": tune((0, 62))}
    write(songs, Files(tmp_path / "row", picture="svg"), row="a", joined=True)
    assert sorted(p.name for p in (tmp_path / "row").iterdir()) == [
        "a-1.mid", "a-1.svg", "a-2.mid", "a-2.svg", "a.mid", "a.svg"
    ]  # fmt: skip
    joined = Song.read(tmp_path / "row" / "a.mid")
    assert joined.bars == 4 and joined.notes.pitch.tolist() == [60, 62] and joined.notes.start.tolist() == [0, 32]


def test_without_matplotlib_nothing_is_written_and_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if "editable" not in repr(f).lower()])
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ValueError, match="pip install matplotlib"):
        write({"a": tune((0, 60))}, Files(tmp_path / "out", picture="png"))
    assert not (tmp_path / "out").exists()
