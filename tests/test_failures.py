"""Whatever a file, an option or a full disk causes is one line, the exit code says so, and nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from musicvae.model.checkpoint import save_run
from musicvae.model.config import ModelConfig, RunConfig
from musicvae.model.objective import TrainingConfig
from musicvae.model.training import train
from musicvae.model.vae import MusicVAE
from musicvae.music.representation import Melody

SIZES = ModelConfig((130,), 32, latent_size=8, encoder_units=8, decoder_units=8, encoder_layers=1, decoder_layers=1)
FULL_DISK = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from musicvae.cli import main
main()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = RunConfig(name="tiny", representation="melody", model=SIZES)
    save_run(tmp_path / "run", MusicVAE(SIZES), config)
    return tmp_path / "run"


@pytest.fixture
def tune(tmp_path: Path) -> Path:
    tokens = np.zeros((64, 1), np.int64)
    tokens[::2, 0] = 62 + np.arange(32) % 7
    Melody().to_song(tokens).save(tmp_path / "tune.mid")
    return tmp_path / "tune.mid"


def setting(path: str, value: Any) -> Callable[[Path], None]:
    """Writes a value into config.json."""

    def write(run: Path) -> None:
        config = json.loads((run / "config.json").read_text())
        place = config
        *parts, last = path.split(".")
        for part in parts:
            place = place[part]
        place[last] = value
        (run / "config.json").write_text(json.dumps(config))

    return write


def content(file: str, data: bytes) -> Callable[[Path], None]:
    return lambda run: (run / file).write_bytes(data) and None


def weight(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def write(run: Path) -> None:
        tensors = safetensors.torch.load_file(run / "model.safetensors")
        tensors["to_mu.bias"] = change(tensors["to_mu.bias"])
        safetensors.torch.save_file(tensors, run / "model.safetensors")

    return write


def first(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda bias: torch.cat([torch.tensor([value]), bias[1:]])


NOT_FINITE = (
    "RUN/model.safetensors: the tensor to_mu.bias has numbers that are not finite. Copy it again, or train again"
)
NO_CONFIG = "RUN/config.json is no valid run configuration: "
NAME = (
    ". It stands in the names of files: at most 100 bytes, no slash or control character, and no dot at its beginning"
)
DEEP = b"[" * 100_000
RUNS = [  # what is done to a run folder, and the line that encode and reconstruct end with
    (weight(first(float("nan"))), NOT_FINITE),
    (weight(first(float("inf"))), NOT_FINITE),
    (
        weight(lambda bias: bias.to(torch.int8)),
        "RUN/model.safetensors: the tensor to_mu.bias is of int8; weights are floating point numbers",
    ),
    (
        content("config.json", DEEP),
        NO_CONFIG + "maximum recursion depth exceeded while deserializing an object",
    ),
    (
        setting("model.vocab_sizes", [10**30]),
        NO_CONFIG + f"vocab_sizes is ({10**30},); needs one integer from 2 to 65536 a stream - at `$.model`",
    ),
    (
        setting("model.decoder_layers", 65536),
        NO_CONFIG + "decoder_layers is 65536; must be at most 64 - at `$.model`",
    ),
    (setting("name", "é" * 51), f"RUN/config.json gives the model the name {'é' * 51!r}{NAME}"),
    (setting("name", "a\nb"), f"RUN/config.json gives the model the name 'a\\nb'{NAME}"),
]


@pytest.mark.parametrize("row", range(len(RUNS)))
def test_a_damaged_run_is_refused_in_one_line(musicvae, run, tune, tmp_path, row):
    damage, line = RUNS[row]
    damage(run)
    for words in (
        ["encode", run, tune, "--out", tmp_path / "z.npz"],
        ["reconstruct", run, tune, "--out", tmp_path / "o"],
    ):
        code, _, err = musicvae(*words)
        assert (code, err) == (1, f"musicvae {words[0]}: {line.replace('RUN', str(run))}\n")
    assert not (tmp_path / "z.npz").exists() and not (tmp_path / "o").exists()


Z = np.zeros((2, 8), np.float32)
NEEDED = "; needed is an array z or mu of numbers of shape (N, Z)"
VECTORS = [  # the arrays in a file, options, and the line that decode ends with
    ({"z": Z[0]}, [], f"FILE: holds z of shape (8,) and type float32{NEEDED}"),
    ({"z": Z[0, 0]}, [], f"FILE: holds z of shape () and type float32{NEEDED}"),
    ({"z": np.zeros(2, [("a", "<f4")])}, [], f"FILE: holds z of shape (2,) and type [('a', '<f4')]{NEEDED}"),
    ({"z": Z + 1j}, [], f"FILE: holds z of shape (2, 8) and type complex64{NEEDED}"),
    ({"mu": np.array([["a"] * 8])}, [], f"FILE: holds mu of shape (1, 8) and type <U1{NEEDED}"),
    ({"y": Z}, [], f"FILE: holds y{NEEDED}"),
    ({"z": Z}, ["-n", 10**9], "1000000000 pieces of music; it must be from 1 to 10,000"),
    ({"z": Z}, ["-n", 10**30], f"{10**30} pieces of music; it must be from 1 to 10,000"),
    ({"z": Z}, ["-n", 5001], "-n 5001 of 2 vectors; at most 10,000 files are written at once"),
]


@pytest.mark.parametrize("row", range(len(VECTORS)))
def test_vectors_that_are_none_are_refused_in_one_line(musicvae, run, tmp_path, row):
    arrays, options, line = VECTORS[row]
    path = tmp_path / "z.npz"
    np.savez(path, **arrays)
    code, _, err = musicvae("decode", run, path, *options, "--out", tmp_path / "out")
    assert (code, err) == (1, f"musicvae decode: {line.replace('FILE', str(path))}\n")
    assert not (tmp_path / "out").exists()


def test_no_flipped_bit_of_a_file_of_vectors_is_more_than_a_line(musicvae, run, tmp_path):
    np.savez(tmp_path / "good.npz", z=Z, model=np.array("tiny"))
    whole, numbers = (tmp_path / "good.npz").read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[numbers.integers(len(whole))] ^= 1 << int(numbers.integers(8))
        (tmp_path / "z.npz").write_bytes(damaged)
        code, _, err = musicvae("decode", run, tmp_path / "z.npz", "--out", tmp_path / "out", "--overwrite")
        assert code in (0, 1) and len(err.splitlines()) == code and "unexpected" not in err


def test_attribute_vectors_of_half_the_size_are_the_same_vectors(musicvae, run, tune, tmp_path):
    safetensors.torch.save_file({"high": torch.ones(8, dtype=torch.bfloat16)}, run / "attributes.safetensors")
    words = ["attribute", "apply", run, tune, "--set", "high=1", "--out"]
    assert musicvae(*words, tmp_path / "a")[0] == 0
    (run / "attributes.json").write_bytes(DEEP)
    code, _, err = musicvae(*words, tmp_path / "b")
    assert code == 1 and err.startswith(f"musicvae attribute apply: {run}/attributes.json: damaged (maximum recursion")


# --- checkpoints -------------------------------------------------------------------------------------------------

RUN = RunConfig(representation="melody", model=SIZES)
TRAINING = TrainingConfig(steps=4, batch_size=4, validation_windows=4, checkpoint_every=2)
WINDOWS = np.random.default_rng(0).integers(0, 130, (16, 32, 1)).astype(np.uint16)


def change(*path: Any, to: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(state: dict[str, Any]) -> None:
        place: Any = state
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = to(place[path[-1]])

    return apply


MOMENT = ("optimizer", "state", 0, "exp_avg")
STATES = {  # what is done to a checkpoint, and what the error says
    "another shape": (change(*MOMENT, to=lambda x: x[:2]), "optimizer.0.exp_avg has shape (2, 130)"),
    "another type": (change(*MOMENT, to=lambda x: x.double()), "optimizer.0.exp_avg is no tensor of torch.float32"),
    "one number for all": (change(*MOMENT, to=lambda x: x[:1, :1].expand(x.shape)), "optimizer.0.exp_avg has shape"),
    "sparse": (change(*MOMENT, to=lambda x: x.to_sparse()), "optimizer.0.exp_avg is no tensor"),
    "NaN": (change(*MOMENT, to=lambda x: x * float("nan")), "optimizer.0.exp_avg has numbers that are not finite"),
    "no moments": (change("optimizer", "state", to=lambda x: {}), "optimizer has other entries than this training"),
    "no optimizer": (change("optimizer", to=lambda x: []), "optimizer has other entries than this training"),
    "no weights": (change("model", to=lambda x: {}), "model has other entries than this training"),
    "another weight": (change("model", "to_mu.bias", to=lambda x: x[:3]), "model.to_mu.bias has shape (3,)"),
    "step text": (change("step", to=str), "step is '2'"),
    "step beyond": (change("step", to=lambda x: 5), "step is 5, of 4"),
    "validation": (change("validation", to=lambda x: {"loss": torch.zeros(2)}), "validation is no line of metrics"),
    "format": (change("format", to=lambda x: torch.zeros(2)), "has format tensor([0., 0.]); this version reads 2"),
    "settings": (change("settings", to=lambda x: 5), "cannot be read"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was stopped after two of its four steps."""
    folder = tmp_path_factory.mktemp("stopped") / "run"

    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 2:
            raise BrokenPipeError  # nobody reads what is printed

    result = train(RUN, logging_each_step(), WINDOWS, WINDOWS[:4], folder, device="cpu", on_log=stop)
    assert result.interrupted and result.step == 2
    return folder


def logging_each_step() -> TrainingConfig:
    from dataclasses import replace

    return replace(TRAINING, log_every=1)


def test_a_training_whose_reader_is_gone_is_saved_and_goes_on(stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "run")
    result = train(RUN, logging_each_step(), WINDOWS, WINDOWS[:4], folder, device="cpu")
    assert result.finished and result.resumed_from == 2


@pytest.mark.parametrize(("damage", "says"), STATES.values(), ids=STATES.keys())
def test_an_altered_checkpoint_is_refused_before_it_reaches_the_optimizer(stopped, tmp_path, damage, says):
    folder = shutil.copytree(stopped, tmp_path / "run")
    state = torch.load(folder / "training.pt", weights_only=True)
    damage(state)
    torch.save(state, folder / "training.pt")
    with pytest.raises(ValueError) as error:
        train(RUN, logging_each_step(), WINDOWS, WINDOWS[:4], folder, device="cpu")
    assert says in str(error.value) and str(folder / "training.pt") in str(error.value)


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"\0" * 999])
def test_a_checkpoint_that_is_none_is_refused(stopped, tmp_path, data):
    folder = shutil.copytree(stopped, tmp_path / "run")
    (folder / "training.pt").write_bytes(data)
    with pytest.raises(ValueError, match=r"training.pt cannot be read \(.+\): give a new --out"):
        train(RUN, logging_each_step(), WINDOWS, WINDOWS[:4], folder, device="cpu")


# --- disks, pipes, terminals -------------------------------------------------------------------------------------


def command(*words: object, program: str = "", **options: Any) -> "subprocess.CompletedProcess[str]":
    start = [sys.executable, "-c", program] if program else [sys.executable, "-m", "musicvae"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | options.pop("env", {})
    return subprocess.run([*start, *map(str, words)], capture_output=True, text=True, env=environment, **options)


def test_a_full_disk_is_one_line_with_the_file(run, tune, tmp_path):
    pytest.importorskip("resource")
    out = tmp_path / "out"
    done = command(50, "reconstruct", run, tune, "--out", out, program=FULL_DISK, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and done.stderr == f"musicvae reconstruct: {out}/tune-tiny.mid: File too large\n"
    assert not list(out.iterdir())


def test_training_on_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(stopped, tmp_path):
    pytest.importorskip("resource")
    import resource

    folder = shutil.copytree(stopped, tmp_path / "run")
    before = (folder / "training.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError) as error:
            train(RUN, logging_each_step(), WINDOWS, WINDOWS[:4], folder, device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(folder / "training.pt") and "too large" in str(error.value)
    assert (folder / "training.pt").read_bytes() == before
    assert train(RUN, logging_each_step(), WINDOWS, WINDOWS[:4], folder, device="cpu").resumed_from == 2


@pytest.mark.parametrize(
    "words", [["--help"], ["sample", "--help"], ["models"], ["models", "--json"], ["inspect", "TUNE"]]
)
def test_a_closed_pipe_ends_a_command_without_a_word(tune, words):
    read, write = os.pipe()
    os.close(read)
    start = [sys.executable, "-m", "musicvae", *(str(tune) if word == "TUNE" else word for word in words)]
    done = subprocess.run(start, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_output_that_is_not_utf_8_is_plain_text(tune):
    done = command("inspect", tune, env={"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0 and not done.stderr and "|#" in done.stdout and "\\u" not in done.stdout


def test_a_file_name_that_is_no_text_is_shown_escaped(musicvae, run, tune, tmp_path):
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.mid"))
    shutil.copy(tune, strange)
    code, out, err = musicvae("encode", run, strange, "--out", tmp_path / "z.npz")
    assert code == 0 and not err and "\\udcff\\udce9.mid: " in out
    assert musicvae("reconstruct", run, strange, "--out", tmp_path / "out")[0] == 0


def test_long_names_are_cut_where_they_are_ours_and_refused_where_they_are_given(musicvae, run, tune, tmp_path):
    long = tune.rename(tmp_path / f"{'ü' * 125}.mid")
    for words in (["reconstruct"], ["vary", "-n", 2]):
        out = tmp_path / words[0]
        assert musicvae(words[0], run, long, *words[1:], "--out", out)[0] == 0
        assert all(path.name.startswith("ü" * 90) and "tiny" in path.name for path in out.iterdir())
    given = tmp_path / ("x" * 300)
    code, _, err = musicvae("sample", run, "--out", given)
    assert (code, err) == (1, f"musicvae sample: {given}: File name too long\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "not enough memory. Ask for less at once"),
        (MemoryError("Unable to allocate 9 GiB"), "not enough memory (Unable to allocate 9 GiB). Ask for less at once"),
        (RecursionError("maximum"), "a file is nested too deeply to be read"),
        (PermissionError(13, "Permission denied", "a.mid"), "a.mid: Permission denied"),
        (OSError(28, "No space left on device"), "standard output: No space left on device"),
        (ValueError("two\nlines"), "two lines"),
        (TypeError("x"), "unexpected TypeError (x). Please report it with what MUSICVAE_TRACEBACK=1 shows"),
    ],
)
def test_every_kind_of_error_is_one_line(musicvae, monkeypatch, error, line):
    from musicvae import cli

    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "models", fail)
    assert musicvae("models") == (1, "", f"musicvae models: {line}\n")


def test_a_damaged_cache_is_written_again_and_tokens_that_are_text_are_refused(tune, tmp_path, musicvae):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from musicvae.music.dataset import Dataset

    out = tmp_path / "data"
    assert musicvae("dataset", "build", tune, "--representation", "melody", "--out", out, "--workers", 1)[0] == 0
    tokens = np.array(Dataset(out).tokens("train"))
    (cache,) = out.glob("train.*.npy")
    whole = cache.read_bytes()
    for damaged in (b"", b"\x93NUMPY", whole[:-2], whole.replace(b"<u2", b"<i2")):
        cache.write_bytes(damaged)
        assert np.array_equal(Dataset(out).tokens("train"), tokens) and cache.read_bytes() == whole
    table = pq.read_table(out / "train.parquet")
    pq.write_table(table.set_column(0, "tokens", pa.array([["a"] * 32] * len(table))), out / "train.parquet")
    with pytest.raises(ValueError, match=r"train.parquet: cannot be read \(its columns .*\). Build the data set again"):
        Dataset(out).tokens("train")
