"""The direction of the code: a module imports only from the rows above its own, and the halves meet in one place."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "musicvae"
ROWS = [
    "music.metre music.workers music.unique model.vae",
    "music.guard model.objective",
    "music.midi music.sources model.checkpoint",
    "music.representation model.run_folder",
    "music.windows music.pianoroll model.training evaluation.streams",
    "music.grouping music.inspection evaluation.reconstruction evaluation.statistics",
    "music.report",
    "music.mapping",
    "music.reducing",
    "music.dataset",
    "presets",
    "composer",
    "train evaluation.command",
    "cli",
]
ROW = {module: n for n, row in enumerate(ROWS) for module in row.split()}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it points"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
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


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.startswith("model.")))
def test_the_model_knows_no_notes(module: str):
    assert not {name for name in ours(MODULES[module]) if name.startswith("music.")}


def test_the_paper_file_stands_alone():
    assert not ours(MODULES["model.vae"])
    outside = {name.split(".")[0] for name in imports(MODULES["model.vae"])}
    assert outside <= {"torch", "dataclasses", "typing"}


def test_the_command_line_imports_nothing_heavy_at_the_top():
    tree = ast.parse(MODULES["cli"].read_text(encoding="utf-8"))
    top = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    top |= {(node.module or "").split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not top & {"torch", "numpy", "pyarrow", "symusic", "rich", "mido"}
