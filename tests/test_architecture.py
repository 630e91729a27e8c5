"""Data walks one way: a room of the package imports earlier rooms only. See the plan of the house in README.md."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mmf_flava"
ROOMS = [
    "errors",
    "ranks",
    "config",
    "compat",
    "files",
    "data",
    "models",
    "losses",
    "evaluation",
    "report",
    "training",
    "cache_codes",
    "convert",
    "embed",
    "clip_benchmark",
    "plugin",
]
FOREIGN_DOORS = {
    "mmf": {"compat", "data", "models", "losses", "evaluation", "training"},
    "fairseq": {"compat", "training"},
    "fairscale": {"compat", "training"},
}


def imports(source: str) -> set[str]:
    """Dotted names of everything that a source imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction of a door"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def wrong_doors(room: str, source: str) -> list[str]:
    """The imports of a file in ``room`` that lead to a later room or to a foreign package that it may not know."""
    wrong = []
    for name in imports(source):
        parts = name.split(".")
        if (
            parts[0] == "mmf_flava"
            and len(parts) > 1
            and parts[1] in ROOMS
            and ROOMS.index(parts[1]) > ROOMS.index(room)
        ):
            wrong.append(name)
        if parts[0] in FOREIGN_DOORS and room not in FOREIGN_DOORS[parts[0]]:
            wrong.append(name)
    return wrong


def files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py" or path.parent != PACKAGE]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_door_leads_backwards(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in ROOMS, f"{path.name} stands in a room that the plan does not have"
    assert not wrong_doors(room, path.read_text())


def test_the_check_finds_a_loss_that_imports_a_trainer():
    assert wrong_doors("losses", "from mmf_flava.training.trainer import FlavaTrainer")
    assert wrong_doors("losses", "def f():\n    import mmf_flava.training.trainer")
    assert wrong_doors("losses", "from mmf_flava import training")
    assert wrong_doors("models", "import fairseq.optim")
    assert not wrong_doors("training", "from mmf_flava.losses import matching")


@pytest.mark.parametrize("name", ["utils.py", "helpers.py", "common.py", "constants.py"])
def test_no_room_without_a_noun(name):
    assert not list(PACKAGE.rglob(name))
