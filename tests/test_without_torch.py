"""Whoever only plays needs neither torch nor pyarrow: those commands work without, the others name their extra."""

import subprocess
import sys
from pathlib import Path

import pytest

from musicvae.music.representation import representation

WITHOUT = """
import sys
from importlib.machinery import PathFinder

installed, hidden = PathFinder.find_spec, ("torch", "pyarrow", "google_crc32c")
PathFinder.find_spec = staticmethod(lambda name, *rest: None if name in hidden else installed(name, *rest))
from musicvae import cli
for words in {commands!r}:
    sys.argv = ["musicvae", *words]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            print("failed:", *words)
"""


def call(commands: list[list[str]]) -> tuple[str, str]:
    """Runs commands in one process without torch; what it printed, and its errors."""
    code = WITHOUT.format(commands=commands)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def tune(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two bars of quarter notes, upwards."""
    import numpy as np

    tokens = np.zeros((32, 1), np.int64)
    tokens[::4, 0] = 62 + np.arange(8)
    path = tmp_path_factory.mktemp("tune") / "tune.mid"
    representation("melody").to_song(tokens).save(path)
    return str(path)


def test_every_command_that_plays_works_without_torch(tune: str, tmp_path: Path) -> None:
    def out(name: str) -> list[str]:
        return ["--out", str(tmp_path / name)]

    commands = [
        ["models"],
        ["inspect", tune],
        *(["sample", model, "-n", "2", *out(model)] for model in ("melody-2", "drums-2", "melody-16", "trio-16")),
        ["sample", "melody-2", "--device", "auto", *out("auto")],
        ["reconstruct", "melody-2", tune, *out("again")],
        ["encode", "melody-2", tune, "--out", str(tmp_path / "z.npz")],
        ["decode", "melody-2", str(tmp_path / "z.npz"), *out("played")],
        ["interpolate", "melody-2", tune, tune, *out("way")],
        ["average", "melody-2", tune, tune, *out("between")],
        ["vary", "melody-2", tune, *out("variations")],
        ["grid", "melody-2", tune, tune, tune, tune, "--size", "2", *out("square")],
        ["attribute", "list", "melody-2"],
        ["attribute", "apply", "melody-2", tune, "--set", "note-density=+0.5", *out("bent")],
        ["attribute", "sweep", "melody-2", tune, "--attribute", "note-density", *out("swept")],
        ["attribute", "swap", "melody-2", tune, "--from", "note-density", "--to", "pitch-range", *out("swapped")],
    ]
    printed, errors = call(commands)
    assert "failed" not in printed and all(line.startswith("warning: ") for line in errors.splitlines())
    assert len(list(tmp_path.glob("*/*.mid"))) == 47


def test_every_other_command_names_the_extra_that_it_needs(tune: str, tmp_path: Path) -> None:
    folder, out = str(Path(tune).parent), ["--out", str(tmp_path / "out")]
    commands = [
        ["train", "melody-2", folder, *out],
        ["evaluate", "melody-2", folder],
        ["dataset", "build", folder, "--representation", "melody", *out],
        ["dataset", "info", folder],
        ["attribute", "learn", "melody-2", folder, "--out", str(tmp_path / "learnt.safetensors")],
        ["import", folder, *out],
        ["export", "melody-2", "--magenta-js", str(tmp_path / "out")],
        ["sample", "melody-2", "--device", "cuda", *out],
    ]
    printed, errors = call(commands)
    assert printed.count("failed") == len(commands)
    lines = errors.splitlines()
    assert len(lines) == len(commands)
    for words, line in zip(commands, lines):
        assert line.startswith(f"musicvae {words[0]}") and line.endswith("pip install 'musicvae[train]'")
    assert not list(tmp_path.iterdir()), "nothing is left half-written"


def test_a_model_in_python_needs_no_torch() -> None:
    code = (
        "import sys, musicvae; musicvae.load('melody-2').sample(2); "
        "assert not {'torch', 'pyarrow'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
