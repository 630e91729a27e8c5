"""Where the recipes (``projects/flava/configs``) lie: in a checkout beside the package, in a wheel inside it."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def locate(path: str) -> str | None:
    """Absolute path of a recipe such as ``projects/flava/configs/demo.yaml``, or None where there is no such file."""
    for root in (_PACKAGE.parent, _PACKAGE):
        candidate = root / path
        if path.startswith("projects/") and candidate.is_file():
            return str(candidate)
    return None


def recipe(name: str) -> str:
    """Absolute path of ``projects/flava/configs/<name>.yaml``; it belongs to the package, so it must be there."""
    path = locate(f"projects/flava/configs/{name}.yaml")
    if path is None:
        raise FileNotFoundError(f"mmf_flava is installed without its recipe projects/flava/configs/{name}.yaml")
    return path
