"""Folders -> data sets: what is unique, parted and reported, and what survives damage, kills and crashes."""

import csv
import io
import json
import os
import random
import signal
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import smf
from fuzz_midi import build_all, check, read_all
from kill_resume import dataset_command, digests, killed_to_the_end, run
from smf import file, notes, track

from musicvae.music import dataset as dataset_module
from musicvae.music import mapping
from musicvae.music.dataset import Dataset, DatasetSettings, build_dataset
from musicvae.music.grouping import SPLITS, split_groups, tie
from musicvae.music.guard import MidiError
from musicvae.music.midi import Song, join
from musicvae.music.representation import Melody
from musicvae.music.sources import chunks, list_sources, read_sources
from musicvae.music.unique import as_bytes, hash_rows, same_rows
from musicvae.music.workers import Done, run_tasks

MELODY = DatasetSettings("melody", 2)


def tune(seed: int, bars: int = 8, up: int = 0) -> bytes:
    """A walk of quavers, unlike that of any other seed."""
    rng = random.Random(seed)
    pitch, line = 60, []
    for step in range(0, bars * 16, 2):
        pitch = min(max(pitch + rng.choice([-4, -3, -2, -1, 1, 2, 3, 4]), 40), 90)
        line.append((step, pitch + up, 2))
    return file(track(*notes(*line)))


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tunes(count: int, first: int = 0, bars: int = 8) -> dict[str, bytes]:
    return {f"{n % 3}/tune-{n:03d}.mid": tune(n, bars) for n in range(first, first + count)}


def table(data: Dataset) -> dict[str, list]:
    """All rows of all splits, by column."""
    rows = [data.rows(split) for split in SPLITS]
    return {name: [x for r in rows for x in r[name].to_pylist()] for name in rows[0].column_names}


def in_this_process(work, tasks, workers):
    """What `run_tasks` does, without the second that each process takes to start."""
    for task in tasks:
        yield Done(task, work(task))


def build(*given, **more) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_module, "run_tasks", in_this_process)
        return build_dataset(*given, **more)


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("songs"), tunes(70))


@pytest.fixture(scope="module")
def data(songs, tmp_path_factory) -> Dataset:
    return build([songs], MELODY, tmp_path_factory.mktemp("data") / "melody-2")


# --- what is in it -----------------------------------------------------------------------------------------------


def test_rows_are_the_windows_of_the_files(songs, data):
    rows = table(data)
    assert len(rows["file"]) == 70 * 7 == data.report["windows"]["unique"]
    for name, bar, tokens in random.Random(0).sample(list(zip(rows["file"], rows["bar"], rows["tokens"])), 40):
        line = Melody().to_tokens(Song.read(songs / name))[bar * 16 : bar * 16 + 32, 0]
        assert tokens == line.tolist()
    for split in SPLITS:
        assert data.tokens(split).shape == (data.report["splits"][split]["windows"], 32, 1)
        assert data.tokens(split)[:, :, 0].tolist() == data.rows(split)["tokens"].to_pylist()
    assert data.settings == MELODY


def test_tempo_and_bar_stand_beside_each_window(tmp_path):
    slow = [(0, smf.tempo(60)), (4 * 1920, smf.tempo(90))]
    line = notes(*((s, 60 + s % 11, 2) for s in range(0, 128, 2)))
    found = table(
        build([write(tmp_path / "in", {"a.mid": file(track(*slow), track(*line))})], MELODY, tmp_path / "out")
    )
    assert dict(zip(found["bar"], np.round(found["tempo"]))) == {b: 60 if b < 4 else 90 for b in range(7)}


@pytest.mark.parametrize(
    "kind, bars", [("melody", 16), ("melody-90", 2), ("drums", 2), ("drums", 16), ("trio", 2), ("trio", 16)]
)
def test_every_representation(kind, bars, tmp_path):
    for n in range(6):
        lead, bass = tune(n, 20)[14:], bytes(tune(n + 50, 20)[14:]).replace(b"\x00\x90", b"\x00\xc0\x21\x00\x90", 1)
        bass = bass[:4] + (len(bass) - 8).to_bytes(4) + bass[8:]
        beat = track(*notes(*((s, 36 if s % 8 else 38, 1) for s in range(n % 3, 320, 4)), channel=9))
        write(tmp_path / "in", {f"{n}.mid": file(lead, bass, beat)})
    data = build([tmp_path / "in"], DatasetSettings(kind, bars), tmp_path / "out")
    vocab = data.settings.tokens.vocab_sizes
    rows = np.concatenate([data.tokens(s) for s in SPLITS])
    assert len(rows) and rows.dtype == np.uint16 and rows.shape[1:] == (bars * 16, len(vocab))
    assert (rows < vocab).all() and len({r.tobytes() for r in rows}) == len(rows)
    assert data.settings == DatasetSettings(kind, bars)


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


# --- the same, however it is made --------------------------------------------------------------------------------


def test_any_number_of_workers_gives_the_same_bytes(songs, data, tmp_path):
    build_dataset([songs], MELODY, tmp_path / "three", workers=3)
    assert digests(tmp_path / "three") == digests(data.folder, "*.parquet") | digests(data.folder, "*.json")


def test_portions_and_chunks_do_not_matter(songs, data, tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "NOTES_AT_ONCE", 100)
    monkeypatch.setattr("musicvae.music.sources.FILES_PER_CHUNK", 7)
    build([songs], MELODY, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(data.folder, "*.parquet") | digests(data.folder, "*.json")


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar"])
def test_an_archive_is_as_its_folder(songs, data, tmp_path, ending):
    packed = tmp_path / "in" / f"all.{ending}"
    pack(songs, packed)
    from_archive = table(build([packed.parent], MELODY, tmp_path / "out"))
    plain = table(data)
    assert [name.removeprefix(f"all.{ending}/") for name in from_archive.pop("file")] == plain.pop("file")
    assert from_archive == plain


def pack(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    inside = sorted(folder.rglob("*.mid"), key=lambda p: p.name[::-1])  # in another order than that of names
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in inside:
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(target, "w:gz" if target.suffix == ".gz" else "w") as archive:
            for path in inside:
                archive.add(path, path.relative_to(folder))


def test_the_same_folder_twice_is_once(songs, data, tmp_path):
    twice = build([songs, songs / "0", songs], MELODY, tmp_path / "out")
    assert twice.report["files"]["read"] == 70


# --- what goes wrong ---------------------------------------------------------------------------------------------


def test_nothing_to_be_had_says_why(tmp_path):
    waltz = file(track((0, smf.signature(3)), *notes((0, 60, 4))))
    write(tmp_path / "in", {"a.mid": waltz, "b.mid": waltz, "c.mid": b"junk", "d.mid": file(track(*notes((0, 60, 4))))})
    with pytest.raises(ValueError) as error:
        build([tmp_path / "in"], DatasetSettings("melody", 16), tmp_path / "out")
    for words in (
        "no melody window of 16 bars",
        "2 because it has no notes in 4/4",
        "no MIDI header",
        "inspect",
        "--bars 2",
    ):
        assert words in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("what", ["absent", "empty"])
def test_no_files_is_an_error(tmp_path, what):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no such file or folder" if what == "absent" else "no MIDI file found"):
        build([tmp_path / what], MELODY, tmp_path / "out")


def test_a_data_set_is_only_replaced_when_asked(songs, tmp_path):
    out = tmp_path / "out"
    build([songs / "0"], MELODY, out)
    with pytest.raises(ValueError, match=r"exists already.*--overwrite"):
        build([songs], MELODY, out)
    build([songs], MELODY, out, overwrite=True)
    assert Dataset(out).report["files"]["read"] == 70
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_unknown_settings_list_the_known():
    with pytest.raises(ValueError, match="the models take 2 or 16"):
        DatasetSettings("melody", 4)
    with pytest.raises(ValueError, match="known are melody"):
        DatasetSettings("harmony", 2)


@pytest.mark.parametrize("damage", ["absent", "empty", "json", "format", "parquet", "split"])
def test_a_damaged_data_set_says_so(songs, tmp_path, damage):
    out = tmp_path / "out"
    build([songs / "1"], MELODY, out)
    report = out / "report.json"
    if damage == "empty":
        report.unlink()
    elif damage == "json":
        report.write_text("{")
    elif damage == "format":
        report.write_text(json.dumps({"format": 99}))
    elif damage == "parquet":
        (out / "train.parquet").write_bytes(b"PAR1 no longer")
    where = tmp_path / "absent" if damage == "absent" else out
    with pytest.raises(
        ValueError, match=r"no such folder|not a data set|damaged|format 99|cannot be read|no split 'all'"
    ):
        Dataset(where).tokens("all" if damage == "split" else "train")


def test_the_report_names_every_file_it_leaves_out(tmp_path):
    files = {
        "good.mid": tune(1),
        "short.mid": tune(2, 1),
        "kit.mid": file(track(*notes((0, 36, 1), channel=9))),
        "rests.mid": file(track(*notes((0, 60, 1), (40, 62, 1)), end=9000)),
        "junk.mid": b"no music",
        "none.mid": b"",
        "five.mid": file(track((0, smf.signature(5)), *notes((0, 60, 4)))),
        "damaged.zip": b"PK\3\4 and no more",
        "damaged.tar.gz": b"\x1f\x8b\x08\0\0\0\0\0\0\3damage",
    }
    folder = write(tmp_path / "in", files)
    (folder / "nowhere.mid").symlink_to("gone.mid")
    (folder / "circle.mid").symlink_to("circle.mid")
    os.mkfifo(folder / "pipe.mid")
    report = build([folder], MELODY, tmp_path / "out").report
    reasons = {reason: r["files"] for reason, r in report["rejected"].items()}
    assert reasons == {
        "unreadable": 5, "too-short": 1, "no-part": 1, "too-silent": 1, "not-midi": 1, "empty": 1, "no-4/4": 1,
    }  # fmt: skip
    assert report["files"] == {"read": 12, "used": 1, "rejected": 11, "with_metres_dropped": 0}
    text = json.dumps(report["rejected"])
    assert "5/4 from bar 1" in text and "longest stretch of 4/4: 1 bars" in text and "drums only" in text


def test_names_may_be_of_any_bytes(tmp_path):
    folder = write(tmp_path / "in", {"Flöte 🎵.mid": tune(1), "a,b\n\"c'.MID": tune(2), "-rf .KAR": tune(3)})
    with open(os.fsencode(folder) + b"/Fl\xf6te.mid", "wb") as latin:
        latin.write(tune(4))
    with tarfile.open(folder / "old.tar", "w", encoding="latin-1") as archive:
        info = tarfile.TarInfo("../M\xfcll/\xe9.mid")
        info.size = len(tune(5))
        archive.addfile(info, io.BytesIO(tune(5)))
    found = build([folder], MELODY, tmp_path / "out")
    assert found.report["files"]["used"] == 5
    assert {"Flöte 🎵.mid", "a,b\n\"c'.MID", "-rf .KAR", "Fl\\xf6te.mid"} < set(table(found)["file"])


def test_links_are_followed_to_files_but_never_in_circles(tmp_path):
    folder = write(tmp_path / "in", {"a/one.mid": tune(1)})
    (folder / "a" / "again").symlink_to(folder, target_is_directory=True)
    (folder / "two.mid").symlink_to(folder / "a" / "one.mid")
    assert [s.name for s in list_sources([folder])] == ["a/one.mid", "two.mid"]


def test_an_archive_that_unpacks_to_gigabytes_stays_small(tmp_path):
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("big.mid", "w") as member:
            for _ in range(60):
                member.write(bytes(1 << 20))
        archive.writestr("small.mid", tune(1))
    assert bomb.stat().st_size < 1 << 20
    big, small = read_sources(list_sources([bomb]))
    assert len(big) == (4 << 20) + 1 and Melody().to_tokens(Song.read(small)).any()


def test_an_archive_that_changed_since_it_was_listed_costs_only_itself(tmp_path, songs):
    for ending in ("zip", "tar"):
        packed = tmp_path / f"all.{ending}"
        pack(songs / "0", packed)
        sources = list_sources([packed])
        packed.write_bytes(b"gone")
        assert all(isinstance(found, MidiError) for found in read_sources(sources)) and len(sources) == 24


def test_chunks_are_in_order_and_keep_archives_together(tmp_path, songs):
    pack(songs, tmp_path / "b.tar")
    pack(songs, tmp_path / "c.zip")
    write(tmp_path, {**{f"a{n}.mid": b"" for n in range(100)}, "d.mid": b""})
    sources = list_sources([tmp_path])
    found = chunks(sources)
    assert [i for chunk in found for i in chunk] == list(range(len(sources)))
    assert [len(chunk) for chunk in found] == [64, 36, 70, 70, 1]


# --- workers -----------------------------------------------------------------------------------------------------


def reading_elsewhere(work, tasks, workers):
    """Other processes for the reading only."""
    reading = work is not dataset_module.reduce_bucket
    yield from run_tasks(work, tasks, workers, item_seconds=3) if reading else in_this_process(work, tasks, workers)


def dying_map(task, skip, beat):
    """map_chunk, in a process where two files are poison."""
    real = mapping.parse

    def parse(data):
        if data == tune(5):
            os.kill(os.getpid(), signal.SIGKILL)
        if data == tune(6):
            time.sleep(60)
        return real(data)

    mapping.parse = parse
    try:
        mapping.map_chunk(task, skip, beat)
    finally:
        mapping.parse = real


def test_a_file_that_ends_or_stops_a_process_costs_one_file(songs, data, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "map_chunk", dying_map)
    monkeypatch.setattr(dataset_module, "run_tasks", reading_elsewhere)
    found = build_dataset([songs], MELODY, tmp_path / "out", workers=2)
    rejected = {reason: r["examples"] for reason, r in found.report["rejected"].items()}
    assert rejected == {
        "crashed": ["2/tune-005.mid: reading it ended the process"],
        "hung": ["0/tune-006.mid: reading it took too long"],
    }
    assert found.report["files"]["used"] == 68
    here, there = (set(zip(table(d)["file"], table(d)["bar"])) for d in (found, data))
    assert {name for name, _ in there - here} == {"2/tune-005.mid", "0/tune-006.mid"} and here < there


def dying_together(task, skip, beat):
    """map_chunk, in a process that ends when the windows of one song are looked for."""
    real = mapping.find_windows

    def find_windows(songs, *more):
        if any(song.notes.pitch[:9].tolist() == Song.read(tune(7)).notes.pitch[:9].tolist() for song in songs):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(songs, *more)

    mapping.find_windows = find_windows
    try:
        mapping.map_chunk(task, skip, beat)
    finally:
        mapping.find_windows = real


def test_a_song_that_ends_a_process_later_costs_one_file_too(songs, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "map_chunk", dying_together)
    monkeypatch.setattr(dataset_module, "run_tasks", reading_elsewhere)
    found = build_dataset([songs], MELODY, tmp_path / "out")
    assert {reason: r["examples"] for reason, r in found.report["rejected"].items()} == {
        "crashed": ["1/tune-007.mid: reading it ended the process"]
    }


def test_a_song_that_our_code_fails_on_costs_one_file(songs, data, tmp_path, monkeypatch):
    real = mapping.find_windows
    bad = Song.read(tune(8)).notes.pitch[:9].tolist()

    def find_windows(songs, *more):
        if any(song.notes.pitch[:9].tolist() == bad for song in songs):
            raise IndexError("we forgot something")
        return real(songs, *more)

    monkeypatch.setattr(mapping, "find_windows", find_windows)
    report = build([songs], MELODY, tmp_path / "out").report
    assert report["rejected"]["internal"]["examples"] == ["2/tune-008.mid: IndexError: we forgot something"]
    assert report["files"]["used"] == 69


def counting(task, skip, beat):
    for i in range(5):
        beat(i)
    return task * 2


def failing(task, skip, beat):
    raise KeyError("a mistake of ours")


def ending(task, skip, beat):
    os._exit(3)


def test_results_come_from_every_task():
    assert sorted(done.result for done in run_tasks(counting, list(range(20)), 3)) == list(range(0, 40, 2))
    assert list(run_tasks(counting, [], 3)) == []


def test_a_mistake_in_a_worker_is_not_hidden():
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(run_tasks(failing, [1], 1))


def test_workers_that_always_die_are_given_up():
    with pytest.raises(RuntimeError, match=r"keep dying .exit code 3"):
        list(run_tasks(ending, [1], 1))


# --- kills and damage, in small ----------------------------------------------------------------------------------


def test_a_build_goes_on_after_each_step(songs, data, tmp_path, monkeypatch):
    """Interrupted after every task in turn, and begun again."""
    monkeypatch.setattr(dataset_module, "run_tasks", interrupted)
    expected = digests(data.folder, "*.parquet") | digests(data.folder, "*.json")
    for _ in range(30):
        try:
            build_dataset([songs], MELODY, tmp_path / "out")
            break
        except KeyboardInterrupt:
            continue
    assert digests(tmp_path / "out") == expected
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def interrupted(work, tasks, workers):
    for n, done in enumerate(in_this_process(work, tasks, workers)):
        fresh = not (tasks[0].work / f"seen-{work.__name__}-{n}").exists()
        (tasks[0].work / f"seen-{work.__name__}-{n}").touch()
        if fresh:
            raise KeyboardInterrupt
        yield done


def test_changed_files_begin_anew(songs, tmp_path, monkeypatch):
    folder = write(tmp_path / "in", tunes(12))
    monkeypatch.setattr(dataset_module, "run_tasks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_dataset([folder], MELODY, tmp_path / "out")
    write(folder, {"0/tune-000.mid": tune(777)})
    changed = build([folder], MELODY, tmp_path / "out")
    fresh = build([folder], MELODY, tmp_path / "fresh")
    assert table(changed) == table(fresh)


def test_a_killed_build_ends_with_the_same_bytes(tmp_path):
    folder, out = write(tmp_path / "in", tunes(150)), tmp_path / "broken"
    start = time.time()
    assert run(dataset_command([folder], tmp_path / "whole", 2))
    seconds = time.time() - start
    killed_to_the_end(dataset_command([folder], out, 2), out, 3, seconds, random.Random(0), Path.exists)
    assert digests(out) == digests(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "in", "whole"]


def test_damaged_files_are_all_in_the_report(real_files, tmp_path):
    seeds = [p.read_bytes() for p in random.Random(2).sample(real_files, 40) if p.stat().st_size < 30_000]
    result = read_all(seeds, 300, seed=2)
    report = build_all(seeds, 300, 2, tmp_path)
    assert check(result | {"memory_mb": 0}, report, 300) == []  # other tests have used this process's memory
