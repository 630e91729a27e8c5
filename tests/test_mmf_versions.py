"""Only ``mmf_flava/compat`` tests which version of MMF is installed; ``mmf_api`` is the same for both versions."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPAT = ROOT / "mmf_flava" / "compat"
INTERFACE = "mmf_flava.compat.mmf_api"

MODULE_OF_MMF = re.compile(r"(mmf|mmf_cli)(\.|$)")
IMPLEMENTATION = re.compile(rf"{re.escape(INTERFACE)}\.(MMF_VERSION|(main|rc10)(_\w+)?)(\.|$)")
# functions that test for existence, in addition to getattr with a default
PROBES = {"dir", "find_spec", "hasattr", "issubclass", "vars"}
INSPECT = {"getattr_static", "getfile", "getfullargspec", "getmembers", "getsource", "getsourcefile", "signature"}
METADATA = {"distribution", "files", "metadata", "requires", "version"}
INTERNALS = {"__code__", "__dict__", "__file__", "__mro__", "__path__", "__version__"}
ABSENCE = {"AttributeError", "ImportError", "ModuleNotFoundError"}


def imported(node: ast.AST) -> set[str]:
    """Return the dotted names that a node imports; for ``from a import b`` both ``a`` and ``a.b``."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set()


def names_of_mmf(tree: ast.AST) -> set[str]:
    """Return the local names of MMF, of imports from it, and of ``mmf_api``."""
    names = set()
    for node in ast.walk(tree):
        for name in imported(node):
            if MODULE_OF_MMF.match(name) or name.startswith(INTERFACE):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    # ``import mmf_flava.compat.mmf_api`` binds the name of the package
    return names - {"mmf_flava"}


def last_name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]


def formatted(tree: ast.AST) -> set[int]:
    """Return the ``id`` of each expression in f-strings."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)}


class VersionTests:
    """Finds the expressions of a source that test which version of MMF is installed."""

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self.known = names_of_mmf(self.tree)
        # an f-string may contain a version, if it is not compared
        compared = [node for node in ast.walk(self.tree) if isinstance(node, ast.Compare)]
        self.printed = formatted(self.tree).difference(*map(formatted, compared))

    def find(self) -> Iterator[str]:
        for node in ast.walk(self.tree):
            if self.imports_version(node) or self.inspects(node) or self.probes(node) or self.catches(node):
                yield f"line {node.lineno}: {ast.unparse(node).splitlines()[0]}"

    def refers_to_mmf(self, *nodes: ast.AST) -> bool:
        """Return whether a name or string refers to MMF; ``super()`` may be a class of MMF."""
        children = [child for node in nodes for child in ast.walk(node)]
        return any(
            (isinstance(child, ast.Name) and child.id in {*self.known, "super"})
            or (isinstance(child, ast.Constant) and isinstance(child.value, str) and MODULE_OF_MMF.match(child.value))
            for child in children
        )

    def imports_version(self, node: ast.AST) -> bool:
        if any(IMPLEMENTATION.match(name) or name.startswith("packaging") for name in imported(node)):
            return True
        if any(name.startswith("mmf.version") or name == "mmf.__version__" for name in imported(node)):
            return True
        return isinstance(node, ast.Attribute) and node.attr == "MMF_VERSION"

    def inspects(self, node: ast.AST) -> bool:
        """Return whether the node reads attributes of MMF's modules, or which of them are loaded."""
        if isinstance(node, ast.Attribute):
            is_printed = node.attr == "__version__" and id(node) in self.printed
            return node.attr in INTERNALS and not is_printed and self.refers_to_mmf(node.value)
        if isinstance(node, ast.Compare | ast.Subscript | ast.Call):
            attributes = [child for child in ast.walk(node) if isinstance(child, ast.Attribute)]
            loaded = any(child.attr == "modules" and ast.unparse(child) == "sys.modules" for child in attributes)
            return loaded and self.refers_to_mmf(node)
        return False

    def probes(self, node: ast.AST) -> bool:
        if not isinstance(node, ast.Call) or not node.args:
            return False
        name = last_name(node.func)
        is_probe = name in PROBES | INSPECT | METADATA or (name == "getattr" and len(node.args) == 3)
        return is_probe and self.refers_to_mmf(node.args[0])

    def catches(self, node: ast.AST) -> bool:
        """Return whether the node uses MMF and handles a missing name."""
        if isinstance(node, ast.Try):
            caught = {name for handler in node.handlers for name in exceptions(handler.type)}
        elif (
            isinstance(node, ast.With)
            and last_name(getattr(call := node.items[0].context_expr, "func", call)) == "suppress"
        ):
            caught = {name for argument in call.args for name in exceptions(argument)}  # type: ignore[attr-defined]
        else:
            return False
        children = [child for statement in node.body for child in ast.walk(statement)]
        names = {name for child in children for name in imported(child)}
        imports = any(MODULE_OF_MMF.match(name) or name.startswith(INTERFACE) for name in names)
        if imports and caught & {*ABSENCE, "BaseException", "Exception"}:
            return True
        return bool(caught & ABSENCE) and self.refers_to_mmf(*node.body)


def exceptions(caught: ast.expr | None) -> set[str]:
    """Return the names of the exceptions that an ``except`` catches, ``BaseException`` if it has none."""
    if caught is None:
        return {"BaseException"}
    return {last_name(node) for node in (caught.elts if isinstance(caught, ast.Tuple) else [caught])}


def version_tests(source: str) -> list[str]:
    return list(VersionTests(source).find())


def files() -> list[Path]:
    found = [path for folder in ("mmf_flava", "benchmarks", "projects") for path in (ROOT / folder).rglob("*.py")]
    installer = ROOT / "mmf_flava" / "install_mmf.py"  # compares versions to install one
    return sorted(path for path in found if path != installer and not path.is_relative_to(COMPAT))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_compat_tests_the_version_of_mmf(path):
    assert not version_tests(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "from mmf_flava.compat.mmf_api import MMF_VERSION",
        "from mmf_flava.compat import mmf_api\nx = 1 if mmf_api.MMF_VERSION == 'main' else 2",
        "import mmf_flava.compat.mmf_api as api\nwhile api.MMF_VERSION != 'rc10': pass",
        "from mmf_flava.compat.mmf_api import main",
        "from mmf_flava.compat.mmf_api.rc10 import log",
        "import mmf_flava.compat.mmf_api.main",
        "from mmf_flava.compat.mmf_api.main import MMF_TRAINER",
        "import mmf\nif mmf.__version__ < '1.0.0': pass",
        "import mmf\nif f'{mmf.__version__}'.strip() < '1.0.0': pass",
        "from mmf import __version__",
        "from mmf.version import __version__ as theirs",
        "from importlib.metadata import version\nnew = version('mmf') > '1'",
        "import importlib.metadata as m\nold = m.distribution('mmf').version == '1.0.0rc10'",
        "from packaging.version import Version",
        "def f():\n    from packaging import version",
        "try:\n    from mmf.utils.build import build_datamodule\nexcept ImportError:\n    build_datamodule = None",
        "try:\n    import mmf.trainers.mmf_trainer\nexcept (OSError, ModuleNotFoundError):\n    pass",
        "try:\n    from mmf.utils import build\nexcept Exception:\n    pass",
        "try:\n    from mmf.utils import build\nexcept:\n    pass",
        "from contextlib import suppress\nwith suppress(ImportError):\n    import mmf.utils.env",
        "import importlib\ntry:\n    importlib.import_module('mmf.utils.env')\nexcept ImportError:\n    pass",
        "from mmf.utils import build\ntry:\n    f = build.build_datamodule\nexcept AttributeError:\n    f = None",
        "from mmf.utils import build\nif hasattr(build, 'build_datamodule'): pass",
        "from mmf.common.registry import registry as r\nx = r and hasattr(r.mapping, 'state')",
        "from mmf_flava.compat import mmf_api\nhasattr(mmf_api, 'callbacks')",
        "from mmf.trainers.base_trainer import BaseTrainer\ntrain = getattr(BaseTrainer, 'train', None)",
        "class T(B):\n    def load(self):\n        return getattr(super(), 'load', None)",
        "import sys\nnew = hasattr(sys.modules['mmf.utils.build'], 'build_datamodule')",
        "import sys\nif 'mmf.trainers.mmf_trainer' in sys.modules: pass",
        "import sys\nnew = sys.modules.get('mmf.trainers.mmf_trainer')",
        "from importlib.util import find_spec\nif find_spec('mmf.trainers.mmf_trainer'): pass",
        "import inspect\nfrom mmf.utils.build import build_model\nn = len(inspect.signature(build_model).parameters)",
        "import inspect\nfrom mmf.utils.build import build_model\nold = 'x' in inspect.getsource(build_model)",
        "from mmf.utils import build\nif 'build_datamodule' in vars(build): pass",
        "from mmf.utils import build\nif 'build_datamodule' in dir(build): pass",
        "from mmf.utils import build\nif 'build_datamodule' in build.__dict__: pass",
        "import mmf\nold = 'site-packages' in mmf.__file__",
        "from mmf.trainers.base_trainer import BaseTrainer\nif issubclass(BaseTrainer, object): pass",
    ],
)
def test_version_test_is_found(source):
    assert version_tests(source)


@pytest.mark.parametrize(
    "source",
    [
        "from mmf_flava.compat import mmf_api\nif mmf_api.defaults()['training']: pass",
        "from mmf_flava.compat.mmf_api import build_dataset, log",
        "from mmf_flava import __version__\nprint(__version__)",
        "import mmf\nprint(f'with mmf {mmf.__version__}')",
        "from mmf.common.sample import SampleList\nif isinstance(batch, SampleList) and hasattr(batch, 'image'): pass",
        "from mmf.common.registry import registry\nif registry.get('seed') is None: pass",
        "try:\n    import simplejpeg\nexcept ImportError:\n    simplejpeg = None",
        "from mmf.utils.env import setup_imports\ntry:\n    setup_imports()\nexcept OSError:\n    pass",
        "class T(B):\n    def load(self):\n        return getattr(self, 'loader', None)",
        "from importlib.metadata import version\nprint(version('torch'))",
    ],
)
def test_other_code_is_accepted(source):
    assert not version_tests(source)


def public_names(module: Path) -> set[str]:
    """Return the ``__all__`` of a module, or without one its public definitions."""
    defined, listed = set(), None
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names = {ast.unparse(target) for target in getattr(node, "targets", [getattr(node, "target", None)])}
            defined |= names
            if "__all__" in names:
                listed = set(ast.literal_eval(node.value))
    return {name for name in defined if not name.startswith("_")} if listed is None else listed


def implementations(version: str) -> dict[str, Path]:
    """Return the files for a version of MMF by their suffix: ``{"": rc10.py, "_trainer": rc10_trainer.py}``."""
    return {path.stem.removeprefix(version): path for path in (COMPAT / "mmf_api").glob(f"{version}*.py")}


def test_both_versions_have_the_same_names():
    versions = [implementations(version) for version in ("rc10", "main")]
    names = [{suffix: public_names(path) for suffix, path in paths.items()} for paths in versions]
    assert names[0] == names[1]
    assert {"build_dataset", "log"} <= names[0][""]


def test_interface_uses_all_names_of_both_versions():
    used: dict[str, set[str]] = {}
    for path in (COMPAT / "mmf_api").glob("*.py"):
        source = path.read_text()
        if found := re.search(r"_version = importlib.import_module\(f\".*\{MMF_VERSION\}(.*)\"\)", source):
            used[found[1]] = set(re.findall(r"\b_version\.(\w+)", source))
    assert used == {suffix: public_names(path) for suffix, path in implementations("rc10").items()}
