"""Every cure says what, why, since when and until when; ``python -m mmf_flava.compat`` shows them."""

import importlib
import os
import subprocess
import sys

import pytest

from mmf_flava.compat import hooks
from mmf_flava.compat.cure import CURES, REPORT, shadow

for file in set(hooks.FILES.values()):
    importlib.import_module(f"mmf_flava.compat.{file}")

ALL = [cure for cures in CURES.values() for cure in cures]


@pytest.mark.parametrize("cure", ALL, ids=lambda cure: cure.name)
def test_documented(cure):
    assert cure.when in ("before", "after", "virtual")
    assert all(len(text.split()) >= 2 for text in (cure.what, cure.why, cure.since, cure.until))
    assert callable(cure.needed) and callable(cure.mend)


def test_names_are_unique():
    assert len({cure.name for cure in ALL}) == len(ALL) > 30


def test_the_report_holds_what_was_applied():
    importlib.import_module("mmf")
    names = [cure.name for cure in REPORT if cure in ALL]
    assert {"mmf.missing_keys", "overrides.merge", "distributed.process_group"} <= set(names)
    assert len(set(names)) == len(names), "a cure was applied twice"


def table(**environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mmf_flava.compat"], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_table():
    done = table()
    assert done.returncode == 0, done.stderr
    for text in ("mmf: installed", "fairscale: installed", "applied      mmf.missing_keys", "Why: OmegaConf answers"):
        assert text in done.stdout
    assert len([line for line in done.stdout.splitlines() if line[:1].isalpha() and "(" in line]) == len(ALL)


def test_table_without_the_packages(tmp_path):
    # what Python takes for "there is no such module", as on a machine that never had them
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['fairseq'] = sys.modules['fairscale'] = None")
    done = table(PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    assert done.returncode == 0, done.stderr
    assert "fairseq: package not installed" in done.stdout and "torchvision: installed" in done.stdout
    assert "not reached  fairscale.streams" in done.stdout


def test_table_when_turned_off():
    done = table(MMF_FLAVA_COMPAT="0")
    assert done.returncode == 0 and "turned off" in done.stdout


def test_a_shadow_differs_for_one_importer_only():
    import math

    seen = shadow(math, pi=3)
    assert (seen.pi, seen.e) == (3, math.e)
    assert math.pi > 3
