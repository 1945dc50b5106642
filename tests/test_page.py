"""The page that shows and plays songs: what is in it, and what it does in a real browser."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from musicvae.music.midi import Song
from musicvae.music.representation import representation
from musicvae.render.page import page
from musicvae.render.roll import roll_svg

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCALE = np.zeros((32, 1), np.int64)
SCALE[::4, 0] = 2 + np.array([60, 62, 64, 65, 67, 69, 71, 72])
BEAT = np.zeros((32, 1), np.int64)
BEAT[::4, 0] = 1 | 4  # kick and closed hi-hat


@pytest.fixture(scope="module")
def songs() -> list[tuple[str, Song]]:
    melody, drums = representation("melody").to_song(SCALE, 120.0), representation("drums").to_song(BEAT, 240.0)
    return [("a scale", melody), ('a "beat" </script>', drums)]


def test_the_page_holds_the_very_files(songs: list[tuple[str, Song]]):
    text = page({"": songs}, "Two")
    files = [base64.b64decode(found) for found in re.findall(r"data:audio/midi;base64,([^\"]+)", text)]
    assert files == [song.to_bytes() for _, song in songs]


def test_names_cannot_break_the_page(songs: list[tuple[str, Song]]):
    text = page({"<b>": songs}, "A & B")
    assert '</script>"' not in text and "<h2>&lt;b&gt;</h2>" in text and "<title>A &amp; B</title>" in text


def test_songs_of_one_name_are_all_there(songs: list[tuple[str, Song]]):
    assert page({"": [songs[0], songs[0]], "again": [songs[0]]}, "").count("<figure ") == 3


def test_a_roll_has_a_mark_a_note_and_a_line_a_bar(songs: list[tuple[str, Song]]):
    lines, notes = re.findall(r'<path d="([^"]*)"', roll_svg(songs[0][1]))
    assert lines.count("M") == 3  # two bars and the end
    assert notes.count("M") == 8


def test_a_silent_song_has_a_roll():
    silence = representation("melody").to_song(np.zeros((32, 1), np.int64))
    assert 'aria-label="Piano roll: 2 bars; melody"' in roll_svg(silence)


def test_the_command_shows_folders_as_groups(tmp_path: Path, songs: list[tuple[str, Song]], musicvae):
    (tmp_path / "music" / "tunes").mkdir(parents=True)
    songs[0][1].save(tmp_path / "music" / "one.mid")
    songs[0][1].save(tmp_path / "music" / "tunes" / "two.mid")
    out = tmp_path / "page.html"
    assert musicvae("page", tmp_path / "music", "--out", out)[0] == 0
    assert re.findall("<h2>(.*?)</h2>", out.read_text()) == ["tunes"]
    code, _, errors = musicvae("page", tmp_path / "music", "--out", out)
    assert code == 1 and "--overwrite" in errors


# --- in a browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(chromium: str) -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield started
        started.close()


@pytest.fixture
def shown(browser: "Browser", tmp_path: Path, songs: list[tuple[str, Song]]) -> "Iterator[Page]":
    """The page, with a record of what the synth is sent; no request may leave it."""
    (tmp_path / "page.html").write_text(page({"": songs}, "Two"), encoding="utf-8")
    tab, requests, faults = browser.new_page(bypass_csp=True), list[str](), list[str]()
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.evaluate(
        "() => { prepare(); window.sent = []; const send = synth.send; "
        "synth.send = (data, at) => { if (at) sent.push([at - playing.began, ...data]); send(data, at); } }"
    )
    yield tab
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert faults == []
    tab.close()


def test_notes_are_sent_at_their_times(shown: "Page"):
    shown.get_by_role("button", name="Play").first.click()
    shown.wait_for_function("sent.length >= 4")
    onsets = [note for note in shown.evaluate("sent") if note[1] == 0x90]
    assert [note[2] for note in onsets[:2]] == [60, 62]
    assert [note[0] for note in onsets[:2]] == pytest.approx([0.0, 0.5], abs=1e-6)


def test_a_loop_begins_again_to_the_millisecond(shown: "Page"):
    shown.get_by_label("Loop").check()
    shown.get_by_role("button", name="Play").nth(1).click()  # 2 bars at 240 beats a minute: 2 s
    began = shown.evaluate("playing.began")
    shown.wait_for_function(f"playing.began > {began + 1}")
    assert shown.evaluate("playing.began") - began == pytest.approx(2.0, abs=1e-3)


def test_the_space_bar_stops(shown: "Page"):
    shown.get_by_role("button", name="Play").first.click()
    shown.get_by_role("heading", name="Two").click()
    shown.evaluate("document.activeElement.blur()")
    shown.keyboard.press(" ")
    assert shown.locator("figure.playing").count() == 0


def test_a_click_in_the_roll_plays_from_that_bar(shown: "Page"):
    roll = shown.locator(".roll").first
    box = roll.bounding_box()
    assert box is not None
    roll.click(position={"x": box["width"] * 0.6, "y": 5})
    shown.wait_for_function("sent.length >= 1")
    assert shown.evaluate("sent[0]")[2] in (67, 65)  # the second bar begins with G; F may end there
