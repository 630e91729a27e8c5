"""Calls in the modules of this process that may execute code from a file: unpickling, YAML with objects, eval and exec.

``python -m tests.unsafe_calls FOLDER`` runs toy recipes of all families in FOLDER, imports all commands and their
dependencies, and prints the calls as JSON: {"loaded": [packages], "calls": [[module, call], ...]}.
"""

import ast
import contextlib
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# of these packages, the table in docs/security.md lists every call
LISTED = ("mmf_flava", "mmf", "mmf_cli", "fairseq", "fairscale", "iopath")
UNSAFE = re.compile(
    r"(c?pickle|_pickle|_compat_pickle|dill|cloudpickle|joblib|marshal|shelve|ForkingPickler)\.(load|loads|open|Unpickler)"
    r"|torch\.(load|hub\.load|hub\.load_state_dict_from_url|jit\.load|package\.PackageImporter)"
    r"|torch\.utils\.model_zoo\.load_url"
    r"|yaml\.(load|load_all|unsafe_load|unsafe_load_all|full_load|full_load_all)"
    r"|(pandas|numpy)\.read_pickle|numpy\.load"
    r"|eval|exec|builtins\.(eval|exec)"
)
# only sources with one of these words are parsed
WORDS = (
    "pickle", "dill.", "joblib", "marshal", "shelve", "torch.load", "hub.load", "jit.load", "PackageImporter",
    "load_url", "load_state_dict_from_url", "yaml", "eval(", "exec(",
)  # fmt: skip


def dotted_name(node: ast.expr) -> str | None:
    """Return ``a.b.c`` for an expression of names and attributes, else None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted_name(node.value)):
        return f"{owner}.{node.attr}"
    return None


def find_calls(source: str) -> set[str]:
    """Return the unsafe calls in a source, such as ``pickle.load``, with the full names of imported modules."""
    tree = ast.parse(source)
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom) and node.module:
            aliases.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names = [(dotted_name(base), None) for base in node.bases]
        elif isinstance(node, ast.Call):
            names = [(dotted_name(node.func), node)]
        else:
            continue
        for name, call in names:
            first, _, rest = (name or "").partition(".")
            full = ".".join(part for part in (aliases.get(first, first), rest) if part)
            if not UNSAFE.fullmatch(full):
                continue
            options = {word.arg: word.value for word in call.keywords} if call else {}
            if full == "numpy.load":
                allowed = options.get("allow_pickle")
                if allowed is None or (isinstance(allowed, ast.Constant) and allowed.value is False):
                    continue  # numpy's default
                full += "(allow_pickle)"
            found.add(full if call else f"class({full})")
    return found


def scan(modules: dict[str, ModuleType]) -> Iterator[tuple[str, str]]:
    """Yield module and call for the calls in the sources of ``modules``."""
    for name, module in sorted(modules.items()):
        path = getattr(module, "__file__", None)
        if path is None or not path.endswith(".py") or getattr(module, "__name__", name) != name:
            continue
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            source = Path(path).read_text(encoding="utf-8")
            if any(word in source for word in WORDS):
                yield from ((name, call) for call in sorted(find_calls(source)))


def import_commands() -> None:
    """Import all modules of mmf_flava, and the packages that they import inside functions, if installed."""
    import mmf_flava

    names = [info.name for info in pkgutil.walk_packages(mmf_flava.__path__, "mmf_flava.")]
    for name in names:
        if not name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # a module for the other version of MMF
                importlib.import_module(name)
    for name in names:
        module = sys.modules.get(name)
        for node in ast.walk(ast.parse(inspect.getsource(module))) if module and module.__file__ else ():
            imported = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            )  # fmt: skip
            for package in imported:
                with contextlib.suppress(ImportError):
                    importlib.import_module(package)


def run_toy_recipe(folder: Path) -> None:
    """Finetune and evaluate on a toy dataset of MMF for one update."""
    from mmf_cli.run import run

    from mmf_flava.config.recipes import recipe_path
    from tests.finetuning import toys

    toys.write_tokenizer(folder / "flava_demo" / "tokenizer")
    toys.write_vqa2(folder, {"train2014": 8, "val2014": 4, "test2015": 4})
    options = [
        "training.max_updates=1",
        "training.batch_size=4",
        "training.num_workers=0",
        "training.tensorboard=false",
    ]
    config = f"config={recipe_path('finetune/demo_vqa2')}"
    with contextlib.redirect_stdout(sys.stderr):
        run([config, f"env.data_dir={folder}", f"env.save_dir={folder / 'run'}", *options])


if __name__ == "__main__":
    run_toy_recipe(Path(sys.argv[1]))
    import_commands()
    packages = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps({"loaded": packages, "calls": list(scan(dict(sys.modules)))}))
