"""The packages that ``pip install`` does not install with mmf_flava, because their pins do not support current Python.

``python -m mmf_flava.install_mmf`` installs them.
"""

from importlib.util import find_spec

from mmf_flava.errors import UserError

NAMES = {"mmf": "MMF", "mmf_cli": "MMF", "fairseq": "fairseq", "fairscale": "fairscale"}
REMEDY = "Run `python -m mmf_flava.install_mmf`."


def check_installed(what: str, *packages: str) -> None:
    """Raise UserError if one of ``packages``, which ``what`` needs, is not installed."""
    if missing := [NAMES[package] for package in packages if find_spec(package) is None]:
        raise UserError(_message(what, missing))


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """Return the message of a command that failed to import one of these packages; None for other packages."""
    package = (error.name or "").partition(".")[0]
    return _message("This command", [NAMES[package]]) if package in NAMES and find_spec(package) is None else None


def _message(what: str, missing: list[str]) -> str:
    return f"{what} needs {' and '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed. {REMEDY}"
