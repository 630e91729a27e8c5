"""``make`` on either of MMF's lines; Python and pip are stubs that say how they were called."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUB = """#!/bin/sh
echo "$(basename "$0") PYTHONPATH=$PYTHONPATH $*"
"""


@pytest.fixture
def venv(tmp_path) -> Path:
    """A virtual environment in which rc10 is installed."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "pip", "mmf_run", "ruff", "mypy"):
        (folder / "bin" / name).write_text(STUB)
        (folder / "bin" / name).chmod(0o755)
    (folder / "installed-python3").touch()
    return folder


@pytest.fixture
def checkout(tmp_path) -> Path:
    """What looks like a checkout of MMF, in a folder with a space in its name."""
    folder = tmp_path / "my work" / "mmf"
    (folder / "mmf").mkdir(parents=True)
    (folder / "mmf" / "__init__.py").touch()
    return folder


@pytest.fixture
def make(venv):
    """``make("test", MMF=...)``, and what it printed, without the commands themselves."""

    def run(target: str, home: Path | None = None, **variables: object) -> subprocess.CompletedProcess:
        given = [f"{name}={value}" for name, value in variables.items()]
        # make hands its own variables to what it runs, these tests included
        told = ("PYTHONPATH", "MAKEFLAGS", "MMF", "VENV", "PYTHON")
        environment = {name: value for name, value in os.environ.items() if name not in told}
        command = ["make", "--silent", "-C", str(ROOT), "--no-print-directory", target, f"VENV={venv}", *given]
        return subprocess.run(
            command, capture_output=True, text=True, env={**environment, "HOME": str(home or Path.home())}
        )

    return run


def test_without_a_checkout_nothing_is_different(make):
    assert make("test").stdout == "python PYTHONPATH= -m pytest\n"
    assert make("test", MMF="").stdout == "python PYTHONPATH= -m pytest\n"
    assert make("demo").stdout == "mmf_run PYTHONPATH= config=projects/flava/configs/demo.yaml\n"


def test_a_checkout_is_found_before_rc10_and_after_our_own_folders(make, checkout):
    path = f"PYTHONPATH={ROOT}:{checkout}"
    installed, ran = make("test", MMF=checkout).stdout.splitlines()
    assert installed == "pip PYTHONPATH= install --quiet --constraint constraints.txt --editable .[mmf-main]"
    assert ran == f"python {path} -m pytest"
    # nothing is installed a second time
    assert make("test", MMF=checkout).stdout == f"python {path} -m pytest\n"
    assert make("demo", MMF=checkout).stdout == f"mmf_run {path} config=projects/flava/configs/demo.yaml\n"
    assert make("chaos", MMF=checkout).stdout == f"python {path} -m tests.faults\n"
    assert make("check", MMF=checkout).stdout.endswith(f"\npython {path} -m pytest\n")
    # and rc10 is still there
    assert make("test").stdout == "python PYTHONPATH= -m pytest\n"


def test_a_path_may_be_relative_or_begin_at_home(make, checkout, tmp_path):
    for given in (os.path.relpath(checkout, ROOT), "~/my work/mmf"):
        assert make("test", home=tmp_path, MMF=given).stdout.endswith(f":{checkout} -m pytest\n"), given


def test_a_folder_without_mmf_is_named(make, tmp_path):
    for given in (tmp_path, tmp_path / "absent"):
        done = make("test", MMF=given)
        assert done.returncode == 2
        assert f"there is no checkout of MMF in {given}: MMF= names the folder" in done.stderr
