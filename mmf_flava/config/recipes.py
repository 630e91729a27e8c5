"""Paths of the recipes. ``projects/flava/configs`` is next to the package in a checkout, and inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def locate_recipe(path: str) -> str | None:
    """Return the absolute path of a recipe such as ``projects/flava/configs/demo.yaml``, or None if not found."""
    for root in (_PACKAGE.parent, _PACKAGE):
        candidate = root / path
        if path.startswith("projects/") and candidate.is_file():
            return str(candidate)
    return None


def recipe_path(name: str) -> str:
    """Return the absolute path of ``projects/flava/configs/<name>.yaml``.

    Raises:
        FileNotFoundError: the installed package does not contain the recipe.
    """
    path = locate_recipe(f"projects/flava/configs/{name}.yaml")
    if path is None:
        raise FileNotFoundError(f"mmf_flava has no recipe projects/flava/configs/{name}.yaml. Reinstall mmf_flava.")
    return path
