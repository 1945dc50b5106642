"""What a data set keeps once, which songs belong together, and that no split knows another."""

import csv

import numpy as np
import pytest
from folders import MELODY, build, table, tune, tunes, write
from smf import file

from musicvae.music import mapping
from musicvae.music.dataset import Dataset
from musicvae.music.grouping import SPLITS, split_groups, tie
from musicvae.music.midi import Song, join
from musicvae.music.unique import as_bytes, hash_rows, same_rows

# --- unique ------------------------------------------------------------------------------------------------------


def test_equal_windows_are_kept_once_and_named_by_the_least_source(tmp_path):
    same = tune(1, 4)
    twice = file(tune(1, 4)[14:], tune(1, 4)[14:])  # the same line in two tracks
    files = {"z.mid": same, "a/b.mid": same, "a/c.mid": twice, "b.mid": tune(2, 4)}
    data = build([write(tmp_path / "in", files)], MELODY, tmp_path / "out")
    rows = table(data)
    assert sorted(zip(rows["file"], rows["instrument"], rows["bar"])) == [
        *(("a/b.mid", 0, bar) for bar in range(3)),
        *(("b.mid", 0, bar) for bar in range(3)),
    ]
    windows = data.report["windows"]
    assert (windows["after_silence_rule"], windows["unique"], windows["duplicates"]) == (15, 6, 9)


def test_hashes_only_sort():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, (300, 4)).astype(np.uint8)
    first = [next(j for j in range(300) if (rows[j] == rows[i]).all()) for i in range(300)]
    for key in (hash_rows(rows), np.zeros(300, np.uint64), rows[:, 0].astype(np.uint64)):
        assert same_rows(rows, key).tolist() == first
    assert same_rows(rows[:0], hash_rows(rows[:0])).tolist() == []


def test_many_colliding_rows_stay_apart():
    rows = np.arange(40_000, dtype=np.uint32).repeat(2).view(np.uint8).reshape(-1, 4)
    key = (np.arange(80_000) // 2 % 7).astype(np.uint64)
    assert same_rows(rows, key).tolist() == [i // 2 * 2 for i in range(80_000)]


def test_the_hash_hears_every_token():
    rows = np.zeros((1 + 33 * 3, 33), np.uint16)
    for i in range(33):
        for n, token in enumerate((1, 256, 511)):
            rows[1 + 3 * i + n, i] = token
    assert len(set(hash_rows(rows).tolist())) == len(rows)
    assert as_bytes(rows).shape == (100, 66)


def test_a_collision_in_the_whole_build_loses_nothing(tmp_path, songs, data, monkeypatch):
    monkeypatch.setattr(mapping, "hash_rows", lambda rows: np.full(len(rows), 1 << 41, np.uint64))
    collided = build([songs], MELODY, tmp_path / "out")
    assert sorted(table(collided)["tokens"]) == sorted(table(data)["tokens"])


# --- splits ------------------------------------------------------------------------------------------------------


def variants() -> dict[str, bytes]:
    """Tunes of which some are copies, some transposed, and some share a stock phrase."""
    stock = tune(999, 3)
    files = {f"tune-{n:03d}.mid": tune(n, 6) for n in range(150)}
    files |= {f"up-{n:03d}.mid": tune(n, 6, up=3) for n in range(0, 150, 3)}
    files |= {f"copy-{n:03d}.mid": tune(n, 6) for n in range(0, 150, 10)}
    for n in range(30):  # more songs share the stock phrase than may be tied by it, and it is half of each
        own = Song.read(tune(2000 + n, 3))
        both = join([Song.read(stock), own])
        files[f"stock-{n:02d}.mid"] = both.to_bytes()
    return files


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Dataset:
    folder = write(tmp_path_factory.mktemp("family"), variants())
    return build([folder], MELODY, tmp_path_factory.mktemp("out") / "data")


def test_splits_share_no_window(family):
    windows = {split: {r.tobytes() for r in family.tokens(split)} for split in SPLITS}
    assert all(windows.values())
    assert not windows["train"] & windows["test"] and not windows["train"] & windows["validation"]
    assert not windows["test"] & windows["validation"]


def test_groups_never_straddle(family):
    rows = table(family)
    place = {}
    for name, group, split in zip(rows["file"], rows["group"], rows["split"]):
        assert place.setdefault(group, split) == split
        place.setdefault(name, (group, split))
        assert place[name] == (group, split)


def test_copies_in_another_key_tie(family):
    rows = table(family)
    group = dict(zip(rows["file"], rows["group"]))
    for n in range(0, 150, 3):
        assert group[f"up-{n:03d}.mid"] == group.get(f"tune-{n:03d}.mid", group.get(f"copy-{n:03d}.mid"))


def test_stock_phrases_tie_nobody(family):
    rows = table(family)
    groups = {g for name, g in zip(rows["file"], rows["group"]) if name.startswith("stock")}
    assert len(groups) == 30


def test_about_nine_in_ten_groups_train(family):
    groups = {split: r["groups"] for split, r in family.report["splits"].items()}
    assert sum(groups.values()) == 180
    assert 0.82 < groups["train"] / 180 < 0.96 and groups["validation"] > 2 and groups["test"] > 2


def test_the_split_does_not_hang_on_names():
    rng = np.random.default_rng(0)
    marks = [np.unique(rng.integers(0, 1 << 60, 20).astype(np.uint64)) for _ in range(200)]
    split = split_groups(marks, tie(marks))
    order = rng.permutation(200)
    moved = [marks[i] for i in order]
    assert np.array_equal(split_groups(moved, tie(moved)), split[order])


@pytest.mark.parametrize("shared, tied", [(10, True), (9, False)])
def test_half_of_the_smaller_song_ties(shared, tied):
    small, large = np.arange(20, dtype=np.uint64), np.arange(20 - shared, 400, dtype=np.uint64)
    assert (len(set(tie([small, large]).tolist())) == 1) == tied


def test_ties_are_passed_on_and_identical_songs_tie_however_many():
    a, b, c = (np.array(m, np.uint64) for m in ([1, 2], [2, 3], [3, 4]))
    assert tie([a, b, c]).tolist() == [0, 0, 0]
    assert set(tie([a] * 50).tolist()) == {0}
    nothing = np.zeros(0, np.uint64)
    assert tie([nothing, nothing]).tolist() == [0, 1]


def test_groups_of_a_person_tie(songs, tmp_path):
    names = [f"{n % 3}/tune-{n:03d}.mid" for n in range(70)]
    path = tmp_path / "ties.csv"
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([("group", "file"), *(("mine", name) for name in names[:40]), ("mine", "absent.mid")])
    data = build([songs], MELODY, tmp_path / "out", groups=path)
    group = dict(zip(table(data)["file"], table(data)["group"]))
    assert len({group[name] for name in names[:40]}) == 1 and len(set(group.values())) == 31


@pytest.mark.parametrize(
    "text, words",
    [
        ("name,group\na,b\n", "needed are file and group"),
        ("file,group\nx.mid,1\n", "none of its 1 files"),
        ("file,group\na.mid,\nb.mid, \n", "no group for 'a.mid' and 1 others"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_groups_file_says_what_is_wrong(songs, tmp_path, text, words):
    path = tmp_path / "ties.csv"
    if text:
        path.write_text(text)
    with pytest.raises(ValueError, match=words):
        build([songs], MELODY, tmp_path / "out", groups=path)


def test_what_may_only_train_never_tests(tmp_path):
    real, made = write(tmp_path / "real", tunes(60)), write(tmp_path / "made", tunes(60, 40))  # 20 are in both
    data = build([real], MELODY, tmp_path / "out", train_only=[made])
    rows = table(data)
    assert {split for name, split in zip(rows["file"], rows["split"]) if name.startswith("made")} == {"train"}
    held = data.report["held_back"]
    assert 0 < held < 20
    train, test = ({r.tobytes() for r in data.tokens(s)} for s in ("train", "test"))
    assert test and not train & test
