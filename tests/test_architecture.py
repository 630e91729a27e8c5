"""Import rules: a module imports only from its own package and earlier ones, and no two modules import each other.

The order of the packages is documented in README.md, section Architecture. The rules include imports inside functions,
through the lazy names of ``mmf_flava`` and by ``importlib.import_module``.
"""

import ast
import fnmatch
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path

import pytest

import mmf_flava

PACKAGE = Path(mmf_flava.__file__).parent
ORDER = [
    "errors",
    "packages",
    "command",
    "processes",
    "config",
    "files",
    "compat",
    "weights",
    "data",
    "models",
    "losses",
    "evaluation",
    "report",
    "training",
    "plan",
    "install_mmf",
    "cache_codes",
    "hub_folder",
    "convert",
    "embed",
    "search",
    "clip_benchmark",
    "plugin",
]
# packages that may import these dependencies
DEPENDENCIES = {
    "mmf": {"compat", "data", "models", "losses", "evaluation", "training", "plan"},
    "fairseq": {"compat", "training"},
    "fairscale": {"compat", "training"},
}
# compat loads the plugin when MMF starts
ENTRY_POINT = ("mmf_flava.compat.behaviour.env", "mmf_flava.plugin")


def module_name(path: Path) -> str:
    return ".".join(["mmf_flava", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
# defining modules of the lazy names, from the imports for type checkers in mmf_flava/__init__.py
LAZY_NAMES = {
    alias.name: node.module
    for node in ast.walk(ast.parse(SOURCES.pop("mmf_flava")))
    if isinstance(node, ast.ImportFrom) and node.module.startswith("mmf_flava.")
    for alias in node.names
}


def resolve(module: str, name: str) -> str:
    """Return the dotted name that ``from module import name`` imports; ``module`` itself for a name defined there."""
    if module == "mmf_flava" and name in LAZY_NAMES:
        return LAZY_NAMES[name]
    submodule = f"{module}.{name}"
    if module in (*SOURCES, "mmf_flava") and submodule not in SOURCES:
        return module
    return submodule


def string_values(node: ast.expr, variables: Mapping[str, list[ast.expr]]) -> set[str]:
    """Return the possible values of a string expression; ``*`` stands for parts that are only known at run time."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.Name) and node.id in variables:
        others = {name: values for name, values in variables.items() if name != node.id}
        return {value for assigned in variables[node.id] for value in string_values(assigned, others)}
    if isinstance(node, ast.FormattedValue):
        return string_values(node.value, variables)
    if isinstance(node, ast.IfExp):
        return string_values(node.body, variables) | string_values(node.orelse, variables)
    if isinstance(node, ast.JoinedStr):
        return {"".join(parts) for parts in product(*(string_values(part, variables) for part in node.values))}
    if isinstance(node, ast.BinOp):
        return {"".join(parts) for parts in product(*(string_values(n, variables) for n in (node.left, node.right)))}
    return {"*"}


def assigned_values(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Return the expressions that the variables of a module are assigned, by assignments and by loops over tuples."""
    variables: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets, values = node.targets, [node.value]
        elif isinstance(node, ast.For | ast.comprehension):
            targets, values = [node.target], getattr(node.iter, "elts", [node.iter])
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name):
                variables.setdefault(target.id, []).extend(values)
    return variables


def imported_names(source: str) -> Iterator[str]:
    """Yield the dotted names of all imports of ``source``; ``*`` stands for parts that are only known at run time."""
    tree = ast.parse(source)
    variables = assigned_values(tree)
    roots = {"mmf_flava"}  # local names of the package, from ``import mmf_flava as x``
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            roots |= {alias.asname for alias in node.names if alias.name == "mmf_flava" and alias.asname}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not supported by this check"
            yield from (resolve(node.module, alias.name) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in roots:
            yield resolve("mmf_flava", node.attr)
        elif isinstance(node, ast.Call) and node.args:
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if function in ("import_module", "__import__"):
                yield from string_values(node.args[0], variables)


def package_of(module: str) -> str | None:
    """Return the entry of ``ORDER`` that a module of ``mmf_flava`` belongs to; None for other modules."""
    root, _, rest = module.partition(".")
    return rest.partition(".")[0] if root == "mmf_flava" and rest else None


def invalid_imports(module: str, source: str) -> list[str]:
    """Return the imports of ``module`` from later packages, and those of dependencies not allowed in its package."""
    package, invalid = package_of(module), []
    for name in imported_names(source):
        imported = package_of(name)
        later = imported == "*" or (imported in ORDER and ORDER.index(imported) > ORDER.index(package))
        if later and (module, name) != ENTRY_POINT:
            invalid.append(name)
        if package not in DEPENDENCIES.get(name.partition(".")[0], {package}):
            invalid.append(name)
    return invalid


def import_cycle(sources: Mapping[str, str]) -> list[str]:
    """Return the modules of an import cycle; empty if there is none.

    Imports whose last component is only known at run time are not included.
    """
    graph = {}
    for module, source in sources.items():
        names = {name for name in imported_names(source) if not name.endswith("*")}
        found = {
            other
            for name in names
            for other in (fnmatch.filter(sources, name) if "*" in name else {name} & sources.keys())
        }
        graph[module] = {other for other in found if (module, other) != ENTRY_POINT}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("module", SOURCES)
def test_imports_follow_the_order(module):
    assert package_of(module) in ORDER, f"{module} belongs to a package that is not in ORDER"
    assert invalid_imports(module, SOURCES[module]) == []


def test_there_is_no_import_cycle():
    assert import_cycle(SOURCES) == []


@pytest.mark.parametrize(
    "source",
    [
        "from mmf_flava.training.trainer import FlavaTrainer",
        "from mmf_flava import training",
        "import mmf_flava.training.trainer",
        "def f():\n    import mmf_flava.training.trainer",
        "from mmf_flava import Embedder",
        "def f():\n    from mmf_flava import Embedder",
        "import mmf_flava\nmmf_flava.Embedder",
        "import mmf_flava as package\npackage.Embedder",
        "import_module('mmf_flava.training.trainer')",
        "importlib.import_module('mmf_flava.training')",
        "importlib.import_module(f'mmf_flava.training.{name}')",
        "importlib.import_module(f'mmf_flava.{name}.trainer')",
        'importlib.import_module(f\'mmf_flava.{"data" if x else "training"}.trainer\')',
        "for name in ('data', 'training'):\n    importlib.import_module(f'mmf_flava.{name}')",
        "TRAINER = 'mmf_flava.training.trainer'\nimport_module(TRAINER)",
        "PACKAGE = 'mmf_flava.training'\nimport_module(f'{PACKAGE}.trainer')",
        "PACKAGE = 'mmf_flava.training'\nimport_module(PACKAGE + '.trainer')",
        "__import__('mmf_flava.training.trainer')",
        "import fairseq.optim",
        "import_module('fairscale.nn')",
    ],
)
def test_an_invalid_import_is_found(source):
    assert invalid_imports("mmf_flava.losses.matching", source)


def test_valid_imports_are_accepted():
    assert not invalid_imports("mmf_flava.training.trainer", "from mmf_flava.losses import matching")
    assert not invalid_imports("mmf_flava.training.trainer", "from mmf_flava import Embedder, UserError")
    assert not invalid_imports("mmf_flava.losses.matching", "from mmf_flava import UserError")
    assert not invalid_imports("mmf_flava.report.run", "import_module('wandb')")


def test_load_pretrained_is_not_valid_in_weights_and_data():
    for module in ("mmf_flava.weights.names", "mmf_flava.data.pmd"):
        assert invalid_imports(module, "from mmf_flava import load_pretrained") == ["mmf_flava.models.pretrained"]


@pytest.mark.parametrize(
    "source",
    [
        "import mmf_flava.b",
        "from mmf_flava import b",
        "import_module('mmf_flava.b')",
        "for name in ('b', 'c'):\n    import_module(f'mmf_flava.{name}')",
        "import_module(f'mmf_{name}.b')",
    ],
)
def test_an_import_cycle_is_found(source, monkeypatch):
    sources = {"mmf_flava.a": source, "mmf_flava.b": "def f():\n    from mmf_flava.c import x", "mmf_flava.c": ""}
    monkeypatch.setattr(f"{__name__}.SOURCES", sources)
    assert import_cycle(sources) == []
    sources["mmf_flava.c"] = "from mmf_flava.a import y"
    assert {"mmf_flava.a", "mmf_flava.c"} <= {*import_cycle(sources)}


def test_lazy_names_are_defined_in_the_modules_of_their_type_checking_imports():
    assert {*mmf_flava.__all__} == {*LAZY_NAMES, "__version__"}
    for name, module in LAZY_NAMES.items():
        assert getattr(mmf_flava, name).__module__ == module


@pytest.mark.parametrize("name", ["utils.py", "helpers.py", "common.py", "constants.py"])
def test_file_names_are_specific(name):
    assert not list(PACKAGE.rglob(name))
