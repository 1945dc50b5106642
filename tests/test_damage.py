"""Data sets from archives with strange entries, of files without an end, in scripts, and after bits have flipped."""

import io
import os
import random
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from folders import MELODY, build, table, tune, tunes, write

from musicvae.music import dataset as dataset_module
from musicvae.music.dataset import Dataset
from musicvae.music.guard import MAX_BYTES
from musicvae.music.sources import list_sources, read_sources


def entry(name: str, data: bytes = b"", **kind) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in kind.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def tar_of(path, *entries):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for info, data in entries:
            archive.addfile(info, data)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".zip"])
@pytest.mark.parametrize("size", [(1 << 20) + 1, MAX_BYTES, MAX_BYTES + 1, 3 * MAX_BYTES])
def test_a_large_file_costs_an_archive_itself_at_most(tmp_path, ending, size):
    padded = tune(0) + bytes(size - len(tune(0)))  # padding behind the last track
    files = {"a.mid": tune(1), "b.mid": padded, "c.mid": tune(2)}
    path = tmp_path / f"songs{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        tar_of(path, *(entry(name, data) for name, data in files.items()))
    read = list(read_sources(list_sources([path])))
    assert [read[0], read[2]] == [tune(1), tune(2)]
    assert read[1] == padded[: MAX_BYTES + 1]  # as many bytes as show that it is too large
    report = build([path], MELODY, tmp_path / "out").report
    refused = report["rejected"].get("too-large", {"files": 0})
    assert refused["files"] == (size > MAX_BYTES) and report["files"]["read"] == 3


def test_entries_that_are_no_files_of_their_own_are_named(tmp_path):
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as archive:
        archive.writestr("inside.mid", tune(5))
    tar_of(
        tmp_path / "songs.tar",
        entry("folder.mid", type=tarfile.DIRTYPE),
        entry("tune.mid", tune(1)),
        entry("hard.mid", type=tarfile.LNKTYPE, linkname="tune.mid"),
        entry("soft.mid", type=tarfile.SYMTYPE, linkname="tune.mid"),
        entry("pipe.mid", type=tarfile.FIFOTYPE),
        entry("more.zip", nested.getvalue()),
        entry("tune.mid", tune(2)),
        entry("notes.txt", b"no MIDI by its name"),
    )
    data = build([tmp_path / "songs.tar"], MELODY, tmp_path / "out")
    rejected = data.report["rejected"]
    assert data.report["files"] == {"read": 6, "used": 1, "rejected": 5, "with_metres_dropped": 0}
    assert {reason: r["files"] for reason, r in rejected.items()} == {"link": 3, "nested": 1, "same-name": 1}
    links = " ".join(rejected["link"]["examples"])
    assert "hard.mid" in links and "a hard link to tune.mid" in links and "a symbolic link to tune.mid" in links
    assert rejected["nested"]["examples"][0].startswith("songs.tar/more.zip:")
    assert rejected["same-name"]["examples"][0].startswith("songs.tar/tune.mid (entry 2):")
    alone = build([write(tmp_path / "alone", {"tune.mid": tune(2)})], MELODY, tmp_path / "other")
    assert table(data)["tokens"] == table(alone)["tokens"]  # of two of one name, the last, as tar itself unpacks them


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_equal_names_and_nested_archives_in_a_zip_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "songs.zip", "w") as archive:
        archive.writestr("tune.mid", tune(1))
        archive.writestr("more.tar.gz", b"")
        archive.writestr("tune.mid", tune(2))
    sources = list_sources([tmp_path / "songs.zip"])
    assert [s.reason for s in sources if s.problem] == ["nested", "same-name"]
    assert tune(2) in list(read_sources(sources)) and tune(1) not in list(read_sources(sources))


def test_a_file_that_is_too_large_makes_no_buckets(tmp_path, monkeypatch):
    folder = write(tmp_path / "in", tunes(4))
    with open(folder / "sparse.mid", "wb") as file:
        os.truncate(file.fileno(), 20 << 30)
    made = []
    plan = dataset_module._plan
    monkeypatch.setattr(dataset_module, "_plan", lambda *given: made.append(plan(*given)) or made[-1])
    report = build([folder], MELODY, tmp_path / "out").report
    assert made[0]["buckets"] == 4 and report["rejected"]["too-large"]["files"] == 1


def test_a_data_set_that_appears_before_the_lock_is_held_is_not_replaced(tmp_path, monkeypatch):
    folder, out = write(tmp_path / "in", tunes(3)), tmp_path / "out"
    listed = dataset_module.list_sources

    def another_is_quicker(*given):
        monkeypatch.setattr(dataset_module, "list_sources", listed)
        build([folder], MELODY, out)
        return listed(*given)

    monkeypatch.setattr(dataset_module, "list_sources", another_is_quicker)
    with pytest.raises(ValueError, match=r"exists already.*--overwrite"):
        build([write(tmp_path / "other", tunes(5))], MELODY, out)
    assert Dataset(out).report["files"]["read"] == 3


def test_any_flipped_bit_of_parquet_is_found_or_harmless(tmp_path):
    """All bits of such a file take three minutes: none of 30,000 gave other tokens. Here, some of pages and footer."""
    data = build([write(tmp_path / "in", tunes(30))], MELODY, tmp_path / "out")
    whole, tokens = np.asarray(data.tokens("train")), data.folder / "train.parquet"
    stored, rng = tokens.read_bytes(), random.Random(0)
    footer = 8 * (int.from_bytes(stored[-8:-4], "little") + 8)
    found = 0
    bits = [rng.randrange(8 * len(stored)) for _ in range(300)]
    for bit in bits + [8 * len(stored) - 1 - rng.randrange(footer) for _ in range(300)]:
        flipped = bytearray(stored)
        flipped[bit // 8] ^= 1 << bit % 8
        tokens.write_bytes(flipped)
        for cached in data.folder.glob("train.*.npy"):
            cached.unlink()
        try:
            assert np.array_equal(data.tokens("train"), whole)
        except ValueError as error:
            assert "train.parquet" in str(error) and "Build the data set again" in str(error)
            assert "\n" not in str(error)
            found += 1
    assert found > 200


def test_a_data_set_of_the_first_format_is_to_be_built_again(tmp_path):
    data = build([write(tmp_path / "in", tunes(3))], MELODY, tmp_path / "out")
    report = data.folder / "report.json"
    report.write_text(report.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(ValueError, match=r"a data set of format 1; this version reads format 2.*Build it again"):
        Dataset(data.folder)


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_without_a_main_guard_is_told_so(tmp_path, guarded):
    call = f"build_dataset([Path({str(write(tmp_path / 'in', tunes(3)))!r})], MELODY, Path({str(tmp_path / 'out')!r}))"
    lines = [
        "from pathlib import Path",
        "from musicvae.music.dataset import DatasetSettings, build_dataset",
        'MELODY = DatasetSettings("melody", 2)',
        f"if __name__ == '__main__':\n    {call}" if guarded else call,
    ]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines))
    path = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": path}
    )
    if guarded:
        assert done.returncode == 0 and Dataset(tmp_path / "out").report["files"]["used"] == 3, done.stderr
    else:
        assert done.returncode == 1 and done.stderr.count("Traceback") == 1
        assert 'below if __name__ == "__main__":' in done.stderr.splitlines()[-1]
        assert not (tmp_path / "out").exists()
