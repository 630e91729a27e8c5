"""docs/security.md lists every call in the loaded modules that may execute code from a file."""

import fnmatch
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmf_flava.compat.mmf_api import MMF_VERSION
from tests.unsafe_calls import LISTED, find_calls

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
STDLIB = "Python's standard library"


def rows(header: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this header."""
    lines = DOCUMENT.partition(f"| {header} |")[2].splitlines()[2:]
    lines = lines[: next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    """The loaded packages, and the calls in their modules, after a toy recipe and the import of all commands."""
    folder = tmp_path_factory.mktemp("unsafe_calls")
    done = subprocess.run(
        [sys.executable, "-m", "tests.unsafe_calls", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MMF_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_call_is_listed_and_every_row_has_a_call(report):
    calls = {(module, call) for module, call in report["calls"] if module.partition(".")[0] in LISTED}
    table = [(module, call) for module, call, version, _ in rows("module") if version in ("both", MMF_VERSION)]
    matches = {
        row: {call for call in calls if fnmatch.fnmatchcase(call[0], row[0]) and call[1] == row[1]} for row in table
    }
    assert len(calls) > 20
    assert not sorted(calls - set().union(*matches.values())), "calls that docs/security.md does not list"
    assert not [row for row, found in matches.items() if not found], "rows of docs/security.md without a call"
    assert all(version in ("both", "rc10", "main") and reason for _, _, version, reason in rows("module"))


def test_every_package_is_listed(report):
    packages = {module.partition(".")[0] for module, _ in report["calls"]} - set(LISTED)
    packages = {STDLIB if name in sys.stdlib_module_names else name for name in packages}
    listed = {name for name, reason in rows("package") if reason}
    assert not sorted(packages - listed), "packages that docs/security.md does not list"
    stale = (listed - packages) & set(report["loaded"])
    assert not sorted(stale), "packages of docs/security.md without such calls"


def test_patches_in_the_table_are_applied():
    from mmf_flava.compat.patch import PATCHES

    names = {patch.name for patches in PATCHES.values() for patch in patches}
    assert set(re.findall(r"`((?:pickles|checkpoint)\.\w+)`", DOCUMENT)) <= names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle\npickle.load(f)", {"pickle.load"}),
        ("import pickle as p\np.loads(b)", {"pickle.loads"}),
        ("from pickle import loads as x\nx(b)", {"pickle.loads"}),
        ("import pickle\nclass A(pickle.Unpickler): pass", {"class(pickle.Unpickler)"}),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", {"numpy.load(allow_pickle)"}),
        ("import numpy as np\nnp.load(f, allow_pickle=x)", {"numpy.load(allow_pickle)"}),
        ("import numpy as np\nnp.load(f)\nnp.load(f, allow_pickle=False)", set()),
        ("import torch\ntorch.load(f)\ntorch.hub.load('x')", {"torch.load", "torch.hub.load"}),
        ("from torch.hub import load\nload('x')", {"torch.hub.load"}),
        ("import yaml\nyaml.load(f, Loader=x)\nyaml.safe_load(f)", {"yaml.load"}),
        ("eval(x)\nexec(y)\nmodel.eval()", {"eval", "exec"}),
    ],
)
def test_scanner_finds_calls(source, expected):
    assert find_calls(source) == expected
