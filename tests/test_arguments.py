"""What is wrong with the words of a command is found before torch is loaded, and said in one line."""

import subprocess
import sys

import numpy as np
import pytest
from folders import MELODY, build, tune, tunes, write

from musicvae.commands.attributes import parse_amounts, warn
from musicvae.evaluation.attributes import attributes_table, without_effect
from musicvae.learn import read_report
from musicvae.limits import checked_preset
from musicvae.model.objective import TrainingConfig
from musicvae.presets import PRESETS, change, preset
from musicvae.progress import Progress
from musicvae.shell import command

WITHOUT_TORCH = """
import sys
from musicvae import cli
for line in sys.stdin.read().splitlines():
    sys.argv = ["musicvae", *line.split("\\t")]
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code
    print(code, "torch" in sys.modules, file=sys.stderr)
"""


def test_mistakes_are_found_without_torch(tmp_path):
    a, data = write(tmp_path / "in", {"a.mid": tune(0)}) / "a.mid", tmp_path / "data"
    build([write(tmp_path / "songs", tunes(12))], MELODY, data)
    np.savez(tmp_path / "z.npz", z=np.zeros((1, 8)))
    out, full = ["--out", tmp_path / "new"], ["--out", tmp_path / "in"]
    song, pair = ["melody-2", a], ["melody-2", a, a]
    mistakes = [
        (["sample", "melodi-2", *out], "no model 'melodi-2'"),
        (["sample", "melody-2", *full], "holds files already"),
        (["sample", "melody-2", "-n", 0, *out], "from 1 to 10,000"),
        (["sample", "melody-2", "--temperature", -1, *out], "a temperature of -1"),
        (["sample", "melody-2", "--temperature", "nan", *out], "a temperature of nan"),
        (["sample", "melody-2", "--tempo", 0, *out], "a tempo of 0"),
        (["sample", "melody-2", "--seed", -1, *out], "a seed of -1"),
        (["sample", "melody-2", "--rounds", 101, *out], "101 rounds"),
        (["sample", "melody-2", "--device", "foo", *out], "the device 'foo'"),
        (["reconstruct", "melody-2", tmp_path / "no.mid", *out], "no.mid"),
        (["reconstruct", *song, "--bar", 0, *out], "--bar 0; bars are counted from 1"),
        (["reconstruct", *song, "--temperature", "inf", *out], "a temperature of inf"),
        (["encode", *song, "--bar", 0, "--out", tmp_path / "y.npz"], "--bar 0; bars are counted from 1"),
        (["encode", "melody-2", tmp_path / "no.mid", "--out", tmp_path / "y.npz"], "no.mid"),
        (["decode", "melody-2", tmp_path / "no.npz", *out], "no such file"),
        (["decode", "melody-2", tmp_path / "z.npz", "-n", 0, *out], "at least 1"),
        (["interpolate", *pair, "--steps", 1, *out], "at least 2"),
        (["interpolate", *pair, "--bar", 1, 0, *out], "--bar 0; bars are counted from 1"),
        (["average", *pair, "--weights", -1, 1, *out], "0 or more"),
        (["vary", *song, "--amount", 2, *out], "an amount of 2"),
        (["grid", *pair, a, a, "--size", 1, *out], "at least 2"),
        (["grid", *pair, a, a, "--size", 101, *out], "from 1 to 10,000"),
        (["attribute", "learn", "melody-2", data], "is no run folder"),
        (["attribute", "learn", "melody-2", tmp_path / "no", "--out", tmp_path / "v"], "no such file or folder"),
        (["attribute", "apply", *song, "--set", "busy=nan", *out], "busy=nan"),
        (["attribute", "apply", *song, "--set", "busy=1", "busy=-1", *out], "busy has an amount already (+1)"),
        (["attribute", "swap", *song, "--from", "busy", "--to", "busy", *out], "are both 'busy'"),
        (["attribute", "sweep", *song, "--attribute", "busy", "--amounts", "inf", *out], "busy=inf"),
        (["inspect", tmp_path / "no.mid"], "no.mid"),
        (["inspect", a, "--bar", 0], "--bar 0; bars are counted from 1"),
        (["inspect", a, "--bar", 9], "no bar 9; the song has bars 1 to 8"),
        (["dataset", "info", tmp_path], "not a data set"),
        (["train", "melody-2", tmp_path / "no", *out], "no such folder"),
        (["train", "melodie", data, *out], "no preset 'melodie'"),
        (["train", "melody-2", data, "--max-time", "soon", *out], "write 90s"),
        (["train", "melody-2", data, "--steps", 0, *out], "at least 1"),
        (["train", "melody-2", data, "--threads", -1, *out], "--threads -1"),
        (["train", "melody-2", data, "--device", "foo", *out], "the device 'foo'"),
        (["evaluate", "melody-2", tmp_path], "not a data set"),
        (["evaluate", "melody-2", data, "--windows", 0], "at least 1"),
        (["import", tmp_path / "no", *out], "no such file or folder"),
        (["export", "melody-2"], "no form given"),
        (["export", "melody-2", "--onnx", tmp_path / "in"], "holds files already"),
    ]
    lines = "\n".join("\t".join(map(str, words)) for words, _ in mistakes)
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], input=lines, capture_output=True, text=True)
    said = done.stderr.splitlines()
    assert len(said) == 2 * len(mistakes), done.stderr
    for (words, reason), error, end in zip(mistakes, said[::2], said[1::2]):
        assert reason in error and end == "1 False", (words, error, end)
    assert not (tmp_path / "new").exists()


def test_every_preset_passes_the_check_before_torch():
    assert all(checked_preset(name) == name for name in PRESETS)


def test_commands_in_messages_can_be_copied_into_a_shell(musicvae, tmp_path):
    folder = tmp_path / "my songs; it's"
    code, _, err = musicvae("dataset", "info", folder)
    assert code == 1 and command("dataset", "build", "FOLDER", "--representation", "KIND", "--out", folder) in err
    assert command("inspect", "a b.mid") == "musicvae inspect 'a b.mid'"


def test_an_attribute_has_one_amount():
    assert parse_amounts(["a=+1", "b=-1"]) == {"a": 1, "b": -1}
    with pytest.raises(ValueError, match="a has an amount already"):
        parse_amounts(["a=1", "b=1", "a=1"])


@pytest.mark.parametrize("key, meant", [("beta=1", "training.beta"), ("model.beta=1", "training.beta")])
def test_a_setting_that_is_none_suggests_the_nearest(key, meant):
    config = preset("melody-2").model("small")
    with pytest.raises(ValueError, match=rf"did you mean {meant}\?"):
        change(config, TrainingConfig(), [key])
    with pytest.raises(ValueError, match=r"did you mean training.batch_size\?"):
        change(config, TrainingConfig(), ["bach_size=1"])


@pytest.fixture
def vectors():
    from musicvae.box import PRETRAINED

    return PRETRAINED / "melody-2" / "attributes.safetensors"


def test_amounts_beyond_what_was_measured_get_a_warning(vectors, capsys):
    warn(vectors, [{"note-density": 1.0}, {"note-density": -1.0}])
    assert capsys.readouterr().err == ""
    warn(vectors, [{"note-density": 1.5}, {"note-density": -2.0}, {"unknown": 0.5}])
    said = capsys.readouterr().err.splitlines()
    assert "+1.5 and -2 of note-density: measured was +1" in said[0]
    assert "what unknown does to music was not measured" in said[1]


@pytest.mark.parametrize("name", ["melody-2", "drums-2", "melody-16", "drums-16", "trio-16"])
def test_attributes_fit_a_terminal_and_weak_ones_stand_apart(musicvae, name, vectors, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, said, _ = musicvae("attribute", "list", name)
    assert code == 0 and max(map(len, said.splitlines())) <= 80 and "…" not in said
    report = read_report(vectors.parent.parent / name / "attributes.safetensors")
    apart = without_effect(report)
    assert attributes_table(report).row_count == len(report["attributes"]) - len(apart)
    assert all(f"{attribute}" in said for attribute in report["attributes"])


def test_the_time_left_is_that_of_the_steps_so_far(capsys):
    progress = Progress(1000, max_seconds=60)
    progress(100)
    assert progress.line(200, 10.0) == "step 200 of 1,000 (20%), about 80 s left; pauses in 50 s"
