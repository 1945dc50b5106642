"""A file that is written is the old one or the new one, never a piece, and belongs to its user like any other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from musicvae.files import locked, replacing

START = "import os, pathlib, sys; from musicvae.files import replacing; path = pathlib.Path(sys.argv[1])\n"


def elsewhere(path: Path, program: str) -> int:
    """Runs a program in a process of its own and gives its exit code."""
    return subprocess.run([sys.executable, "-c", START + program, str(path)]).returncode


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("concurrent", [False, True])
def test_the_new_file_stands_when_all_is_written_and_not_before(tmp_path, concurrent):
    path = tmp_path / "song.mid"
    path.write_text("old")
    with replacing(path, concurrent) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path
    assert path.read_text() == "new" and names(tmp_path) == ["song.mid"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=type)
def test_a_failure_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "song.mid"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("ne")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["song.mid"]


def test_a_rename_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken" / "by a folder").mkdir(parents=True)
    with pytest.raises(OSError), replacing(tmp_path / "taken") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["taken"]


def test_what_a_killed_process_left_goes_with_the_next(tmp_path):
    path = tmp_path / "song.mid"
    assert elsewhere(path, "with replacing(path) as t: t.write_text('half, and much longer'); os._exit(9)") == 9
    assert len(names(tmp_path)) == 1 and not path.exists()
    with replacing(path) as temporary:
        assert temporary.read_text() == ""
        temporary.write_text("whole")
    assert path.read_text() == "whole" and names(tmp_path) == ["song.mid"]


def test_two_processes_may_write_one_file_at_once(tmp_path):
    path = tmp_path / "cache.npy"
    with replacing(path, concurrent=True) as mine:
        mine.write_text("mine")
        assert elsewhere(path, "with replacing(path, concurrent=True) as t: t.write_text('theirs')") == 0
        assert path.read_text() == "theirs" and mine.read_text() == "mine"
    assert path.read_text() == "mine" and names(tmp_path) == ["cache.npy"]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_are_those_of_any_other_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        (tmp_path / "other").write_text("")
        with replacing(tmp_path / "plain") as temporary:
            temporary.write_text("")
        with replacing(tmp_path / "renamed") as temporary:  # as safetensors does
            (tmp_path / "theirs").touch(0o600)
            (tmp_path / "theirs").replace(temporary)
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {oct(0o666 & ~umask)}


def test_a_lock_keeps_others_out_and_goes_with_its_holder(tmp_path):
    path = tmp_path / ".lock"
    program = "from musicvae.files import locked\nwith locked(path): "
    with locked(path):
        assert elsewhere(path, program + "pass") == 1
    assert elsewhere(path, program + "os._exit(5)") == 5 and path.exists()  # killed while it held the lock
    assert elsewhere(path, program + "pass") == 0 and not path.exists()
