"""What several test files need."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from musicvae.music.dataset import Dataset

CORPORA = Path(__file__).parent.parent.parent / "shared" / "corpora"


@pytest.fixture
def musicvae(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Calls the entry point with words; returns exit code, output, errors."""
    from musicvae import cli

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["musicvae", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real music that developers have beside the repository."""
    if not CORPORA.is_dir():
        pytest.skip("no real music here: ../shared/corpora is absent")
    return CORPORA


@pytest.fixture(scope="session")
def real_files(corpora: Path) -> list[Path]:
    return sorted(corpora.glob("*/**/*.mid"))


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 70 little tunes."""
    from folders import tunes, write

    return write(tmp_path_factory.mktemp("songs"), tunes(70))


@pytest.fixture(scope="session")
def data(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> "Dataset":
    """Their 2-bar melodies."""
    from folders import MELODY, build

    return build([songs], MELODY, tmp_path_factory.mktemp("data") / "melody-2")


@pytest.fixture(scope="session")
def originals() -> Path:
    """Checkpoints of the original's families with what they compute, that developers have beside the repository."""
    folder = CORPORA.parent / "fixtures" / "original"
    if not folder.is_dir():
        pytest.skip("no checkpoints of the original here: ../shared/fixtures is absent")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path, for tests of pages."""
    pytest.importorskip("playwright", reason="tests of pages need the package playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("tests of pages need the program chromium")
    return found
