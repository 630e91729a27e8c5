"""``make`` with both versions of MMF. Python and pip are stubs that print their arguments."""

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
    """A virtual environment with MMF 1.0.0rc10 installed."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "pip", "mmf_run", "ruff", "mypy"):
        (folder / "bin" / name).write_text(STUB)
        (folder / "bin" / name).chmod(0o755)
    (folder / "installed-python3").touch()
    return folder


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A minimal MMF checkout, in a folder with a space in its name."""
    folder = tmp_path / "my work" / "mmf"
    (folder / "mmf").mkdir(parents=True)
    (folder / "mmf" / "__init__.py").touch()
    return folder


@pytest.fixture
def make(venv):
    """Return ``make(target, MMF=...)``, which returns the completed process; commands are not echoed."""

    def run(target: str, home: Path | None = None, **variables: object) -> subprocess.CompletedProcess:
        assignments = [f"{name}={value}" for name, value in variables.items()]
        # make exports its variables to its commands, and these tests may run under make
        exported = ("PYTHONPATH", "MAKEFLAGS", "MMF", "VENV", "PYTHON")
        environment = {name: value for name, value in os.environ.items() if name not in exported}
        command = ["make", "--silent", "-C", str(ROOT), "--no-print-directory", target, f"VENV={venv}", *assignments]
        return subprocess.run(
            command, capture_output=True, text=True, env={**environment, "HOME": str(home or Path.home())}
        )

    return run


def test_rc10_is_the_default(make):
    assert make("test").stdout == "python PYTHONPATH= -m pytest -n 2 --dist loadfile\n"
    assert make("test", MMF="").stdout == "python PYTHONPATH= -m pytest -n 2 --dist loadfile\n"
    assert make("demo").stdout == "mmf_run PYTHONPATH= config=projects/flava/configs/demo.yaml\n"


def test_photographs_are_prepared_from_local_files_first(make):
    run = "mmf_run PYTHONPATH= config=projects/flava/configs/demo_photos.yaml"
    assert make("demo-photos", OPTIONS="training.seed=2").stdout == f"{run} training.seed=2\n"
    prepare = "python PYTHONPATH= -m mmf_flava.data.prepare photos"
    assert make("demo-photos", SRC="/my photos").stdout == f"{prepare} --src /my photos\n{run}\n"
    assert make("demo-photos", TEXT="a.txt").stdout == f"{prepare} --text a.txt\n{run}\n"


def test_stopped_demo_is_continued(make):
    done = make("demo", OPTIONS="checkpoint.resume=true training.seed=2")
    assert done.stdout.endswith("demo.yaml checkpoint.resume=true training.seed=2\n")


def test_checkout_precedes_rc10_on_the_path(make, checkout):
    path = f"PYTHONPATH={ROOT}:{checkout}"
    installed, ran = make("test", MMF=checkout).stdout.splitlines()
    options = "--dependencies-only --constraint constraints.txt"
    assert installed == f"python PYTHONPATH= -m mmf_flava.install_mmf main={checkout} {options}"
    assert ran == f"python {path} -m pytest -n 2 --dist loadfile"
    # a second call does not install again
    assert make("test", MMF=checkout).stdout == f"python {path} -m pytest -n 2 --dist loadfile\n"
    assert make("demo", MMF=checkout).stdout == f"mmf_run {path} config=projects/flava/configs/demo.yaml\n"
    assert make("chaos", MMF=checkout).stdout == f"python {path} -m tests.faults\n"
    assert make("check", MMF=checkout).stdout.endswith(f"\npython {path} -m pytest -n 2 --dist loadfile\n")
    # rc10 can still be used
    assert make("test").stdout == "python PYTHONPATH= -m pytest -n 2 --dist loadfile\n"


def test_tools_are_checked_before_anything_is_installed(make, venv, tmp_path):
    (venv / "installed-python3").unlink()
    python = tmp_path / "python"
    python.write_text(STUB + 'case "$*" in *--check) exit 2;; esac\n')
    python.chmod(0o755)
    done = make("demo", PYTHON=python)
    assert done.returncode != 0 and done.stdout.endswith("python PYTHONPATH= -m mmf_flava.install_mmf --check\n")
    python.write_text(STUB)
    *_, dependencies, mmf, demo = make("demo", PYTHON=python).stdout.splitlines()
    assert dependencies == "pip PYTHONPATH= install --constraint constraints.txt --editable .[data,eval,dev]"
    assert mmf == "python PYTHONPATH= -m mmf_flava.install_mmf --constraint constraints.txt"
    assert demo.startswith("mmf_run ")


def test_clean_keeps_runs():
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    command = ["make", "--dry-run", "--no-print-directory", "-C", str(ROOT), "clean"]
    printed = subprocess.run(command, capture_output=True, text=True, env=environment).stdout
    assert printed == "rm -rf .venv build dist *.egg-info\n"


def test_relative_and_home_paths_are_expanded(make, checkout, tmp_path):
    for path in (os.path.relpath(checkout, ROOT), "~/my work/mmf"):
        assert make("test", home=tmp_path, MMF=path).stdout.endswith(f":{checkout} -m pytest -n 2 --dist loadfile\n"), (
            path
        )


def test_folder_without_mmf_raises_an_error(make, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        done = make("test", MMF=folder)
        assert done.returncode == 2
        assert f"MMF={folder}: mmf/__init__.py was not found. Set MMF to the root folder" in done.stderr
