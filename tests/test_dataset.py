"""Folders -> data sets: what is in them, the same however they are made, and what is left out, and why."""

import io
import json
import os
import random
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import smf
from folders import MELODY, build, pack, table, tune, write
from kill_resume import digests
from smf import file, notes, track

from musicvae.files import locked
from musicvae.music import mapping
from musicvae.music.dataset import Dataset, DatasetSettings, build_dataset
from musicvae.music.grouping import SPLITS
from musicvae.music.inspection import print_report
from musicvae.music.midi import Song
from musicvae.music.reasons import MidiError
from musicvae.music.representation import Melody, representation
from musicvae.music.sources import chunks, list_sources, read_sources

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
        lead, bass = tune(n, 20)[14:], tune(n + 50, 20)[14:].replace(b"\x90", b"\x91").replace(b"\x80", b"\x81")
        bass = bass.replace(b"\x00\x91", b"\x00\xc1\x21\x00\x91", 1)  # on a channel of its own
        bass = bass[:4] + (len(bass) - 8).to_bytes(4) + bass[8:]
        beat = track(*notes(*((s, 36 if s % 8 else 38, 1) for s in range(n % 3, 320, 4)), channel=9))
        write(tmp_path / "in", {f"{n}.mid": file(lead, bass, beat)})
    data = build([tmp_path / "in"], DatasetSettings(kind, bars), tmp_path / "out")
    vocab = data.settings.tokens.vocab_sizes
    rows = np.concatenate([data.tokens(s) for s in SPLITS])
    assert len(rows) and rows.dtype == np.uint16 and rows.shape[1:] == (bars * 16, len(vocab))
    assert (rows < vocab).all() and len({r.tobytes() for r in rows}) == len(rows)
    assert data.settings == DatasetSettings(kind, bars)


# --- the same, however it is made --------------------------------------------------------------------------------


def test_melodies_seen_as_melody_90_are_the_same_notes_but_for_windows_that_leave_the_piano(songs, tmp_path):
    low = file(track(*notes(*((s, 15 + s % 9, 2) for s in range(0, 128, 2)))))
    data = build([songs, write(tmp_path / "low", {"low.mid": low})], MELODY, tmp_path / "out")
    seen, full, narrow = data.seen_as("melody-90"), Melody(), representation("melody-90")
    assert data.seen_as("melody") == data and seen.settings.representation == "melody-90"
    for split in SPLITS:
        tokens, files = data.tokens(split), data.rows(split, ["file"])["file"].to_pylist()
        kept = [(t, f) for t, f in zip(tokens, files) if not f.endswith("low.mid")]
        assert seen.rows(split, ["file"])["file"].to_pylist() == [f for _, f in kept]
        for (before, _), after in zip(kept, seen.tokens(split)):
            assert full.to_song(before).notes.pitch.tolist() == narrow.to_song(after).notes.pitch.tolist()
    assert sum(len(seen.tokens(s)) for s in SPLITS) < sum(len(data.tokens(s)) for s in SPLITS)
    with pytest.raises(ValueError, match="tokens alone"):
        seen.rows("train")


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


def test_only_a_data_set_is_ever_replaced(songs, tmp_path):
    precious = write(tmp_path / "precious", {"a.mid": b"", "diary.txt": b"dear diary"})
    data = build([songs], MELODY, tmp_path / "data")
    for out, why in ((precious, "a.mid, diary.txt"), (songs, "holds the source"), (songs.parent, "holds the source")):
        with pytest.raises(ValueError, match=why):
            build([songs], MELODY, out, overwrite=True)
    assert (precious / "diary.txt").read_bytes() == b"dear diary" and len(list(songs.rglob("*.mid"))) == 70
    (data.folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt; --overwrite replaces nothing but data sets"):
        build([songs], MELODY, data.folder, overwrite=True)


def test_two_builds_of_one_data_set_do_not_meet(songs, tmp_path):
    with locked(tmp_path / ".data.lock"), pytest.raises(ValueError, match="another process is writing here"):
        build([songs], MELODY, tmp_path / "data")
    build([songs], MELODY, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_full_disk_is_told_and_costs_nothing_that_is_done(songs, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr("musicvae.music.dataset.run_tasks", full)
    with pytest.raises(OSError, match="No space left"):
        build_dataset([songs], MELODY, tmp_path / "data")
    monkeypatch.undo()
    assert build([songs], MELODY, tmp_path / "data").report["windows"]["unique"] == 70 * 7


def test_killed_while_it_tidies_up_a_build_is_begun_anew(songs, data, tmp_path, monkeypatch):
    def killed(folder, ignore_errors=False, remove=shutil.rmtree):
        if folder == tmp_path / ".out.partial" and folder.exists():
            next(folder.glob("bucket-*-test.parquet")).unlink()
            raise KeyboardInterrupt
        remove(folder, ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            build([songs], MELODY, tmp_path / "out")
    whole = digests(data.folder, "*.parquet")
    assert digests(tmp_path / "out", "*.parquet") == whole, "it was done"
    shutil.rmtree(tmp_path / "out")
    assert digests(build([songs], MELODY, tmp_path / "out").folder, "*.parquet") == whole


@pytest.mark.parametrize("text", ["[]", "5", '{"format": 2}', '{"format": 2, "settings": {"bars": 2, "x": 1}}'])
def test_a_report_that_is_none_is_called_damaged(songs, tmp_path, text):
    data = build([songs], MELODY, tmp_path / "data")
    (data.folder / "report.json").write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        Dataset(data.folder)


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


def test_the_report_counts_the_pairs_that_were_not_looked_at(tmp_path, capsys):
    line = notes(*((s, 40, 4) for s in range(0, 32, 4)))
    kit = track(*notes(*((s, 36, 1) for s in range(0, 32, 4)), channel=9))
    low = notes(*((s, 40, 4) for s in range(0, 32, 4)), channel=1)
    lead, bass = track((0, smf.program(0)), *line), track((0, smf.program(33, 1)), *low)
    files = {"big.mid": file(*[lead] * 17, *[bass] * 17, kit), "small.mid": file(lead, bass, kit)}
    data = build([write(tmp_path / "in", files)], DatasetSettings("trio", 2), tmp_path / "out")
    cut = data.report["cut"]
    assert (cut["files"], cut["pairs"], cut["examples"]) == (1, 17 * 17 - 256, ["big.mid: 33 pairs too many"])
    print_report(data.report)
    shown = " ".join(capsys.readouterr().out.split())
    assert "1 songs have more than 256 pairs of melody and bass" in shown and "33 in all; such as big.mid" in shown
    data = build([tmp_path / "in"], MELODY, tmp_path / "melodies")
    assert data.report["cut"]["files"] == 0
    print_report(data.report)
    assert "cut" not in capsys.readouterr().out


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
