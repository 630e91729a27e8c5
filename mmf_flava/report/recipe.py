"""The recipe of a run, config.yaml, as dotted keys: what of it differs between runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONFIG = "config.yaml"
GIVEN = "given"  # of a section that other runs lack
PLACES = ("env.",)  # folders of the machine: they differ between any two runs, and say nothing of the training


def read_recipe(folder: Path) -> dict[str, str]:
    """Dotted key -> value in words; empty where the file is missing or is no recipe.

    Left out are sections of datasets that the run does not use, and places of the machine.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException):
        return {}
    flat: dict[str, str] = {}
    if isinstance(content, dict) and content:
        _flatten("", content, flat)
    used = {name.strip() for name in flat.get("datasets", "").split(",")}
    return {key: value for key, value in flat.items() if not key.startswith(PLACES) and _of(key, used)}


def differences(recipes: Sequence[dict[str, str]]) -> dict[str, list[str | None]]:
    """The keys in which the recipes differ, with the value of each; None where one has no such key.

    A section that some of them lack as a whole, as of a dataset that they do not use, is one entry: where the others
    agree about it, ``GIVEN``. A run without a recipe has no say in what differs.
    """
    known = [recipe for recipe in recipes if recipe]
    keys = list(dict.fromkeys(key for recipe in known for key in recipe))
    differing = [key for key in keys if len({recipe.get(key) for recipe in known}) > 1]
    found: dict[str, list[str | None]] = {}
    for key in differing:
        values = [recipe.get(key) for recipe in recipes]
        lacking = [recipe for recipe in known if key not in recipe]
        section = _lacked(key, lacking)
        if section == key or len(set(values) - {None}) > 1:
            found[key] = values
        else:
            found[section] = [None if value is None else GIVEN for value in values]
    return found


def _of(key: str, datasets: set[str]) -> bool:
    """Whether a key says anything of a run of these datasets."""
    section, _, rest = key.partition(".")
    return section != "dataset_config" or rest.split(".")[0] in datasets


def _lacked(key: str, recipes: Sequence[dict[str, str]]) -> str:
    """The widest section around ``key`` of which none of the recipes that lack the key has anything."""
    words = key.split(".") if recipes else []
    for depth in range(1, len(words)):
        section = ".".join(words[:depth])
        if not any(other.startswith((f"{section}.", f"{section}[")) for recipe in recipes for other in recipe):
            return section
    return key


def _flatten(prefix: str, value: Any, flat: dict[str, str]) -> None:
    """Entries of a list that name their type, as losses do, are told apart by it and not by their place."""
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), entry, flat)
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        for index, entry in enumerate(value):
            name = entry.get("type", index) if isinstance(entry, dict) else index
            _flatten(f"{prefix}[{name}]", entry, flat)
    else:
        flat[prefix] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
