"""The values of a recipe in a form that can be stored and compared, without secrets.

A value is stored as it is. A text that may be a secret, because it comes from an interpolation such as
``${oc.env:TOKEN}`` or is an address with credentials, is stored as {"written": the public text, "sha256": the first
digits of its hash}. Other interpolated values are stored as {"written": the interpolation, "value": the value}.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mmf_flava.errors import hide_address

WRITTEN, VALUE, SHA256 = "written", "value", "sha256"
DIGITS = 8  # of a hash: enough to notice another value, too few to find a password
MAX_SHOWN = 80  # characters of a value in a message


def store_recipe(resolved: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe in the form that a checkpoint stores.

    Sections of models and datasets that the recipe does not select are left out.

    Args:
        resolved: the complete recipe as nested dicts and lists, with its interpolations resolved.
        written: the same recipe with its interpolations as written.
    """
    selected = {"model_config": [str(resolved["model"])], "dataset_config": dataset_names(resolved)}
    recipe: dict[str, Any] = {}
    for key, section in resolved.items():
        if key in selected:
            section = {name: section[name] for name in selected[key] if name in (section or {})}
        # registered names, by which other keys are found
        plain = key in ("model", "dataset", "datasets")
        recipe[key] = _store(section, None if plain else written.get(key))
    return recipe


def dataset_names(recipe: Mapping[str, Any]) -> list[str]:
    """Return the names of the datasets of a recipe, in order."""
    names = recipe["datasets"]
    return [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]


def is_section(value: Any) -> bool:
    """Return whether a stored value is a section, not the value of a key."""
    return isinstance(value, Mapping) and WRITTEN not in value


def are_equal(one: Any, other: Any) -> bool:
    """Return whether two stored values are equal. A secret is equal to a text with the same hash."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    if is_section(one) and is_section(other):
        return one.keys() == other.keys() and all(are_equal(one[key], other[key]) for key in one)
    one, other = (
        value[VALUE] if isinstance(value, Mapping) and WRITTEN in value and VALUE in value else value
        for value in (one, other)
    )
    if _is_secret(one) or _is_secret(other):
        return _sha256(one) == _sha256(other)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def show(value: Any) -> str:
    """Return the text of a stored value for a message."""
    if _is_secret(value):
        return f"{value[WRITTEN]} (hash {value[SHA256]})"
    if isinstance(value, Mapping) and WRITTEN in value:
        value = value[VALUE]
    text = value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _store(value: Any, written: Any) -> Any:
    interpolated = isinstance(written, str) and "${" in written
    if isinstance(value, Mapping):
        parts = written if isinstance(written, Mapping) else {}
        return {str(key): _store(item, written if interpolated else parts.get(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        each = written if isinstance(written, list) and len(written) == len(value) else [None] * len(value)
        items = [_store(item, written if interpolated else part) for item, part in zip(value, each, strict=True)]
        return by_type(items)
    if value is not None and not isinstance(value, bool | int | float | str):
        value = str(value)
    if isinstance(value, str) and (interpolated or hide_address(value) != value):
        return {WRITTEN: hide_address(written if interpolated else value), SHA256: _digest(value)}
    return {WRITTEN: hide_address(written), VALUE: value} if interpolated else value


def by_type(items: list[Any]) -> Any:
    """Convert a list of sections of different types, such as losses, to a section: its order does not matter."""
    types = [item.get("type") if is_section(item) else None for item in items]
    if not items or len({*map(str, types)}) < len(types) or not all(isinstance(name, str) for name in types):
        return items
    return dict(zip(types, items, strict=True))


def _is_secret(value: Any) -> bool:
    return isinstance(value, Mapping) and WRITTEN in value and SHA256 in value


def _sha256(value: Any) -> str | None:
    if isinstance(value, str):
        return _digest(value)
    return str(value[SHA256]) if _is_secret(value) else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]
