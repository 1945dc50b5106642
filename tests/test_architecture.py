"""The direction of the code: a module imports only from the rows above its own, and the halves meet in one place."""

import ast
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "musicvae"
ROWS = [  # of modules and of rooms; a room is a folder, within which imports go in no circle
    "files archive shell limits progress extras",
    "music model",
    "render hub presets opening",
    "box",
    "composer",
    "evaluation",
    "train learn exchange",
    "commands",
    "cli",
    "__main__",
]
BELOW = set(ROWS[0].split())  # neither notes nor tensors
ROW = {name: n for n, row in enumerate(ROWS) for name in row.split()}
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


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_a_row():
    assert {room(module) for module in MODULES} == ROW.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_upwards(module: str):
    others = {other for other in ours(MODULES[module]) if room(other) != room(module)}
    wrong = {other for other in others if ROW[room(other)] >= ROW[room(module)]}
    assert not wrong, f"{module} (row {ROW[room(module)]}) imports {wrong}"


def test_imports_go_in_no_circle():
    list(TopologicalSorter({module: ours(path) for module, path in MODULES.items()}).static_order())


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
