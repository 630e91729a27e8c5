"""``MMF_FLAVA_COMPAT`` selects patches by kind and by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmf_flava.compat.selection import KINDS, Selection, load_patches, parse_selection
from mmf_flava.errors import UserError

SCRIPTS = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("value", "kinds", "excluded"),
    [
        ("", KINDS, ()),
        ("all", KINDS, ()),
        ("defects", ("imports", "defects"), ()),
        ("imports", ("imports",), ()),
        ("0", (), ()),
        ("all,-splits.loaders", KINDS, ("splits.loaders",)),
        ("-splits.loaders, -splits.reporter", KINDS, ("splits.loaders", "splits.reporter")),
        ("defects,-splits.loaders", ("imports", "defects"), ("splits.loaders",)),
    ],
)
def test_values(value, kinds, excluded):
    assert parse_selection(value) == Selection(kinds, frozenset(excluded))


@pytest.mark.parametrize("value", ["1", "none", "imports,defects", "splits.loaders"])
def test_unknown_value_is_an_error(value):
    with pytest.raises(UserError, match=r"MMF_FLAVA_COMPAT: unknown value .*Set it to one of 0, imports, defects, all"):
        parse_selection(value)


def test_unknown_patch_is_an_error():
    with pytest.raises(UserError, match=r"MMF_FLAVA_COMPAT: unknown patch splits\.loader\."):
        load_patches(parse_selection("all,-splits.loader"))


def run(*command: str, value: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "MMF_FLAVA_COMPAT": value}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("value", ["wrong", "all,-no.such_patch"])
def test_scripts_print_one_line(value):
    result = run(SCRIPTS / "mmf_run", "model=cnn_lstm", value=value)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("mmf_flava: MMF_FLAVA_COMPAT: unknown ")


def test_programs_get_the_exception():
    result = run(sys.executable, "-c", "import mmf", value="wrong")
    assert result.returncode == 1 and "UserError: MMF_FLAVA_COMPAT: unknown value 'wrong'" in result.stderr


APPLIED = "import mmf.utils.configuration, mmf.utils.env; from mmf_flava.compat.patch import APPLIED_PATCHES as done; "


def applied(value: str) -> tuple[set[str], set[str]]:
    """Kinds and names of the patches that importing MMF applies."""
    result = run(sys.executable, "-c", APPLIED + "print(*(f'{one.kind}/{one.name}' for one in done))", value=value)
    assert result.returncode == 0, result.stderr
    pairs = [word.split("/") for word in result.stdout.split()]
    return {kind for kind, _ in pairs}, {name for _, name in pairs}


def test_patches_of_other_kinds_are_not_applied():
    assert applied("imports")[0] == {"imports"}
    assert applied("defects")[0] == {"imports", "defects"}
    kinds, names = applied("all,-env.plugin")
    assert kinds == set(KINDS) and "env.plugin" not in names and "overrides.merge" in names
