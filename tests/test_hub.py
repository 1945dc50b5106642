"""Models that live elsewhere: a local folder, and a double of the hub on this machine."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

import musicvae
from musicvae.cli import main
from musicvae.composer import Composer, load
from musicvae.hub import SECONDS, fetch, is_hub_name
from musicvae.model.checkpoint import save_run
from musicvae.model.config import PRIOR, ModelConfig, RunConfig
from musicvae.model.prior import Flow, save_prior
from musicvae.model.vae import MusicVAE
from musicvae.model.vectors import ATTRIBUTES, save_vectors

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
COMMIT = "c0ffee" + 34 * "0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny untrained model with a prior, an attribute vector and a card."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    config = ModelConfig((130,), 32, latent_size=4, encoder_units=4, encoder_layers=1, decoder_units=4)
    save_run(folder, MusicVAE(config), RunConfig(name="tiny", representation="melody", model=config))
    save_prior(folder / PRIOR, Flow(4, 3, 2))
    save_vectors(folder / ATTRIBUTES, {"busy": np.ones(4, np.float32)})
    (folder / "README.md").write_text("# tiny\n")
    return folder


class Hub(ThreadingHTTPServer):
    """As much of the hub as it takes to fetch models: their list of files, and the files."""

    daemon_threads = True

    def __init__(self, models: dict[str, Path]):
        super().__init__(("127.0.0.1", 0), Answer)
        self.models, self.asked, self.silent = models, list[str](), False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.silent:
            time.sleep(SECONDS + 2)
            return
        path = self.path.split("?")[0].strip("/")
        for name, folder in self.server.models.items():
            if path in (f"api/models/{name}", f"api/models/{name}/revision/main"):
                files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                self.answer(json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": files}).encode())
                return
            if path.startswith(f"{name}/resolve/"):
                self.answer((folder / path.rsplit("/", 1)[1]).read_bytes())
                return
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        headers = {"ETag": f'"{hash(body)}"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the model someone/tiny, an empty cache, and no way around."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    for name in (*PROXIES, "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with Hub({"someone/tiny": run}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def weights(composer: Composer) -> dict[str, torch.Tensor]:
    return composer.model.state_dict()


def same(a: Composer, b: Composer) -> bool:
    return a.config == b.config and all(torch.equal(weights(a)[k], weights(b)[k]) for k in weights(a))


# --- a local folder ----------------------------------------------------------------------------------------------


def test_saved_and_loaded_again_it_is_the_same_model_with_its_vectors_and_card(run: Path, tmp_path: Path):
    composer = load(run)
    folder = composer.save_pretrained(tmp_path / "copy")
    again = Composer.from_pretrained(folder)
    assert same(again, composer)
    assert again.sample(2, seed=1)[0].to_bytes() == composer.sample(2, seed=1)[0].to_bytes()
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in run.iterdir())
    assert (folder / ATTRIBUTES).read_bytes() == (run / ATTRIBUTES).read_bytes()
    before = {p: p.read_bytes() for p in folder.iterdir()}
    again.save_pretrained(folder)  # onto itself
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_half_precision_halves_the_file(run: Path, tmp_path: Path):
    folder = load(run).save_pretrained(tmp_path / "half", half=True)
    sizes = [(place / "model.safetensors").stat().st_size for place in (folder, run)]
    assert sizes[0] < 0.7 * sizes[1]
    for name, value in weights(load(folder)).items():
        assert torch.equal(value, weights(load(run))[name].half().float())


def test_from_pretrained_finds_the_box_and_names_what_it_has():
    assert Composer.from_pretrained("melody-2").name == "melody-2"
    with pytest.raises(ValueError, match=r"in the box are: .*melody-2"):
        Composer.from_pretrained("melody-3")


def test_names_on_the_hub_are_owner_and_name():
    assert is_hub_name("someone/melody-2") and is_hub_name("a/b_c.d")
    for other in (
        "melody-2",
        "./runs/mine",
        "/home/mine",
        "../mine",
        "a/b/c",
        "a/",
        "/b",
        "a/..",
        "a b/c",
        "é/b",
        "a/b\n",
    ):
        assert not is_hub_name(other), other


# --- the double of the hub ---------------------------------------------------------------------------------------


def test_a_model_on_the_hub_is_loaded_by_its_name(hub: Hub, run: Path):
    for composer in (musicvae.load("someone/tiny"), Composer.from_pretrained("someone/tiny", revision="main")):
        assert same(composer, load(run))
        assert composer.folder is not None and (composer.folder / ATTRIBUTES).read_bytes()
    fetched = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert {line.split("?")[0].rsplit("/", 1)[1] for line in fetched} == {
        "config.json",
        "model.safetensors",
        PRIOR,
        ATTRIBUTES,
    }
    assert len(fetched) == 4, "the second time nothing is fetched again"


def test_a_folder_of_that_name_comes_first(hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    load(run).save_pretrained("someone/tiny")
    assert Composer.from_pretrained("someone/tiny").folder == Path("someone/tiny")
    assert musicvae.load("someone/tiny").folder == Path("someone/tiny")
    with pytest.raises(ValueError, match="no run folder"):
        musicvae.load("someone/tyni")  # a slip beside a folder that is here
    assert not hub.asked


def test_the_hub_has_no_such_model(hub: Hub):
    with pytest.raises(ValueError, match=r"no model 'someone/else' to be had from http://127.0.0.1:\d+: there is none"):
        fetch("someone/else")


def test_what_is_no_model_of_ours_is_refused_before_its_weights_are_fetched(hub: Hub, tmp_path: Path):
    for name in ("text", "foreign"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "gpt2"}')
        hub.models[f"someone/{name}"] = tmp_path / name
    (tmp_path / "foreign" / "model.safetensors").write_bytes(b"much")
    with pytest.raises(ValueError, match="is no model of musicvae: it lacks"):
        fetch("someone/text")
    with pytest.raises(ValueError, match="no valid run configuration"):
        fetch("someone/foreign")
    assert not [line for line in hub.asked if "model.safetensors" in line]


def test_without_a_network_it_fails_in_time_or_takes_what_was_fetched_before(hub: Hub, run: Path):
    hub.silent = True
    began = time.monotonic()
    with pytest.raises(
        ValueError, match=r"cannot be reached \(no answer within 2 s\), and someone/tiny was not fetched"
    ):
        fetch("someone/tiny")
    assert time.monotonic() - began < SECONDS + 2
    hub.silent = False
    fetch("someone/tiny")
    hub.shutdown()
    hub.server_close()
    began = time.monotonic()
    assert same(load("someone/tiny"), load(run))
    with pytest.raises(ValueError, match="cannot be reached"):
        fetch("someone/else")
    assert time.monotonic() - began < SECONDS + 2


def test_the_command_line_takes_names_on_the_hub(hub: Hub, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["musicvae", "sample", "someone/tiny", "-n", "2", "--out", "music"])
    main()
    assert len(list((tmp_path / "music").glob("tiny-*.mid"))) == 2
    monkeypatch.setattr(sys, "argv", ["musicvae", "sample", "someone/else", "--out", "other"])
    hub.shutdown()
    hub.server_close()
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith(f"musicvae sample: {hub.url} cannot be reached") and said.count("\n") == 1, said
