"""The command line from end to end: MIDI in a folder becomes a data set, a trained model, and music again."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from musicvae import cli
from musicvae.commands.output import gathered
from musicvae.composer import Composer
from musicvae.model.checkpoint import load_run
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.vae import MusicVAE
from musicvae.music.midi import Song
from musicvae.music.representation import Drums, Melody
from musicvae.presets import preset
from musicvae.train import fine_tuning, provenance

TINY = ["model.latent_size=8", "model.encoder_units=16", "model.decoder_units=16", "training.batch_size=8"]


@pytest.fixture(scope="module")
def midi(tmp_path_factory):
    """Forty little tunes with a beat: eight bars of quavers that wander, each with a kick on every beat."""
    folder = tmp_path_factory.mktemp("midi")
    for n in range(40):
        rng = np.random.default_rng(n)
        tokens = np.zeros((128, 1), np.int64)
        tokens[::2, 0] = 62 + np.cumsum(rng.integers(-3, 4, 64)) % 24
        Melody().to_song(tokens, tempo=100).save(folder / f"tune-{n:02d}.mid")
    return folder


@pytest.fixture(scope="module")
def dataset(midi, tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "melody-2"
    command = [
        sys.executable,
        "-m",
        "musicvae.cli",
        "dataset",
        "build",
        midi,
        "--representation",
        "melody",
        "--out",
        out,
    ]
    subprocess.run([*map(str, command), "--workers", "2"], check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    command = [
        sys.executable,
        "-m",
        "musicvae.cli",
        "train",
        "melody-2",
        dataset,
        "--out",
        out,
        "--steps",
        "6",
        "--set",
        *TINY,
    ]
    subprocess.run([*map(str, command), "training.listen_every=3", "--threads", "1"], check=True, capture_output=True)
    return out


def test_the_whole_path_from_midi_to_music(musicvae, midi, dataset, run, tmp_path):
    code, out, _ = musicvae("dataset", "info", dataset, "--json")
    report = json.loads(out)
    assert code == 0 and report["files"] == {"read": 40, "used": 40, "rejected": 0, "with_metres_dropped": 0}
    assert report["windows"]["unique"] == 40 * 7

    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["step"] == 6
    assert list(dict.fromkeys(line["stage"] for line in metrics)) == ["bars", "windows", "prior"]
    heard = sorted(p.name for p in (run / "listen" / "step-000005").iterdir())  # the end of whole windows
    assert heard[0] == "original-1.mid" and {n.split("-")[0] for n in heard} == {"original", "reconstructed", "sample"}

    code, out, _ = musicvae("sample", run, "-n", 3, "--seed", 4, "--tempo", 77, "--out", tmp_path / "a")
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert code == 0 and names == [f"melody-2-seed4-{i}.mid" for i in (1, 2, 3)]
    song = Song.read(tmp_path / "a" / names[0])
    assert song.bars == 2 and song.tempo == pytest.approx(77, abs=1e-3)
    musicvae("sample", run, "-n", 3, "--seed", 4, "--tempo", 77, "--out", tmp_path / "b")
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)

    tune = midi / "tune-00.mid"
    code, out, _ = musicvae("reconstruct", run, tune, "--out", tmp_path / "c")
    assert code == 0 and "4 windows of 2 bars" in out and 'track 1 "melody"' in out
    back = Song.read(tmp_path / "c" / "tune-00-melody-2.mid")
    assert back.bars == 8 and back.tempo == 100

    code, out, _ = musicvae("encode", run, tune, midi / "tune-01.mid", "--out", tmp_path / "z.npz")
    with np.load(tmp_path / "z.npz") as z:
        assert code == 0 and z["mu"].shape == z["sigma"].shape == (8, 8)
        assert z["bar"].tolist() == [0, 2, 4, 6] * 2 and len(set(z["source"])) == 2
    code, out, _ = musicvae("decode", run, tmp_path / "z.npz", "-n", 2, "--out", tmp_path / "d")
    assert code == 0 and len(list((tmp_path / "d").iterdir())) == 16

    code, out, _ = musicvae("evaluate", run, dataset, "--split", "train", "--windows", 20, "--samples", 8, "--json")
    figures = json.loads(out)
    assert code == 0 and figures["reconstruction"]["windows"] == 20
    assert figures["statistics"]["temperature 0.5"]["windows"] == 8


def test_a_run_that_is_finished_says_so_and_another_setting_is_refused(musicvae, dataset, run):
    words = [
        "train",
        "melody-2",
        dataset,
        "--out",
        run,
        "--steps",
        6,
        "--threads",
        1,
        "--set",
        *TINY,
        "training.listen_every=3",
    ]
    before = (run / "model.safetensors").read_bytes()
    code, out, _ = musicvae(*words)
    assert code == 0 and "finished already" in out
    code, _, err = musicvae(*words, "training.beta=0.5")
    assert code == 1 and "training.beta was 0.1, is now 0.5" in err and "new --out" in err
    assert (run / "model.safetensors").read_bytes() == before


def test_a_trained_model_is_where_a_training_may_begin(musicvae, dataset, run, tmp_path):
    words = ["train", "melody-2", dataset, "--out", tmp_path / "fine", "--steps", 2, "--threads", 1]
    settings = ["--set", "training.batch_size=8", "training.learning_rate=0", "training.final_learning_rate=0"]
    code, out, _ = musicvae(*words, "--from", run, *settings)
    assert code == 0 and "finished, 2 steps" in out
    first, tuned = load_run(run), load_run(tmp_path / "fine")
    assert tuned.model.config == first.model.config  # its own widths, not those of the preset
    weights = tuned.model.state_dict()
    assert all((value == weights[name]).all() for name, value in first.model.state_dict().items())
    spent = {key: first.config.trained[key] for key in ("steps", "seconds")}
    assert tuned.config.trained["from"] == {"name": first.config.name} | spent

    code, _, err = musicvae(*words, *settings)  # the same folder, without --from
    assert code == 1 and "other settings" in err
    code, _, err = musicvae(*[*words[:4], tmp_path / "no", *words[5:]], "--from", "drums-2")
    assert code == 1 and "drums-2 plays drums of 2 bars" in err and "holds melody of 2 bars" in err
    assert not (tmp_path / "no").exists()


def test_fine_tuning_weighs_the_kl_as_the_first_training_did_and_hears_every_token():
    start = RunConfig(model=ModelConfig((130,), 32), training={"beta": 0.1, "free_bits": 30.0, "token_dropout": 0.4})
    found = fine_tuning(preset("melody-2"), start)
    assert (found.beta, found.free_bits, found.token_dropout, found.beta_schedule) == (0.1, 30.0, 0.0, "constant")
    imported = fine_tuning(preset("melody-2"), RunConfig(model=start.model))
    assert imported.beta == preset("melody-2").training("small").beta


def test_a_fine_tuned_model_says_whose_weights_it_began_with():
    model = ModelConfig((130,), 32, latent_size=4, encoder_units=4, decoder_units=4)
    source = {"name": "cat-mel_2bar_big", "licence": "Apache-2.0"}
    config = RunConfig(name="imported", representation="melody", model=model, trained={"steps": 9, "source": source})
    start = Composer(MusicVAE(model), config, Melody())
    assert provenance(start) == {"name": "imported", "source": source, "steps": 9}
    twice = Composer(MusicVAE(model), replace(config, name="mine", trained={"from": provenance(start)}), Melody())
    assert provenance(twice) == {"name": "mine", "from": provenance(start)}


def test_inspect_shows_tracks_and_draws_them(musicvae, midi, tmp_path):
    code, out, _ = musicvae("inspect", midi / "tune-00.mid")
    assert code == 0 and "█" in out and "│" in out and "7 / 0" in out
    code, out, _ = musicvae("inspect", midi / "tune-00.mid", "--json")
    found = json.loads(out)
    assert found["bars"] == 8 and found["tracks"][0]["melody"] == {"2 bars": 7, "16 bars": 0}
    assert "no bass" in found["trio"]["stopped_by"] and "no drums" in found["drums"]["stopped_by"]


def test_a_folder_that_holds_files_is_left_alone_unless_told_otherwise(musicvae, run, tmp_path):
    (tmp_path / "mine.txt").write_text("do not touch")
    code, _, err = musicvae("sample", run, "--out", tmp_path)
    assert code == 1 and "holds files already" in err and [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    code, _, _ = musicvae("sample", run, "-n", 1, "--out", tmp_path, "--overwrite")
    assert code == 0 and (tmp_path / "mine.txt").read_text() == "do not touch"
    assert len(list(tmp_path.iterdir())) == 2


def test_every_mistake_is_one_line_with_a_way_out_and_writes_nothing(musicvae, run, dataset, midi, tmp_path):
    (tmp_path / "broken.mid").write_bytes(b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\xff\xff")
    (tmp_path / "text.npz").write_text("no zip")
    Drums().to_song(np.ones((32, 1), np.int64)).save(tmp_path / "beat.mid")
    out = tmp_path / "out"
    np.savez(tmp_path / "far.npz", z=np.full((2, 8), 1e30, np.float32))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 128), }"
    vast = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    with zipfile.ZipFile(tmp_path / "vast.npz", "w") as archive:
        archive.writestr("z.npy", vast)
    mistakes = [
        (["sample", "no-such-model", "--out", out], "in the box"),
        (["sample", run, "--out", out, "-n", 0], "from 1 to 10,000"),
        (["sample", run, "--out", out, "--temperature", -1], "temperature"),
        (["sample", run, "--out", out, "--tempo", 0], "tempo"),
        (["reconstruct", run, tmp_path / "nothing.mid", "--out", out], "nothing.mid"),
        (["reconstruct", run, tmp_path / "broken.mid", "--out", out], "ends in the middle"),
        (["reconstruct", run, tmp_path / "beat.mid", "--out", out], "no melody"),
        (
            ["reconstruct", run, midi / "tune-00.mid", "--track", 9, "--out", out],
            "no track '9'; there are 1 \"melody\"",
        ),
        (["reconstruct", run, midi / "tune-00.mid", "--bar", 99, "--out", out], "no bar 99"),
        (["decode", run, tmp_path / "text.npz", "--out", out], "no .npz file"),
        (["dataset", "build", tmp_path / "none", "--representation", "melody", "--out", out], "no such file"),
        (["dataset", "build", tmp_path / "beat.mid", "--representation", "melody", "--out", out], "no melody"),
        (["dataset", "build", midi, "--representation", "melody", "--out", dataset], "exists already"),
        (["dataset", "info", tmp_path], "not a data set"),
        (["train", "melody-33", dataset, "--out", out], "known are melody-2"),
        (["train", "drums-2", dataset, "--out", out], "holds melody windows of 2 bars"),
        (["train", "melody-2", dataset, "--out", out, "--set", "training.batch_size=100000"], "fewer than one batch"),
        (["train", "melody-2", dataset, "--out", out, "--set", "training.bach_size=1"], "known are"),
        (["train", "melody-2", dataset, "--out", out, "--max-time", "soon"], "10m"),
        (["evaluate", run, tmp_path], "not a data set"),
        (["evaluate", run, dataset, "--samples", -1], "0 (none) or more"),
        (["sample", run, "-n", 10**9, "--out", out], "from 1 to 10,000"),
        (["sample", run, "--device", "foo", "--out", out], "the device 'foo' cannot be used here"),
        (["sample", run, "--device", "meta", "--out", out], "the device 'meta' cannot be used here"),
        (["decode", run, tmp_path / "far.npz", "--out", out], "beyond 1000"),
        (["decode", run, tmp_path / "vast.npz", "--out", out], "cannot be read"),
        (["encode", run, midi / "tune-00.mid", "--out", tmp_path], "is a folder"),
        (["train", "melody-2", dataset, "--out", out, "--threads", -1], "--threads -1"),
        (["train", "melody-2", dataset, "--out", out, "--seed", 2**64], "below 2^63"),
        (["train", "melody-2", dataset, "--out", out, "--set", "model.decoder_units=1000000000"], "at most 65536"),
        (["train", "melody-2", dataset, "--out", out, "--set", "bogus=1", "--set", "training.seed=1"], "'bogus=1'"),
    ]
    for words, reason in mistakes:
        code, _, err = musicvae(*words)
        assert code == 1, words
        assert reason in err and len(err.strip().splitlines()) == 1, (words, err)
        assert not out.exists(), words


def test_an_option_that_is_repeated_means_all_of_its_values():
    words = ["preset", "--set", "a=1", "b=2", "--out", "x", "--set", "c=3", "--set=d=4", "--steps", "3"]
    assert gathered(words) == ["preset", "--set", "a=1", "b=2", "c=3", "d=4", "--out", "x", "--steps", "3"]
    assert gathered(["a", "--out", "x"]) == ["a", "--out", "x"]
    assert gathered(["--set", "a=-1", "-n", "4", "--set", "b=2"]) == ["--set", "a=-1", "b=2", "-n", "4"]


def test_help_version_and_unknown_commands(musicvae):
    assert musicvae("--version")[1].startswith("musicvae 0.")
    code, out, _ = musicvae("--help")
    assert code == 0 and all(name in out for name in cli.COMMANDS)
    code, _, err = musicvae("smaple")
    assert code == 2 and "no command 'smaple'" in err


def test_commands_may_have_two_words(musicvae, monkeypatch):
    def learn(name: str) -> None:
        """Learn a thing."""
        print(f"learnt {name}")

    monkeypatch.setitem(cli.COMMANDS, "attribute learn", learn)
    assert musicvae("attribute", "learn", "--name", "notes") == (0, "learnt notes\n", "")
    assert musicvae("attribute") == musicvae("dataset", "--help") == musicvae("--help")
    for words in (("attribute", "forget"), ("dataset", "learn"), ("learn",)):
        code, _, err = musicvae(*words)
        assert code == 2 and f"no command '{' '.join(words)}'" in err


def test_help_does_not_wait_for_torch():
    script = (
        "import sys; sys.argv = ['musicvae', '--help']; import musicvae.cli as c; c.main(); "
        "print('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
