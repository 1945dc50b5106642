"""TensorFlow's checkpoint files: read to the bit, or refused in one sentence, whatever stands in them."""

import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import block, entry, field, mask, table, varint, write_bundle
from bundle_writer import crc32c as bytewise

from musicvae.model import crc32c
from musicvae.model.bundle import Bundle, read_message, read_table, read_varint

RNG = np.random.default_rng(0)
TENSORS = {
    **{f"encoder/layer_{i}/kernel": RNG.standard_normal((3, i + 1), np.float32) for i in range(9)},
    "global_step": np.array(12345, np.int64),
    "lone": np.array(2.5, np.float32),
    "nothing": np.zeros((0, 4), np.float32),
}


def same(bundle: Bundle, tensors: dict[str, np.ndarray]) -> bool:
    floats = {name: value for name, value in tensors.items() if value.dtype == np.float32}
    return bundle.shapes.keys() == tensors.keys() and all(
        bundle.read(name).tobytes() == value.tobytes() and bundle.shapes[name] == value.shape
        for name, value in floats.items()
    )


# --- the checksum --------------------------------------------------------------------------------------------------

# RFC 3720, appendix B.4, and the check value of the algorithm's catalogue
KNOWN = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E, b"123456789": 0xE3069283}


@pytest.mark.parametrize("crc", [crc32c.crc32c, crc32c.numpy_crc32c, bytewise], ids=["chosen", "NumPy", "tests'"])
def test_the_checksum_is_that_of_the_standard(crc):
    assert {data: crc(data) for data in KNOWN} == KNOWN and crc(b"") == 0


@pytest.mark.parametrize("size", [1, 3, 1023, 1024, 1025, 2048, 3 * 1024 + 5, 70_001])
def test_the_lanes_are_joined_as_if_there_were_one(size: int):
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    assert crc32c.numpy_crc32c(data) == crc32c.crc32c(data) == bytewise(data.tobytes())


def test_a_whole_block_of_lanes_and_what_is_left_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crc32c, "LANES", 8)
    monkeypatch.setattr(crc32c, "WORDS", 4)
    data = np.random.default_rng(0).integers(0, 256, 8 * 4 * 4 * 3 + 77, dtype=np.uint8)
    assert crc32c.numpy_crc32c(data) == bytewise(data.tobytes())


# --- sound files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["cat-mel_2bar_small", "cat-drums_2bar_small", "hierdec-mel_16bar"])
def test_files_of_the_original_are_read_to_the_bit(originals: Path, family: str):
    bundle = Bundle(originals / family / "model.ckpt")
    with np.load(originals / family / "expected.npz") as expected:
        tensors = {name[2:]: expected[name] for name in expected.files if name.startswith("w:")}
    assert len(tensors) > 12 and same(bundle, tensors)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("per_block", [1, 7, 100])
def test_what_the_writer_wrote_is_read(tmp_path: Path, shards: int, per_block: int):
    write_bundle(tmp_path / "a" / "model.ckpt-12345", TENSORS, shards, per_block=per_block)
    bundle = Bundle(tmp_path / "a" / "model.ckpt-12345")
    assert same(bundle, TENSORS) and bundle.step == 12345 and bundle.shards == shards


def test_both_checksums_verify_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_bundle(tmp_path / "m", TENSORS)
    monkeypatch.setattr("musicvae.model.crc32c.compiled", lambda: False)
    assert same(Bundle(tmp_path / "m"), TENSORS)


def test_a_checkpoint_that_does_not_count_its_steps_has_none(tmp_path: Path):
    write_bundle(tmp_path / "m", {"lone": TENSORS["lone"]})
    assert Bundle(tmp_path / "m").step is None
    write_bundle(tmp_path / "m", {"global_step": np.arange(2)})
    assert Bundle(tmp_path / "m").step is None


# --- unsound ones --------------------------------------------------------------------------------------------------

ENTRY = entry(1, (2,), 0, 0, 8, mask(bytewise(bytes(8))))


def write_rows(folder: Path, *rows: tuple[bytes, bytes], data: int = 8, **options) -> None:
    (folder / "m.index").write_bytes(table(list(rows), **options))
    (folder / "m.data-00000-of-00001").write_bytes(bytes(data))


def with_rows(*rows: tuple[bytes, bytes], **options):
    return lambda folder: write_rows(folder, (b"", field(1, 1)), *rows, **options)


def cut(name: str, size: int):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def pickled(folder: Path) -> None:
    (folder / "m.index").write_bytes(pickle.dumps({"weights": list(range(100))}))


def far_away(folder: Path) -> None:
    footer = (varint(0) + varint(0) + varint(5) + varint(2**32)).ljust(40, b"\0")
    (folder / "m.index").write_bytes(footer + (folder / "m.index").read_bytes()[-8:])


MALADIES = {
    "a pickle": (pickled, "no index of a TensorFlow checkpoint"),
    "empty": (cut("m.index", 0), "no index of a TensorFlow checkpoint"),
    "no index": (lambda folder: (folder / "m.index").unlink(), "there is no such file"),
    "index cut short": (cut("m.index", -1), "mark of a table"),
    "data cut short": (cut("m.data-00000-of-00001", -1), "cut short"),
    "no data": (lambda folder: (folder / "m.data-00000-of-00001").unlink(), "there is no such file"),
    "no header": (lambda folder: write_rows(folder, (b"a", ENTRY)), "has no header"),
    "big-endian": (lambda folder: write_rows(folder, (b"", field(1, 1) + field(2, 1)), (b"a", ENTRY)), "big-endian"),
    "2^60 data files": (lambda folder: write_rows(folder, (b"", field(1, 2**60))), "data files that cannot be"),
    "compressed": (with_rows((b"a", ENTRY), kind=1), "compressed (kind 1)"),
    "out of order": (with_rows((b"b", ENTRY), (b"a", ENTRY), per_block=1), "not in order"),
    "twice": (with_rows((b"a", ENTRY), (b"a", ENTRY)), "not in order"),
    "a name that is no text": (with_rows((b"\xff\xfe", ENTRY)), "no text"),
    "4 GB claimed": (with_rows((b"a", entry(1, (2**30,), 0, 0, 2**32, 0))), "asks for 4,294,967,296"),
    "4 GB away": (with_rows((b"a", entry(1, (2,), 0, 2**32, 8, 0))), "asks for 4,294,967,304"),
    "more than all disks": (with_rows((b"a", entry(1, (2**39, 2**39), 0, 0, 2**62, 0))), "takes"),
    "size of another shape": (with_rows((b"a", entry(1, (3,), 0, 0, 8, 0))), "takes 12 bytes, not 8"),
    "a negative dimension": (with_rows((b"a", entry(1, (2**64 - 1,), 0, 0, 8, 0))), "no size"),
    "another file": (with_rows((b"a", entry(1, (2,), 1, 0, 8, 0))), "data file 2 of 1"),
    "slices": (with_rows((b"a", ENTRY + field(7, b"\x08\x01"))), "slices"),
    "no entry": (with_rows((b"a", field(2, 7))), "is no entry"),
    "a field of no kind": (with_rows((b"a", b"\x0f")), "kind 7"),
    "a field past the end": (with_rows((b"a", varint(2 << 3 | 2) + varint(2**32) + b"x")), "after the end"),
    "a number without end": (with_rows((b"a", b"\x08" + b"\xff" * 20)), "no end"),
    "a key longer than all": (with_rows((b"a", ENTRY), spoil=lambda b: b"\0" + varint(2**32) + b), "after the end"),
    "2^32 restarts": (with_rows((b"a", ENTRY), spoil=lambda b: b[:-4] + b"\xff" * 4), "no header"),
    "a block past the end": (far_away, "does not fit the file"),
}


@pytest.mark.parametrize(("damage", "says"), MALADIES.values(), ids=MALADIES.keys())
def test_each_malady_has_its_sentence_and_takes_no_memory(tmp_path: Path, damage, says: str):
    write_bundle(tmp_path / "m", TENSORS)
    damage(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:
            Bundle(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert says in str(error.value) and str(tmp_path / "m") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_flipped_bit_of_an_array_is_found_and_named(tmp_path: Path):
    write_bundle(tmp_path / "m", TENSORS)
    path = tmp_path / "m.data-00000-of-00001"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"encoder/layer_0/kernel does not have its checksum"):
        same(Bundle(tmp_path / "m"), TENSORS)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32])
def test_only_float32_is_read(tmp_path: Path, kind: type):
    write_bundle(tmp_path / "m", {"a": np.ones(3, kind)})
    with pytest.raises(ValueError, match=r"a is of type .*; only float32"):
        Bundle(tmp_path / "m").read("a")


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, a bit flipped, a byte replaced, or some bytes lost, doubled or exchanged, at a random place."""
    at = int(rng.integers(len(data)))
    way, some = rng.integers(6), int(rng.integers(1, 9))
    return (
        data[:at],
        data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :],
        data[:at] + bytes([int(rng.choice([0, 127, 128, 255]))]) + data[at + 1 :],
        data[:at] + data[at + some :],
        data[:at] + data[at : at + some] * 2 + data[at + some :],
        data[:at] + rng.bytes(some) + data[at + some :],
    )[way]


def fuzz_files(folder: Path, n: int, seed: int = 0) -> dict[str, int]:
    """n damaged copies of a checkpoint: how many were refused, and how many read as if nothing had happened."""
    rng, counts = np.random.default_rng(seed), {"refused": 0, "harmless": 0}
    write_bundle(folder / "m", TENSORS)
    files = [folder / "m.index", folder / "m.data-00000-of-00001"]
    whole = {file: file.read_bytes() for file in files}
    for i in range(n):
        file = files[i % 2]
        file.write_bytes(damaged(whole[file], rng))
        try:
            bundle = Bundle(folder / "m")
            assert same(bundle, TENSORS) and bundle.step == 12345, f"case {i} was read wrongly"
            counts["harmless"] += 1  # a byte replaced by itself, or among the zeros that fill the footer
        except ValueError as error:
            assert str(folder / "m") in str(error)
            counts["refused"] += 1
        file.write_bytes(whole[file])
    return counts


def fuzz_blocks(folder: Path, n: int, seed: int = 0) -> dict[str, int]:
    """n indices that were altered by who knows the checksum: refused, or read, but nothing else."""
    rng, counts = np.random.default_rng(seed), {"refused": 0, "read": 0}
    write_bundle(folder / "m", TENSORS)
    rows = [(b"", field(1, 1))]
    rows += [(name.encode(), entry(1, (2,), 0, 0, 8, 0)) for name in sorted(TENSORS)]
    for _ in range(n):
        (folder / "m.index").write_bytes(table(rows, spoil=lambda data: damaged(data, rng)))
        try:
            Bundle(folder / "m")
            counts["read"] += 1
        except ValueError as error:
            assert str(folder / "m") in str(error)
            counts["refused"] += 1
    return counts


def test_damage_at_random_places_is_refused_or_harmless(tmp_path: Path):
    counts = fuzz_files(tmp_path, 300)
    assert counts["refused"] > 200


def test_damage_with_sound_checksums_is_refused_or_read(tmp_path: Path):
    counts = fuzz_blocks(tmp_path, 200)
    assert counts["refused"] > 100


def test_numbers_of_many_bytes():
    for value in (0, 127, 128, 2**32, 2**64 - 1):
        assert read_varint(varint(value), 0) == (value, len(varint(value)))
    assert list(read_message(field(1, 300) + field(2, b"xy") + varint(6 << 3 | 5) + struct.pack("<I", 7))) == [
        (1, 300),
        (2, b"xy"),
        (6, 7),
    ]


def test_keys_share_their_beginnings(tmp_path: Path):
    names = [f"{'same/' * 5}{i:03d}".encode() for i in range(50)]
    rows = [(name, name[::-1]) for name in names]
    assert len(block(rows)) < 0.7 * sum(len(a) + len(b) for a, b in rows)
    (tmp_path / "t.index").write_bytes(table(rows, per_block=20))
    assert read_table(tmp_path / "t.index") == [(name.decode(), value) for name, value in rows]
