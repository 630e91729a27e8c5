"""``mmf_flava.install_mmf``: the commands that it runs, and what it checks before. pip is replaced by a record."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmf_flava import install_mmf
from mmf_flava.install_mmf import main


@pytest.fixture
def pip(monkeypatch):
    """Record the commands, with an empty environment. ``pip.failing`` is a word of the commands that fail."""
    state = SimpleNamespace(commands=[], versions={}, failing=None)

    def run(words):
        command = " ".join(words[2:])
        state.commands.append(command)
        if state.failing is not None and state.failing in command:
            return SimpleNamespace(returncode=1)
        if command.startswith("pip download"):
            folder = next(word for word in words if word.startswith("--dest=")).removeprefix("--dest=")
            Path(folder, "mmf-1.0.0rc10-cp38-cp38-manylinux1_x86_64.whl").touch()
        elif command.startswith("pip install"):
            packages = [word for word in words if "==" in word]
            state.versions.update(dict(package.split("==") for package in packages))
            state.versions.update({"mmf": "1.0.0rc10"} if "mmf-" in words[-1] else {})
        return SimpleNamespace(returncode=0)

    def distribution(name):
        return SimpleNamespace(locate_file=lambda path: Path(__file__), read_text=lambda name: None)

    requirements = [
        "torch>=2",
        'requests; extra == "mmf"',
        'regex>=1; extra == "fairseq"',
        'pandas; extra == "mmf-main"',
    ]
    monkeypatch.setattr(install_mmf.subprocess, "run", run)
    monkeypatch.setattr(install_mmf, "_version", lambda name: state.versions.get(name, ""))
    monkeypatch.setattr(install_mmf.metadata, "distribution", distribution)
    monkeypatch.setattr(install_mmf.metadata, "requires", lambda name: requirements)
    return state


def test_only_what_is_missing_is_installed(pip, capsys):
    assert main(["--constraint", "constraints.txt"]) == 0
    requests, download, tags, mmf, regex, fairseq = pip.commands
    assert requests == "pip install --constraint constraints.txt requests"
    assert "--abi=cp38" in download and download.endswith("mmf==1.0.0rc10")
    assert tags.startswith("wheel tags --remove --python-tag=py3 --abi-tag=none")
    assert mmf.startswith("pip install --no-deps --force-reinstall ")
    assert regex == "pip install --constraint constraints.txt regex>=1"
    assert fairseq == "pip install --no-deps fairseq==0.12.2 fairscale==0.4.13"
    assert capsys.readouterr().out.endswith("MMF 1.0.0rc10: everything is installed.\n")
    pip.commands.clear()
    pip.versions.update(requests="2.0", regex="2.0")
    assert main([]) == 0 and pip.commands == []


def test_fairseq_is_left_out(pip, capsys, monkeypatch):
    monkeypatch.setattr(install_mmf.shutil, "which", lambda name: None)  # no compiler is needed
    assert main(["rc10", "--without-fairseq"]) == 0
    assert len(pip.commands) == 4 and not any("fairs" in command for command in pip.commands)
    assert "except for fairseq and fairscale. training.sharding: fsdp" in capsys.readouterr().out


def test_failed_build_of_fairseq_leaves_mmf_installed(pip, capsys):
    pip.failing = "fairseq=="
    assert main([]) == 0
    printed = capsys.readouterr()
    assert "fairseq and fairscale are left out: `pip install` failed with exit code 1" in printed.err
    assert "except for fairseq and fairscale" in printed.out and pip.versions["mmf"] == "1.0.0rc10"


def test_failed_download_is_an_error(pip, capsys):
    pip.failing = "download"
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("mmf_flava: `pip download` failed with exit code 1")


def test_checkout_of_the_main_branch(pip, tmp_path, capsys):
    assert main([f"main={tmp_path}"]) == 2
    assert "does not contain mmf/__init__.py" in capsys.readouterr().err
    (tmp_path / "mmf").mkdir()
    (tmp_path / "mmf" / "__init__.py").touch()
    assert main([f"main={tmp_path}", "--without-fairseq"]) == 0
    assert pip.commands == ["pip install pandas requests", f"pip install --no-deps --editable {tmp_path}"]
    pip.commands.clear()
    assert main([f"main={tmp_path}", "--without-fairseq", "--dependencies-only"]) == 0
    assert pip.commands == ["pip install pandas requests"]


def test_compiler_headers_and_venv_are_checked_first(pip, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(install_mmf.shutil, "which", lambda name: None)
    monkeypatch.setattr(install_mmf.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(install_mmf, "find_spec", lambda name: None if name == "ensurepip" else name)
    version = f"python3.{sys.version_info.minor}"
    assert main([]) == 2
    compiler, headers = capsys.readouterr().err.splitlines()
    assert compiler.startswith("mmf_flava: g++: no C++ compiler was found. Install it: `sudo apt install g++` (Debian")
    assert (
        headers.startswith("Python.h: Python's headers were not found.")
        and f"`sudo apt install {version}-dev`" in headers
    )
    assert main(["--check"]) == 2
    assert f"`sudo apt install {version}-venv`" in capsys.readouterr().err.splitlines()[2]
    assert pip.commands == []
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(install_mmf.shutil, "which", lambda name: name)
    monkeypatch.setattr(install_mmf, "find_spec", lambda name: name)
    assert main(["--check"]) == 0 and pip.commands == []


def test_distutils_remains_that_of_setuptools():
    """torch compiles with setuptools, which refuses another distutils."""
    code = "import sys; from mmf_flava.install_mmf import main; "
    code += "from unittest.mock import patch; import mmf_flava.install_mmf as m\n"
    code += "with patch.multiple(m, check_build_tools=lambda **_: None, install_extras=lambda *_: None, "
    code += "install_rc10=lambda: None): main(['rc10', '--without-fairseq'])\n"
    code += "import distutils; print(distutils.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "setuptools" in done.stdout.splitlines()[-1]
