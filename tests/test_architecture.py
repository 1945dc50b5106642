"""The direction of the code: a module imports only from the rows above its own, and the halves meet in one place."""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "musicvae"
ROWS = [
    "files archive extras model.crc32c model.noise model.threads model.drawing evaluation.ngram",
    "music.metre music.workers music.unique model.config model.lstm model.latent model.flow evaluation.arpa",
    "music.guard model.vae model.weights model.table_decoder model.bundle model.tfjs model.magenta_names model.vectors",
    "model.onnx_decoder model.checkpoint model.player model.objective model.bar_prior model.recurrence",
    "music.midi music.sources model.feed evaluation.results",
    "music.representation model.torch_player model.prior model.run_folder model.onnx model.magenta hub",
    "music.windows music.pianoroll music.panels music.synth model.training evaluation.streams",
    "music.grouping music.inspection music.picture music.audio evaluation.reconstruction evaluation.statistics",
    "music.report music.key music.cutting music.attributes evaluation.estimates",
    "music.mapping evaluation.errors",
    "music.reducing",
    "music.dataset",
    "presets opening box",
    "composer",
    "train evaluation.command evaluation.attributes evaluation.interpolation evaluation.density evaluation.quality",
    "learn exchange",
    "commands.options commands.output",
    "commands.playing commands.datasets commands.training commands.latent commands.exchange",
    "commands.attributes",
    "cli",
]
BELOW = {"files", "archive", "extras"}  # neither notes nor tensors
ROW = {module: n for n, row in enumerate(ROWS) for module in row.split()}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it the import stands."""
    return imported(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "a relative import hides where it points"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    names = {name.removeprefix("musicvae.") for name in imports(path) if name.startswith("musicvae.")}
    return names & MODULES.keys()


def test_every_module_has_a_row():
    assert MODULES.keys() == ROW.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_upwards(module: str):
    wrong = {other for other in ours(MODULES[module]) if ROW[other] >= ROW[module]}
    assert not wrong, f"{module} (row {ROW[module]}) imports {wrong}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.startswith("music.")))
def test_music_knows_no_tensors(module: str):
    assert not {name for name in imports(MODULES[module]) if name.split(".")[0] == "torch"}


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.startswith(("music.", "model."))))
def test_a_half_knows_itself_and_what_is_below_both(module: str):
    half = module.split(".")[0] + "."
    assert not {name for name in ours(MODULES[module]) if not name.startswith(half) and name not in BELOW}


def test_files_knows_neither_half():
    assert {name.split(".")[0] for name in imports(MODULES["files"])} <= set(sys.stdlib_module_names)


def test_the_paper_file_stands_alone():
    assert ours(MODULES["model.vae"]) == {"model.config"}, "and this holds its sizes alone"
    outside = {name.split(".")[0] for name in imports(MODULES["model.vae"])}
    assert outside <= {"torch", "typing", "musicvae"}


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m == "cli" or m.startswith("commands.")))
def test_the_command_line_imports_nothing_heavy_at_the_top(module: str):
    """Nor anything of ours but the commands: what stands above them imports numpy sooner or later."""
    names = imported(ast.parse(MODULES[module].read_text(encoding="utf-8")).body)
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names) | {"tyro", "musicvae"}
    light = ("musicvae.commands", "musicvae.extras")
    heavy = {name for name in names if name.startswith("musicvae.") and not name.startswith(light)}
    assert not heavy, f"{module} imports {heavy} at the top"
