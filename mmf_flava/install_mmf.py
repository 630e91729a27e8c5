"""Command line that installs MMF, fairseq and fairscale: ``python -m mmf_flava.install_mmf [rc10 | main=PATH]``.

MMF is not a dependency of the package. Its sdist lacks all YAML files, and its pins (torch 1.5, transformers 2.3) do
not support current versions of Python. Its cp38 wheel has the YAML files and is pure Python, except for one extension
that is not imported, so it is retagged as pure Python and installed without its pins.

Only modules of the standard library are imported at start-up, because ``make`` runs ``--check`` before it installs
the dependencies.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from argparse import ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import metadata
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmf_flava.command import ArgumentParser, command, file_path
from mmf_flava.errors import UserError

RC10 = "1.0.0rc10"
WHEEL = ("--only-binary=:all:", "--python-version=3.8", "--implementation=cp", "--abi=cp38")
PURE = ("--python-tag=py3", "--abi-tag=none", "--platform-tag=any")
FAIRSEQ = ("fairseq==0.12.2", "fairscale==0.4.13")
WITHOUT_FAIRSEQ = "training.sharding: fsdp and training.precision: fp16 are not available."
DESCRIPTION = """\
Installs MMF with the packages that it imports, and fairseq and fairscale for training.sharding: fsdp and
training.precision: fp16. What is already installed is not installed again."""
EPILOG = """\
  rc10       MMF 1.0.0rc10 from the package index (default)
  main=PATH  a checkout of MMF's main branch, as an editable installation"""


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and return its exit code."""
    options = build_parser().parse_args(arguments)
    check_build_tools(needs_compiler=not options.without_fairseq, needs_venv=options.check)
    if options.check:
        return
    # not find_spec of importlib.util: with it, setuptools gives this process another distutils
    if PathFinder.find_spec("pip") is None:
        raise UserError("pip is not installed in this environment. Run `python -m ensurepip`.")
    extras = ["mmf", *([] if options.version is None else ["mmf-main"])]
    install_extras(extras, options.constraint)
    if not options.dependencies_only:
        install_rc10() if options.version is None else install_checkout(options.version)
    left_out = options.without_fairseq or not install_fairseq(options.constraint)
    name = f"MMF {RC10}" if options.version is None else f"MMF in {options.version}"
    print(
        f"{name}: everything is installed"
        + (f", except for fairseq and fairscale. {WITHOUT_FAIRSEQ}" * left_out or ".")
    )


def build_parser() -> ArgumentParser:
    """Build the command-line parser."""
    parser = ArgumentParser(
        prog="python -m mmf_flava.install_mmf",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "version", nargs="?", type=checkout, default=None, metavar="VERSION", help="rc10 or main=PATH, see below"
    )
    parser.add_argument("--without-fairseq", action="store_true", help="leave out fairseq and fairscale")
    parser.add_argument("--constraint", type=file_path, metavar="FILE", help="pip's file of constraints")
    parser.add_argument("--dependencies-only", action="store_true", help="do not install MMF itself")
    parser.add_argument(
        "--check", action="store_true", help="only check that a compiler, Python's headers and venv are installed"
    )
    return parser


def checkout(version: str) -> Path | None:
    """Parse the argument VERSION: the root folder of a checkout for ``main=PATH``, None for ``rc10``."""
    if version == "rc10":
        return None
    name, _, path = version.partition("=")
    if name != "main" or not path:
        raise ArgumentTypeError(f"must be rc10 or main=PATH, got {version!r}")
    folder = Path(path).expanduser().resolve()
    if not (folder / "mmf" / "__init__.py").is_file():
        raise ArgumentTypeError(f"{path} does not contain mmf/__init__.py; it must be the root folder of a checkout")
    return folder


def check_build_tools(needs_compiler: bool, needs_venv: bool) -> None:
    """Check that the programs and headers which building fairseq needs are installed, before anything is downloaded.

    Raises:
        UserError: something is missing; the message has a line for each, with the commands that install it.
    """
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    missing = []
    if needs_compiler and not all(_has_compiler(variable) for variable in ("CC", "CXX")):
        missing.append(_missing("g++: no C++ compiler was found", "g++", "gcc-c++", "-c conda-forge cxx-compiler"))
    if needs_compiler and not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        missing.append(
            _missing("Python.h: Python's headers were not found", f"{python}-dev", f"{python}-devel", "python")
        )
    if needs_venv and (find_spec("venv") is None or find_spec("ensurepip") is None):
        missing.append(_missing("venv: this module of Python was not found", f"{python}-venv", python, "python"))
    if missing:
        raise UserError("\n".join(missing))


def _has_compiler(variable: str) -> bool:
    """Return whether the compiler that pip would use exists: that of an environment variable or of Python's build."""
    words = (os.environ.get(variable) or str(sysconfig.get_config_var(variable) or "")).split()
    return bool(words) and shutil.which(words[0]) is not None


def _missing(problem: str, apt: str, dnf: str, conda: str) -> str:
    return (
        f"{problem}. Install it: `sudo apt install {apt}` (Debian, Ubuntu), `sudo dnf install {dnf}` (Fedora) or "
        f"`conda install {conda}` (conda)."
    )


def install_extras(extras: Sequence[str], constraint: Path | None) -> None:
    """Install the packages of extras of mmf_flava that are not installed yet."""
    from packaging.requirements import Requirement  # not part of the standard library

    try:
        listed = [Requirement(line) for line in metadata.requires("mmf_flava") or ()]
    except metadata.PackageNotFoundError:
        raise UserError(
            "mmf_flava is not installed in this environment. Run `pip install /path/to/mmf_flava`."
        ) from None
    needed = [r for r in listed if r.marker and any(r.marker.evaluate({"extra": extra}) for extra in extras)]
    lines = sorted({f"{r.name}{r.specifier}" for r in needed if not _is_installed(r.name, r.specifier)})
    if lines:
        _announce(f"the packages of {' and '.join(extras)}: {', '.join(lines)}")
        _pip("install", *_constraint(constraint), *lines)


def install_rc10() -> None:
    """Install MMF 1.0.0rc10, unless it is installed with its YAML files."""
    if _version("mmf") == RC10:
        defaults = metadata.distribution("mmf").locate_file("mmf/configs/defaults.yaml")
        if Path(str(defaults)).is_file():
            return
    _announce(f"MMF {RC10} (0.4 MB)")
    with tempfile.TemporaryDirectory() as folder:
        _pip("download", "--no-deps", *WHEEL, "--platform=manylinux1_x86_64", f"--dest={folder}", f"mmf=={RC10}")
        (wheel,) = Path(folder).glob("mmf-*.whl")
        _run(sys.executable, "-m", "wheel", "tags", "--remove", *PURE, str(wheel))
        (wheel,) = Path(folder).glob("mmf-*.whl")
        _pip("install", "--no-deps", "--force-reinstall", str(wheel))


def install_checkout(folder: Path) -> None:
    """Install a checkout of MMF's main branch, unless it is installed already."""
    source = None if _version("mmf") == "" else metadata.distribution("mmf").read_text("direct_url.json")
    if source is None or json.loads(source).get("url") != folder.as_uri():
        _announce(f"MMF in {folder}")
        _pip("install", "--no-deps", "--editable", str(folder))


def install_fairseq(constraint: Path | None) -> bool:
    """Install fairseq and fairscale. Return False if pip fails to build them; the rest of MMF works without them."""
    if all(_version(name) == version for name, version in (package.split("==") for package in FAIRSEQ)):
        return True
    try:
        install_extras(["fairseq"], constraint)
        _announce(f"{' and '.join(FAIRSEQ)} (10 MB, built from source, a few minutes)")
        _pip("install", "--no-deps", *FAIRSEQ)
    except UserError as error:
        print(f"fairseq and fairscale are left out: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _is_installed(name: str, versions: Any) -> bool:
    return bool(installed := _version(name)) and versions.contains(installed, prereleases=True)


def _version(name: str) -> str:
    """Return the installed version of a package; an empty string if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _constraint(file: Path | None) -> list[str]:
    return [] if file is None else ["--constraint", str(file)]


def _announce(step: str) -> None:
    print(f"Installing {step}", flush=True)


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", *arguments)


def _run(*words: str) -> None:
    """Run a command. Raise UserError if it fails."""
    code = subprocess.run(words).returncode
    if code:
        raise UserError(
            f"`{' '.join(words[2:4])}` failed with exit code {code}, for the reason above. Correct it, and run "
            "`python -m mmf_flava.install_mmf` again."
        )


if __name__ == "__main__":
    sys.exit(main())
