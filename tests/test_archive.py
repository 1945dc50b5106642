"""Archives from strangers: what they hold comes out, and nothing else, and never anywhere else."""

import gzip
import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from musicvae import archive
from musicvae.archive import unpacked

FILES = {"folder/a.index": b"index" * 100, "folder/a.data": np.random.default_rng(0).bytes(5000), "top": b""}


def make_tar(path: Path, files: dict[str, bytes] = FILES, change: Callable[[tarfile.TarInfo], None] = id) -> None:
    """change: what is done to the last member before it is written."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name == list(files)[-1]:
                change(info)
            tar.addfile(info, io.BytesIO(data))


def make_zip(path: Path, files: dict[str, bytes] = FILES, change: Callable[[zipfile.ZipInfo], None] = id) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # which may hold what ZipInfo would mend
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            out.writestr(info, data)


def make(path: Path, files: dict[str, bytes] = FILES) -> None:
    make_zip(path, files) if path.name.endswith(".zip") else make_tar(path, files)


def held(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refuse(path: Path, says: str) -> None:
    """It is refused in one sentence with its name, and beside it nothing stays behind."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(ValueError) as error, unpacked(path, path.parent):
        pass
    assert says in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "A.ZIP"])
def test_what_was_packed_comes_out_and_is_gone_afterwards(tmp_path: Path, name: str):
    make(tmp_path / name) if name != "A.ZIP" else make_zip(tmp_path / name)
    with unpacked(tmp_path / name, tmp_path) as folder:
        assert held(folder) == FILES and folder.parent == tmp_path
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_tar_is_told_from_a_packed_one_by_its_bytes(tmp_path: Path):
    make_tar(tmp_path / "a.tar.gz")
    (tmp_path / "a.tar.gz").rename(tmp_path / "b.tar")
    with unpacked(tmp_path / "b.tar", tmp_path) as folder:
        assert held(folder) == FILES


NAMES = ["../out", "a/../../out", "/etc/out", "//out", "C:\\out", "a\\..\\out", "..", "n" * 300]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, kind: str, name: str):
    make(tmp_path / f"a.{kind}", {"good": b"good", name: b"bad"})
    refuse(tmp_path / f"a.{kind}", "outside its folder")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_what_is_no_file_is_refused_in_a_tar(tmp_path: Path, kind: bytes):
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    make_tar(tmp_path / "a.tar", {"good": b"good", "bad": b""}, change)
    refuse(tmp_path / "a.tar", "is a link, a device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_what_is_no_file_is_refused_in_a_zip(tmp_path: Path, kind: int):
    def change(info: zipfile.ZipInfo) -> None:
        info.create_system, info.external_attr = 3, (kind | 0o644) << 16

    make_zip(tmp_path / "a.zip", {"bad": b"/etc/passwd"}, change)
    refuse(tmp_path / "a.zip", "is a link, a device")


def test_a_name_that_stands_twice_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("same"))
    refuse(tmp_path / "a.tar", "stands there twice")
    make(tmp_path / "b.tar", {"a": b"file", "a/b": b"in a file"})
    refuse(tmp_path / "b.tar", "stands there twice")


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 2**16)
    for name in ("a.zip", "a.tar.gz"):
        make(tmp_path / name, {"zeros": bytes(2**24)})
        assert (tmp_path / name).stat().st_size < 2**15
        tracemalloc.start()
        refuse(tmp_path / name, "more than its size allows")
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()


def test_many_small_ones_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 2**16)
    make(tmp_path / "a.zip", {f"zeros-{i}": bytes(2**13) for i in range(300)})
    monkeypatch.setattr(archive, "MAX_RATIO", 10)
    refuse(tmp_path / "a.zip", "more than its size allows")
    monkeypatch.setattr(archive, "MAX_RATIO", 10_000)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 200)
    refuse(tmp_path / "a.zip", "more than 200 files")


def test_sizes_that_are_only_claimed_are_refused(tmp_path: Path):
    header = tarfile.TarInfo("claims")
    header.size = 2**32
    (tmp_path / "a.tar").write_bytes(header.tobuf() + b"little" * 100)
    refuse(tmp_path / "a.tar", "more than its size allows")
    header.size = 2**20
    (tmp_path / "b.tar").write_bytes(header.tobuf() + b"little" * 100)
    refuse(tmp_path / "b.tar", "damaged archive")
    header.type, header.size = tarfile.XHDTYPE, 2**30  # a header of a gigabyte
    (tmp_path / "c.tar").write_bytes(header.tobuf() + b"little" * 100)
    refuse(tmp_path / "c.tar", "more than its size allows")
    make_zip(tmp_path / "d.zip", {"claims": b"little"})
    data = (tmp_path / "d.zip").read_bytes()
    at = data.index(b"PK\1\2")
    (tmp_path / "d.zip").write_bytes(data[: at + 24] + struct.pack("<I", 2**31) + data[at + 28 :])
    refuse(tmp_path / "d.zip", "more than its size allows")


def test_a_full_disk_is_no_surprise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make(tmp_path / "a.zip")
    usage = archive.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: usage)
    refuse(tmp_path / "a.zip", "has room for 1,000")


def test_what_is_encrypted_says_so(tmp_path: Path):
    make_zip(tmp_path / "a.zip", {"secret": b"x" * 100})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + place] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    refuse(tmp_path / "a.zip", "is encrypted")


def test_what_is_no_archive_at_all(tmp_path: Path):
    for name in ("a.tar", "a.tar.gz", "a.zip"):
        for data in (b"", b"plain text", gzip.compress(b"plain text")):
            (tmp_path / name).write_bytes(data)
            refuse(tmp_path / name, "damaged archive")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_damage_at_random_places_never_leads_astray(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    make(tmp_path / name)
    whole, rng = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    for _ in range(40):
        data = bytearray(whole)
        for at in rng.integers(len(data), size=int(rng.integers(1, 4))):
            data[at] = int(rng.integers(256))
        (tmp_path / name).write_bytes(data[: len(data) if rng.random() < 0.7 else int(rng.integers(len(data)))])
        try:
            with unpacked(tmp_path / name, tmp_path) as folder:
                assert sum(map(len, held(folder).values())) <= 3 * 6000
        except ValueError as error:
            assert str(tmp_path / name) in str(error)
        assert [p.name for p in tmp_path.iterdir()] == [name]
