"""Checkpoints of the original become runs like any other, and runs become folders that magenta.js loads."""

import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_writer import TINY, random_tensors, write_bundle, write_js
from folders import build

from musicvae.composer import load
from musicvae.evaluation.command import evaluate_model
from musicvae.exchange import export_magenta_js, import_checkpoint
from musicvae.model.checkpoint import load_run, save_run
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.objective import TrainingConfig
from musicvae.model.tfjs import Folder
from musicvae.model.training import train
from musicvae.model.vae import MusicVAE
from musicvae.music.dataset import Dataset, DatasetSettings
from musicvae.music.representation import DRUM_MAPS, representation

torch.set_num_threads(1)  # models this small are slower on two

KINDS = {
    "cat-mel_2bar_small": ("melody-90", 2),
    "cat-mel_2bar_big": ("melody-90", 2),
    "cat-drums_2bar_small": ("drums", 2),
    "cat-drums_2bar_big": ("drums", 2),
    "flat-mel_16bar": ("melody-90", 16),
    "hierdec-mel_16bar": ("melody-90", 16),
    "flat-trio_16bar": ("trio-90", 16),
    "hierdec-trio_16bar": ("trio-90", 16),
}
STEP = {"global_step": np.array(78, np.int64)}


def written(folder: Path, family: str = "cat-mel_2bar_small") -> Path:
    write_bundle(folder / "model.ckpt", random_tensors(TINY[family]) | STEP)
    return folder


def converter(kind: str, **args: object) -> dict:
    return {"type": "MusicVAE", "dataConverter": {"type": kind, "args": args}}


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def save_new(folder: Path, kind: str, drum_map: str = "current", **sizes) -> Path:
    """A run with random weights, as one that was trained here."""
    torch.manual_seed(0)
    sizes = {"latent_size": 6, "encoder_units": 7, "decoder_units": 9, "encoder_layers": 1, **sizes}
    config = ModelConfig(representation(kind).vocab_sizes, **{"steps": 32, **sizes})
    save_run(folder, MusicVAE(config), RunConfig(name="new", representation=kind, drum_map=drum_map, model=config))
    return folder


# --- a run like any other ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", KINDS)
def test_every_family_becomes_a_run_that_plays_and_listens(tmp_path: Path, family: str):
    kind, bars = KINDS[family]
    lines = import_checkpoint(written(tmp_path / family, family), tmp_path / "run").lines
    composer = load(tmp_path / "run")
    assert (composer.representation.name, composer.bars, composer.name) == (kind, bars, family)
    assert composer.config.drum_map == ("current" if "mel" in family else "2018")
    assert composer.config.trained["steps"] == 78 and any("78 steps" in line for line in lines)
    (song,) = composer.sample(1, temperature=1.0, seed=3)
    assert song.bars == bars
    assert composer.encode(song).mu.shape == (1, 4)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "Apache-2.0" in card and "78 steps" in card and family.removesuffix("_small").removesuffix("_big") in card
    assert names(tmp_path / "run") == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("family", "bars"), [("cat-drums_2bar_big", 2), ("flat-mel_16bar", 16), ("hierdec-trio_16bar", 16)]
)
def test_without_a_name_the_family_tells_how_long_a_window_is(tmp_path: Path, family: str, bars: int):
    import_checkpoint(written(tmp_path / "nameless", family), tmp_path / "run")
    assert load(tmp_path / "run").bars == bars
    import_checkpoint(tmp_path / "nameless", tmp_path / "four", bars=4, drum_map="current", licence="mine")
    four = load(tmp_path / "four")
    assert (four.bars, four.config.drum_map, four.model.config.bars) == (4, "current", 4 if "hier" in family else 1)
    assert "mine" in (tmp_path / "four" / "README.md").read_text()


def test_an_imported_run_is_measured_and_trained_on(tmp_path: Path, songs: Path):
    build([songs], DatasetSettings("melody-90", 2), tmp_path / "data")
    import_checkpoint(written(tmp_path / "cat-mel_2bar"), tmp_path / "run")
    report = evaluate_model(load(tmp_path / "run"), tmp_path / "data", "train", windows=20, show=False)
    assert report["reconstruction"]["windows"] == 20 and report["reconstruction"]["kl_bits"] > 0
    before, tokens = load_run(tmp_path / "run").model, Dataset(tmp_path / "data").tokens("train")[:64]
    settings = TrainingConfig(steps=2, batch_size=8, learning_rate=1e-9, final_learning_rate=1e-9, validate_every=0)
    result = train(
        RunConfig(model=before.config), settings, tokens, None, tmp_path / "tuned", initial=before, device="cpu"
    )
    old, new = before.state_dict(), result.model.state_dict()
    assert result.finished and all(torch.allclose(new[name], old[name], atol=1e-6) for name in old)


def test_a_decoder_alone_plays_but_says_that_it_cannot_listen(tmp_path: Path, songs: Path):
    tensors = random_tensors(TINY["cat-mel_2bar_small"])
    write_bundle(tmp_path / "half" / "model.ckpt", {n: t for n, t in tensors.items() if n.startswith("decoder/")})
    lines = import_checkpoint(tmp_path / "half", tmp_path / "run").lines
    composer = load(tmp_path / "run")
    assert "cannot encode" in lines[-1] and "cannot encode" in (tmp_path / "run" / "README.md").read_text()
    (song,) = composer.sample(1)
    for listen in (composer.encode, composer.reconstruct):
        with pytest.raises(ValueError, match="half cannot encode: the checkpoint it was imported from holds no"):
            listen(song)
    build([songs], DatasetSettings("melody-90", 2), tmp_path / "data")
    with pytest.raises(ValueError, match="cannot encode"):
        evaluate_model(composer, tmp_path / "data", "train", windows=5, show=False)


# --- every way in --------------------------------------------------------------------------------------------------


def pack_tar(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz" if target.name.endswith("gz") else "w") as tar:
        tar.add(folder, arcname="some/folder")
        tar.addfile(tarfile.TarInfo("some/folder/._model.ckpt.index"))  # as macOS leaves behind
    return target


def pack_zip(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for file in folder.iterdir():
            out.write(file, file.name)
    return target


WAYS = {
    "folder": lambda folder: folder,
    "prefix": lambda folder: folder / "model.ckpt",
    "index": lambda folder: folder / "model.ckpt.index",
    "data": lambda folder: folder / "model.ckpt.data-00000-of-00001",
    "folder above": lambda folder: folder.parent,
    "tar": lambda folder: pack_tar(folder, folder.with_name("cat-mel_2bar_small.tar")),
    "tar.gz": lambda folder: pack_tar(folder, folder.with_name("cat-mel_2bar_small.tar.gz")),
    "zip": lambda folder: pack_zip(folder, folder.with_name("cat-mel_2bar_small.zip")),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_all_ways_lead_to_the_same_run(tmp_path: Path, way: Callable[[Path], Path]):
    folder = written(tmp_path / "in" / "cat-mel_2bar_small")
    import_checkpoint(folder, tmp_path / "first")
    imported = import_checkpoint(way(folder), tmp_path / "deep" / "er" / "second")
    assert imported.config.name == ("in" if way(folder) == folder.parent else "cat-mel_2bar_small")
    first, second = (load_run(path).model.state_dict() for path in (tmp_path / "first", tmp_path / "deep/er/second"))
    assert all(first[name].equal(second[name]) for name in first)
    assert names(tmp_path / "deep") == ["er", "er/second", *(f"er/second/{n}" for n in names(tmp_path / "first"))]


def test_of_several_checkpoints_the_latest_is_taken_or_one_is_asked_for(tmp_path: Path):
    for step in (1, 2):
        tensors = random_tensors(TINY["cat-mel_2bar_small"], seed=step) | {"global_step": np.array(step, np.int64)}
        write_bundle(tmp_path / "in" / f"model.ckpt-{step}", tensors)
    with pytest.raises(ValueError, match=r"holds 2 checkpoints \(model.ckpt-1, model.ckpt-2\): name one"):
        import_checkpoint(tmp_path / "in", tmp_path / "run")
    (tmp_path / "in" / "checkpoint").write_text('model_checkpoint_path: "/their/disk/model.ckpt-2"\n')
    assert import_checkpoint(tmp_path / "in", tmp_path / "run").config.trained["steps"] == 2
    assert import_checkpoint(tmp_path / "in" / "model.ckpt-1", tmp_path / "one").config.trained["steps"] == 1


TRIO_16 = converter(
    "TrioConverter",
    numSteps=256,
    numSegments=16,
    melArgs={"minPitch": 21, "maxPitch": 108},
    bassArgs={"minPitch": 21, "maxPitch": 108},
    drumsArgs={"pitchClasses": [list(pitches) for pitches in DRUM_MAPS["current"]]},
)


@pytest.mark.parametrize(("bits", "near"), [(0, 0), (16, 1e-4), (8, 0.02)])
def test_a_magenta_js_folder_is_the_same_model(tmp_path: Path, bits: int, near: float):
    for family in ("hierdec-mel_16bar", "hierdec-trio_16bar"):
        tensors = random_tensors(TINY[family])
        write_bundle(tmp_path / family / "model.ckpt", tensors)
        config = TRIO_16 if "trio" in family else None
        write_js(tmp_path / f"js-{family}", tensors, config, shard_size=9001, bits=bits)
        sources = (family, f"js-{family}")
        ours, theirs = (import_checkpoint(tmp_path / s, tmp_path / f"run-{s}").config for s in sources)
        assert ours.model == theirs.model and theirs.representation == KINDS[family][0]
        assert theirs.drum_map == ("current" if family == "hierdec-mel_16bar" or config else "2018")
        first, second = (load_run(tmp_path / f"run-{s}{family}").model.state_dict() for s in ("", "js-"))
        assert max(float((first[name] - second[name]).abs().max()) for name in first) <= near


# --- and out -------------------------------------------------------------------------------------------------------


def test_the_real_model_comes_out_as_it_went_in(originals: Path, tmp_path: Path):
    source = originals / "mel_2bar_small_tfjs"
    import_checkpoint(source, tmp_path / "run")
    with np.load(source / "expected.npz") as expected:
        assert np.array_equal(load(tmp_path / "run").decode_tokens(expected["z"], 0)[..., 0], expected["tokens"])
    export_magenta_js(str(tmp_path / "run"), tmp_path / "out")
    assert names(tmp_path / "out") == [name for name in names(source) if name != "expected.npz"]
    assert all((tmp_path / "out" / n).read_bytes() == (source / n).read_bytes() for n in names(tmp_path / "out"))


@pytest.mark.parametrize("family", ["cat-mel_2bar_small", "cat-mel_2bar_big", "cat-drums_2bar_small"])
def test_what_is_exported_and_imported_again_is_the_same(tmp_path: Path, family: str):
    import_checkpoint(written(tmp_path / family, family), tmp_path / "run")
    export_magenta_js(str(tmp_path / "run"), tmp_path / "js")
    folder = Folder(tmp_path / "js")
    tensors = random_tensors(TINY[family])
    assert folder.shapes.keys() == tensors.keys()
    assert all(folder.read(name).tobytes() == tensor.tobytes() for name, tensor in tensors.items())
    before, again = load(tmp_path / "run").config, import_checkpoint(tmp_path / "js", tmp_path / "again").config
    assert again.drum_map == before.drum_map and again.model == before.model
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "run/model.safetensors").read_bytes()


def test_each_kind_gets_its_converter(tmp_path: Path):
    drums = [list(pitches) for pitches in DRUM_MAPS["current"]]
    expected = {
        "melody": converter("MelodyConverter", numSteps=32, minPitch=0, maxPitch=127),
        "melody-90": converter("MelodyConverter", numSteps=32, minPitch=21, maxPitch=108),
        "drums": converter("DrumsOneHotConverter", numSteps=32, pitchClasses=drums),
    }
    for kind, config in expected.items():
        export_magenta_js(str(save_new(tmp_path / f"run-{kind}", kind)), tmp_path / kind)
        assert json.loads((tmp_path / kind / "config.json").read_text()) == config
        assert load_run(tmp_path / f"run-{kind}").config.drum_map == "current"
    export_magenta_js(str(save_new(tmp_path / "old", "drums", "2018")), tmp_path / "old-js")
    assert "pitchClasses" not in (tmp_path / "old-js" / "config.json").read_text()


CANNOT = {
    "hierarchical": ("melody", {"steps": 32, "bars": 2}, "it is hierarchical", "melody-2"),
    "two layers": ("melody", {"encoder_layers": 2}, "its encoder has 2 layers", "--set model.encoder_layers=1"),
    "bars first": ("melody", {"encoder_bars": 2}, "reads bars before", "--set model.encoder_bars=1"),
    "trio": ("trio", {}, "streams come from one decoder", "a preset of melody or drums"),
}


@pytest.mark.parametrize(("kind", "sizes", "why", "instead"), CANNOT.values(), ids=CANNOT.keys())
def test_what_cannot_go_says_why_and_what_could(tmp_path: Path, kind: str, sizes: dict, why: str, instead: str):
    save_new(tmp_path / "run", kind, **sizes)
    with pytest.raises(ValueError) as error:
        export_magenta_js(str(tmp_path / "run"), tmp_path / "js")
    assert why in str(error.value) and instead in str(error.value) and not (tmp_path / "js").exists()


# --- magenta.js itself ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def magenta_js() -> Callable[..., dict]:
    """What magenta.js makes of a folder, where Node and the package are installed."""
    root = Path(os.environ.get("MUSICVAE_NODE_MODULES", Path(__file__).parent.parent / "node_modules"))
    if shutil.which("node") is None or not (root / "@magenta" / "music").is_dir():
        pytest.skip("no magenta.js here: make node_modules/@magenta/music, or set MUSICVAE_NODE_MODULES")

    def ask(folder: Path, **request: object) -> dict:
        (folder / "request.json").write_text(json.dumps(request))
        script = Path(__file__).with_name("magenta_js.cjs")
        command = ["node", script, root.absolute(), folder, folder / "request.json"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return ask


def test_magenta_js_plays_the_real_model_as_we_do(magenta_js, originals: Path, tmp_path: Path):
    import_checkpoint(originals / "mel_2bar_small_tfjs", tmp_path / "run")
    export_magenta_js(str(tmp_path / "run"), tmp_path / "js")
    with np.load(originals / "mel_2bar_small_tfjs" / "expected.npz") as expected:
        answer = magenta_js(tmp_path / "js", z=expected["z"][:4].tolist())
        assert np.array_equal(answer["tokens"], expected["tokens"][:4])


@pytest.mark.parametrize("kind", ["melody", "drums", "bits"])
def test_magenta_js_plays_and_hears_what_was_trained_here(magenta_js, tmp_path: Path, kind: str):
    if kind == "bits":
        import_checkpoint(written(tmp_path / "cat-drums_2bar_small", "cat-drums_2bar_small"), tmp_path / "run")
    else:
        save_new(tmp_path / "run", kind)
    export_magenta_js(str(tmp_path / "run"), tmp_path / "js")
    composer, rng = load(tmp_path / "run"), np.random.default_rng(0)
    z = rng.standard_normal((5, composer.latent_size))
    written_here = composer.decode_tokens(z, temperature=0)
    song = composer.representation.to_song(written_here[0])
    hits = sorted(zip(song.notes.start.tolist(), song.notes.pitch.tolist()))
    request = {"z": z.tolist(), "notes": [[p, s, s + 1, kind != "melody"] for s, p in hits]}
    if kind != "bits":
        request["tokens"] = written_here[..., 0].tolist()
    answer = magenta_js(tmp_path / "js", **request)
    assert np.array_equal(answer["tokens"], written_here[..., 0])
    assert sorted((s, p) for p, s, _ in answer["notes"]) == hits
    mu = composer.encode_tokens(written_here).mu
    if kind != "bits":
        np.testing.assert_allclose(answer["mu"], mu, atol=1e-5)
    if kind != "melody":  # of a melody, they write where a note ends
        np.testing.assert_allclose(answer["song"], mu[:1], atol=1e-5)


# --- what is no checkpoint -----------------------------------------------------------------------------------------


def spoilt_js(**change: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_js(folder / "js", random_tensors(TINY["cat-mel_2bar_small"]), converter("MelodyConverter", numSteps=32))
        manifest = json.loads((folder / "js" / "weights_manifest.json").read_text())
        manifest[0]["weights"][0] |= change
        manifest[0] |= {key: value for key, value in change.items() if key == "paths"}
        (folder / "js" / "weights_manifest.json").write_text(json.dumps(manifest))
        return folder / "js"

    return make


def with_config(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_js(folder / "js", random_tensors(TINY["cat-mel_2bar_small"]))
        (folder / "js" / "config.json").write_text(text)
        return folder / "js"

    return make


def config_of(kind: str = "MelodyConverter", **more: object) -> Callable[[Path], Path]:
    args = {"numSteps": 32, **more.pop("args", {})}  # type: ignore[dict-item]
    return with_config(json.dumps(converter(kind, **args) | more))


def cut_shard(folder: Path) -> Path:
    write_js(folder / "js", random_tensors(TINY["cat-mel_2bar_small"]))
    (folder / "js" / "group1-shard1").write_bytes((folder / "js" / "group1-shard1").read_bytes()[:-1])
    return folder / "js"


def put(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def flipped_tar(folder: Path) -> Path:
    source = written(folder / "in" / "cat-mel_2bar_small")
    data = source / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-20] + bytes(20))
    return pack_tar(source, folder / "flipped.tar")


def evil_tar(folder: Path) -> Path:
    with tarfile.open(folder / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"))
    return folder / "evil.tar"


BAD = {
    "nowhere": (lambda folder: folder / "nowhere", "there is no such file or folder"),
    "an empty folder": (lambda folder: folder, "holds no checkpoint"),
    "a weights file of torch": (put("model.pt", b"PK"), "none of what can be imported"),
    "a pickle in disguise": (put("model.ckpt.index", b"\x80\x04]q" * 100), "no index of a TensorFlow checkpoint"),
    "a run": (lambda folder: save_new(folder / "run", "melody"), "is a run already"),
    "GrooVAE": (config_of("GrooveConverter"), "GrooVAE"),
    "multitrack": (config_of("MultitrackConverter"), "multitrack"),
    "chords": (config_of(chordEncoder="PitchChordEncoder"), "conditioning on chords"),
    "a key": (config_of(conditionOnKey=True), "conditioning on a key"),
    "another type": (with_config('{"type": "MusicRNN"}'), "is of type 'MusicRNN'"),
    "a converter of one's own": (config_of("MyConverter"), "'MyConverter'"),
    "no JSON": (with_config("{"), "is no config.json"),
    "a pit of brackets": (with_config("[" * 100_000), "is no config.json"),
    "another range": (config_of(args={"minPitch": 20, "maxPitch": 107}), "pitches (20, 107)"),
    "half a bar": (config_of(args={"numSteps": 24}), "no whole bars"),
    "no steps": (config_of(args={"numSteps": "many"}), "numSteps 'many'"),
    "segments of a flat model": (config_of(args={"numSegments": 2}), "2 segments"),
    "a shard cut short": (cut_shard, "Copy the folder again"),
    "a shard elsewhere": (spoilt_js(paths=["../../etc/passwd"]), "no name of a file in this folder"),
    "a shard that is not there": (spoilt_js(paths=["other"]), "lacks other"),
    "4 GB claimed": (spoilt_js(shape=[2**15, 2**15]), "asks for 4,29"),
    "a negative shape": (spoilt_js(shape=[-1, -5]), "which is none"),
    "text": (spoilt_js(dtype="string"), "stored as string"),
    "whole numbers": (spoilt_js(dtype="int32"), "only float32"),
    "an unknown quantisation": (spoilt_js(quantization={"dtype": "int4"}), "stored as int4"),
    "a tensor twice": (spoilt_js(name="encoder/mu/kernel"), "twice"),
    "a tensor renamed": (spoilt_js(name="encoder/my/kernel"), "lacks encoder/cell_0/"),
    "damage in an archive": (flipped_tar, "flipped.tar/some/folder/model.ckpt.data-00000-of-00001"),
    "an archive that leads out": (evil_tar, "outside its folder"),
}


@pytest.mark.parametrize(("make", "says"), BAD.values(), ids=BAD.keys())
def test_each_is_refused_in_one_sentence_and_nothing_is_written(tmp_path: Path, make, says: str):
    (tmp_path / "in").mkdir()
    path = make(tmp_path / "in")
    before = names(tmp_path)
    with pytest.raises(ValueError) as error:
        import_checkpoint(path, tmp_path / "new" / "run")
    assert says in str(error.value) and str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert names(tmp_path) == before


def test_the_command_line_brings_a_model_in_and_out(tmp_path: Path, musicvae):
    source, run, js = written(tmp_path / "cat-mel_2bar_small"), tmp_path / "run", tmp_path / "js"
    code, out, _ = musicvae("import", source, "--out", run)
    assert code == 0 and "melody-90, windows of 2 bars" in out and "checksums of all tensors verified" in out
    code, _, err = musicvae("import", source, "--out", run)
    assert code == 1 and "exists already" in err and len(err.strip().splitlines()) == 1
    code, out, _ = musicvae("export", run, "--magenta-js", js)
    assert code == 0 and "MelodyConverter of 32 steps" in out
    code, _, err = musicvae("export", run, "--magenta-js", js)
    assert code == 1 and "--overwrite" in err
    assert musicvae("export", run, "--magenta-js", js, "--overwrite")[0] == 0
    code, _, err = musicvae("import", js, "--out", tmp_path / "again", "--bars", 0)
    assert code == 1 and "0 steps (as given)" in err and not (tmp_path / "again").exists()
