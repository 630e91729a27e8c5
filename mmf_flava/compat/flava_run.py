"""Detection of FLAVA's runs, which use a model, trainer or dataset of mmf_flava.

The patches in ``behaviour`` are active only in these runs.

``is_flava_run`` decides by the names of model, trainer and datasets. It is called once for each MMF configuration,
before the configuration is merged. Before MMF builds a configuration, ``process_is_flava`` applies the same function to
the command line.
"""

import functools
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from mmf_flava.compat import command_line
from mmf_flava.errors import UserError

# the names that mmf_flava registers with MMF
MODELS = frozenset({"flava", "flava_classification", "flava_dino"})
TRAINERS = frozenset({"flava"})
REMOVED_TRAINERS = frozenset({"flava_finetune"})  # in earlier versions; flava replaces it
DATASETS = frozenset(
    {
        *("ccnews_bookcorpus", "glue", "image_classification", "image_text_classification", "imagenet", "karpathy"),
        "pmd",
    }
)

_current: bool | None = None


def is_flava_run(model: str | None, trainer: str | None, datasets: Iterable[str]) -> bool:
    """Return whether the model, the trainer or any of the datasets is registered by mmf_flava."""
    return model in MODELS or trainer in TRAINERS | REMOVED_TRAINERS or not DATASETS.isdisjoint(datasets)


def is_current() -> bool:
    """Return whether the latest MMF configuration belongs to a FLAVA run.

    If MMF has not built a configuration yet, ``process_is_flava`` decides.
    """
    return process_is_flava() if _current is None else _current


def set_current(decision: bool) -> None:
    """Set the result of ``is_current``."""
    global _current
    _current = decision


@functools.cache
def process_is_flava() -> bool:
    """Return whether this process runs FLAVA, according to its options, its main module or its imports."""
    if command_line.in_script():
        return options_are_flava(command_line.options())
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is not None and main.name.startswith("mmf_flava."):
        return True
    # a program that imports mmf_flava before MMF; compat itself imports only these modules and subpackages
    imported = {name.split(".")[1] for name in list(sys.modules) if name.startswith("mmf_flava.")}
    own = {"command", "compat", "config", "errors", "packages"}
    return not imported <= own and "mmf_flava.plugin" not in sys.modules


def options_are_flava(options: Sequence[str]) -> bool:
    """Return whether the options of MMF's command line and the recipe that ``config=`` sets start a FLAVA run."""
    try:
        given = dict(command_line.split_options(options))
    except UserError:
        given = dict(word.partition("=")[::2] for word in options)
    recipe: dict[str, Any] | None = {}
    if "config" in given:
        recipe = _read_names(given["config"], [os.getcwd(), os.path.dirname(_mmf_root()), _mmf_root()])
        # MMF requires model= on the command line; only mmf_flava runs a recipe without it
        if recipe is None and "model" not in given:
            return True
    elif given and "model" not in given:
        return True  # MMF cannot run without a model; mmf_flava reports what is missing
    names = {**(recipe or {}), **_names(given)}
    trainer = given.get("training.trainer", names.get("trainer"))
    return is_flava_run(names.get("model"), trainer, names.get("datasets", ()))


def _names(section: dict[str, Any]) -> dict[str, Any]:
    """Return the keys ``model`` and ``datasets`` that a recipe or the command line sets."""
    names: dict[str, Any] = {"model": str(section["model"])} if section.get("model") else {}
    if datasets := section.get("datasets") or section.get("dataset"):
        words = datasets if isinstance(datasets, list) else str(datasets).split(",")
        names["datasets"] = [str(word).strip() for word in words]
    return names


def _read_names(path: str, places: list[str], chain: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """Return the names of the model, the datasets and the trainer that a recipe and its includes set.

    None is returned if the file cannot be read. For the arguments, see ``config.recipes.load_recipe``.
    """
    from mmf_flava.config.recipes import open_recipe

    try:
        file, content, includes = open_recipe(path, places)
    except (OSError, UserError):
        return None
    names: dict[str, Any] = {}
    for include in includes if file not in chain else ():
        names.update(_read_names(include, [os.path.dirname(file), _mmf_root()], (*chain, file)) or {})
    names.update(_names(content))
    if isinstance(training := content.get("training"), dict) and "trainer" in training:
        names["trainer"] = str(training["trainer"])
    return names


@functools.cache
def _mmf_root() -> str:
    spec = importlib.util.find_spec("mmf")
    return "" if spec is None or spec.origin is None else os.path.dirname(spec.origin)
