"""Every patch is documented and of one kind, and ``python -m mmf_flava.compat`` lists it."""

import importlib
import math
import os
import subprocess
import sys

import pytest

from mmf_flava.compat import behaviour, defects, imports  # noqa: F401 - registers all patches
from mmf_flava.compat.patch import APPLIED_PATCHES, PATCHES, overlay, wrap
from mmf_flava.compat.selection import KINDS

ALL = [patch for patches in PATCHES.values() for patch in patches]


@pytest.mark.parametrize("patch", ALL, ids=lambda patch: f"{patch.kind}.{patch.name}")
def test_patch_is_documented(patch):
    assert patch.when in ("before", "after", "virtual")
    assert patch.kind in KINDS
    assert all(len(text.split()) >= 2 for text in (patch.what, patch.why, patch.since, patch.until))
    assert callable(patch.needed) and callable(patch.change)


def test_names_are_unique():
    assert len({patch.name for patch in ALL}) == len(ALL)


def test_each_kind_has_patches():
    assert {patch.kind for patch in ALL} == {*KINDS}


def test_applied_patches_are_recorded_once():
    importlib.import_module("mmf")
    names = [patch.name for patch in APPLIED_PATCHES if patch in ALL]
    assert {"omegaconf.missing_keys", "overrides.merge", "distributed.process_group"} <= set(names)
    assert len(set(names)) == len(names)


def table(**environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mmf_flava.compat"], capture_output=True, text=True, env={**os.environ, **environment}
    )


def states(output: str) -> dict[str, str]:
    """The state of each patch in a table."""
    headings = [line for line in output.splitlines() if line.endswith(")") and line[:1].isalpha() and "  (" in line]
    return {line[13:].split()[0]: line[:12].strip() for line in headings}


def test_table_lists_all_patches_by_kind():
    result = table()
    assert result.returncode == 0, result.stderr
    for text in ("mmf: installed", "fairscale: installed", "applied      omegaconf.missing_keys", "Why: OmegaConf"):
        assert text in result.stdout
    for text in (
        "imports: always",
        "defects: always",
        "behaviour: active only in FLAVA's runs",
        "all,-splits.loaders",
    ):
        assert text in result.stdout
    assert len(states(result.stdout)) == len(ALL)


def test_table_without_the_packages(tmp_path):
    # None marks a module as missing, as on a machine where it is not installed
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['fairseq'] = sys.modules['fairscale'] = None")
    result = table(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    assert result.returncode == 0, result.stderr
    assert "fairseq: package not installed" in result.stdout and "torchvision: installed" in result.stdout
    assert "not reached  fairscale.streams" in result.stdout


def test_table_shows_excluded_patches():
    result = table(MMF_FLAVA_COMPAT="defects,-distributed.gloo")
    assert result.returncode == 0, result.stderr
    found = states(result.stdout)
    assert found["omegaconf.missing_keys"] == found["distributed.process_group"] == "applied"
    assert found["distributed.gloo"] == found["env.plugin"] == found["overrides.merge"] == "turned off"


def test_table_when_turned_off():
    result = table(MMF_FLAVA_COMPAT="0")
    assert result.returncode == 0 and "all patches are turned off" in result.stdout


def test_overlay_differs_for_one_importer_only():
    view = overlay(math, pi=3)
    assert (view.pi, view.e) == (3, math.e)
    assert math.pi > 3


def test_wrap_passes_the_original_and_tests_its_condition_at_each_call():
    class Owner:
        def double(self, number):
            """Doubles."""
            return 2 * number

    condition = True

    @wrap(Owner, "double", only_if=lambda: condition)
    def double(original, self, number):
        return original(self, number) + 1

    assert Owner().double(3) == 7 and Owner.double.__doc__ == "Doubles."
    condition = False
    assert Owner().double(3) == 6
