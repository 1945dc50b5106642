"""Processes that die, hang or are killed: what it costs, and that the same command ends with the same bytes."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from folders import MELODY, build, in_this_process, table, tune, tunes, write
from fuzz_midi import build_all, check, read_all
from kill_resume import dataset_command, digests, killed_to_the_end, run

from musicvae.music import dataset as dataset_module
from musicvae.music import mapping
from musicvae.music.dataset import build_dataset
from musicvae.music.midi import Song
from musicvae.music.workers import run_tasks

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


def filling(task, skip, beat):
    raise OSError(28, "No space left on device")


def ending(task, skip, beat):
    os._exit(3)


def test_results_come_from_every_task():
    assert sorted(done.result for done in run_tasks(counting, list(range(20)), 3)) == list(range(0, 40, 2))
    assert list(run_tasks(counting, [], 3)) == []


def test_a_mistake_in_a_worker_is_not_hidden():
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(run_tasks(failing, [1], 1))


def test_a_full_disk_in_a_worker_is_an_error_of_the_system():
    with pytest.raises(OSError, match=r"No space left on device. What is done is kept"):
        list(run_tasks(filling, [1], 1))


def test_workers_that_always_die_are_given_up():
    with pytest.raises(OSError, match=r"keep dying .exit code 3"):
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
