"""Reading of a run's recipe (config.yaml) as dotted keys, and comparison of the recipes of several runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf_flava.config.yaml_reader import read_yaml
from mmf_flava.errors import UserError, hide_secrets

CONFIG = "config.yaml"
PRESENT = "present"  # shown for a section that other runs do not have
IGNORED = ("env.",)  # local paths, which differ between all runs


def read_recipe(folder: Path) -> dict[str, str]:
    """Return dotted key -> value as text; empty if the file is missing or invalid.

    Interpolations are not resolved, and URLs contain no credentials. Local paths and the sections of datasets that the
    run does not use are omitted.
    """
    try:
        content = read_yaml(str(folder / CONFIG))
    except (OSError, UserError):
        return {}
    flat: dict[str, str] = {}
    if content:
        _flatten("", content, flat)
    used = {name.strip() for name in flat.get("datasets", "").split(",")}
    return {key: value for key, value in flat.items() if not key.startswith(IGNORED) and _is_used(key, used)}


def diff_recipes(recipes: Sequence[dict[str, str]]) -> dict[str, list[str | None]]:
    """Return the keys that differ, with the value of each recipe; None if a recipe does not have the key.

    A section that is missing in some recipes, e.g. an unused dataset's section, and equal in all others is returned as
    one key with the value ``PRESENT``. Empty recipes are ignored.
    """
    non_empty = [recipe for recipe in recipes if recipe]
    keys = list(dict.fromkeys(key for recipe in non_empty for key in recipe))
    differing = [key for key in keys if len({recipe.get(key) for recipe in non_empty}) > 1]
    differences: dict[str, list[str | None]] = {}
    for key in differing:
        values = [recipe.get(key) for recipe in recipes]
        without_key = [recipe for recipe in non_empty if key not in recipe]
        section = _missing_section(key, without_key)
        if section == key or len(set(values) - {None}) > 1:
            differences[key] = values
        else:
            differences[section] = [None if value is None else PRESENT for value in values]
    return differences


def _is_used(key: str, datasets: set[str]) -> bool:
    """Return whether a recipe key is used; keys of datasets that are not in ``datasets`` are unused."""
    section, _, rest = key.partition(".")
    return section != "dataset_config" or rest.split(".")[0] in datasets


def _missing_section(key: str, recipes: Sequence[dict[str, str]]) -> str:
    """Return the outermost section of ``key`` that is missing in all ``recipes``; ``key`` itself if there is none."""
    names = key.split(".") if recipes else []
    for depth in range(1, len(names)):
        section = ".".join(names[:depth])
        if not any(other.startswith((f"{section}.", f"{section}[")) for recipe in recipes for other in recipe):
            return section
    return key


def _flatten(prefix: str, value: Any, flat: dict[str, str]) -> None:
    """Add the dotted keys of nested values to ``flat``; entries of lists are named by their ``type`` or index."""
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), entry, flat)
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        for index, entry in enumerate(value):
            name = entry.get("type", index) if isinstance(entry, dict) else index
            _flatten(f"{prefix}[{name}]", entry, flat)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        flat[prefix] = hide_secrets(text)
