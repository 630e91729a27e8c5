"""Loading of recipes: search for the file, merging of its includes, and errors that suggest similar file names.

In a checkout, the folder ``projects`` with the recipes is next to the package ``mmf_flava``; in an installed wheel, it
is inside the package.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmf_flava.config.close_matches import close_matches, did_you_mean
from mmf_flava.config.yaml_reader import read_yaml
from mmf_flava.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
SUFFIXES = (".yaml", ".yml")
# model -> name of the recipe with its defaults, see recipe_path
MODEL_DEFAULTS = {
    "flava": "defaults",
    "flava_classification": "finetune/defaults",
    "flava_dino": "dino_defaults",
}


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


def find_recipe(path: str, places: list[str]) -> str | None:
    """Return the absolute path of a recipe given by ``config=PATH`` or an include, or None if it was not found.

    Args:
        path: absolute, with ``~``, or relative to one of ``places`` or to the root of mmf_flava's recipes.
        places: folders to search; the first folder that contains the path is used.
    """
    expanded = os.path.expanduser(path)
    candidates = [os.path.join(place, expanded) for place in places]
    found = next(filter(os.path.exists, candidates), None) or locate_recipe(expanded)
    return None if found is None else os.path.abspath(found)


def open_recipe(path: str, places: list[str]) -> tuple[str, dict[Any, Any], list[str]]:
    """Return the absolute path of a recipe, its content without ``includes``, and its includes.

    Raises:
        UserError: the file was not found (the message suggests similar names), it cannot be read, or its ``includes``
            are not a list.
    """
    file = find_recipe(path, places)
    if file is None:
        raise UserError(_not_found(path, places))
    content = read_yaml(file)
    includes = content.pop("includes", [])
    if not isinstance(includes, list) or not all(isinstance(include, str) for include in includes):
        raise UserError(f"{path}: includes must be a list of paths, as in `includes: [base.yaml]`, got {includes!r}.")
    return file, content, includes


def load_recipe(path: str, places: list[str], roots: list[str], chain: tuple[str, ...] = ()) -> Any:
    """Return a recipe with its includes merged, as an OmegaConf config. Later includes override earlier ones.

    Args:
        path: see ``find_recipe``.
        places: folders to search for ``path``.
        roots: folders to search for includes, after the folder of the recipe that includes them.
        chain: files of the recipes that include this one, for the detection of cycles.

    Raises:
        UserError: see ``open_recipe``; or a recipe includes itself, or has a value that OmegaConf does not support.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from mmf_flava.config.merging import clear_replaced

    file, content, includes = open_recipe(path, places)
    if file in chain:
        raise UserError(f"{file} includes itself ({' includes '.join([*chain, file])}). Remove one of the includes.")
    folders = [os.path.dirname(file), *roots]
    configs = [load_recipe(include, folders, roots, (*chain, file)) for include in includes]
    try:
        merged: Any = OmegaConf.create()
        for config in [*configs, OmegaConf.create(content)]:
            clear_replaced(merged, config)
            merged = OmegaConf.merge(merged, config)
        return merged
    except OmegaConfBaseException as error:
        key, value, reason = next(_invalid_values(content, ""), ("", content, error))
        message = " ".join(str(reason).split("\n    ")[0].split())
        raise UserError(f"{file}: {key or 'the config'}: {_invalid(value)} ({message}). Correct it.") from None


def _invalid_values(node: Any, key: str) -> Iterator[tuple[str, Any, Exception]]:
    """Yield the key, the value and the error of each value, and of each section with a key, that OmegaConf refuses."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    children: list[tuple[str, Any]] = []
    if isinstance(node, dict):
        children = [(f"{key}.{name}" if key else str(name), child) for name, child in node.items()]
    elif isinstance(node, list):
        children = [(f"{key}[{number}]", child) for number, child in enumerate(node)]
    for name, child in children:
        yield from _invalid_values(child, name)
    try:
        OmegaConf.create(dict.fromkeys(node, 0) if isinstance(node, dict) else [] if children else [node])
    except OmegaConfBaseException as error:
        yield key, node, error


def _invalid(value: Any) -> str:
    if isinstance(value, str):
        return f"{value!r} is not a valid interpolation"
    return "a key is not valid" if isinstance(value, dict) else f"{value!r} is not a valid value"


def _not_found(path: str, places: list[str]) -> str:
    searched = "" if os.path.isabs(path) else f" in {' or '.join(places)}, nor among the recipes of mmf_flava"
    matches = list(dict.fromkeys(_close_files(os.path.expanduser(path), places)))[:3]
    hint = did_you_mean(matches)[0].upper() + did_you_mean(matches)[1:] if matches else "Correct the path."
    return f"Config file {path} was not found{searched}. {hint}"


def _close_files(path: str, places: list[str]) -> Iterator[str]:
    """Yield paths of YAML files with a similar name, in the folder of ``path`` and among mmf_flava's recipes."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0] if name.endswith(SUFFIXES) else name
    for place in dict.fromkeys(os.path.join(place, folder) for place in [*places, str(_PACKAGE.parent), str(_PACKAGE)]):
        if os.path.isdir(place):
            names = {os.path.splitext(entry)[0]: entry for entry in os.listdir(place) if entry.endswith(SUFFIXES)}
            yield from (os.path.join(folder, names[match]) for match in close_matches(stem, names, 0.7))
    shipped: dict[str, str] = {}
    for root in (_PACKAGE.parent, _PACKAGE):
        files = (root / "projects" / "flava" / "configs").rglob("*.yaml")
        for file in sorted(files, key=lambda file: (len(file.parts), file)):
            shipped.setdefault(file.stem, str(file.relative_to(root)))
    yield from (shipped[match] for match in close_matches(stem, shipped, 0.7))
