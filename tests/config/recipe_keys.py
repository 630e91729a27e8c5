"""The keys of a complete config whose type and range are known, for ``recipe_mutations``."""

import argparse
import contextlib
import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from mmf.common.registry import registry
from mmf.utils.configuration import Configuration
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.config.mmf_sections import ADDED, RANGES, TYPES
from mmf_flava.config.optimization import OPTIMIZER_PARAMS, SCHEDULER_PARAMS
from mmf_flava.config.ranges import KEY, Range
from mmf_flava.config.registered_models import MODELS

# sections with any keys, and keys whose other values select other code
FREE = {"checkpoint.pretrained_state_mapping", "trainer", "evaluation.reporter.params", "multitasking.params"}
UNTOUCHED = {
    "config", "config_version", "model", "dataset", "datasets", "run_type", "trainer", "training.trainer",
    "learning_rate", "training.device", "training.callbacks", "training.sharding", "training.wandb.enabled",
    "env.user_dir", "optimizer.type", "scheduler.type", "multitasking.type", "multitasking.params",
    "training.stdout_capture",
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A key of a recipe: its path, its type annotation and its range."""

    path: tuple[str, ...]
    hint: Any
    limits: Range | None

    @property
    def name(self) -> str:
        return ".".join(self.path)


def load(path: Path) -> Any:
    """Build the complete config of a recipe, as mmf_run does."""
    setup_imports()
    with contextlib.redirect_stdout(io.StringIO()):
        return Configuration(argparse.Namespace(config_override=None, opts=[f"config={path}"])).config


@functools.cache
def complete(recipe: Path) -> dict[str, Any]:
    return OmegaConf.to_container(load(recipe), resolve=True)


@functools.cache
def mmf_defaults() -> dict[str, Any]:
    from mmf_flava.compat import mmf_api

    return mmf_api.defaults()


@functools.cache
def keys_of(recipe: Path) -> tuple[list[Key], list[tuple[str, ...]]]:
    """Return the keys of a recipe with a known type, and the sections whose keys are all known."""
    config, keys, sections = complete(recipe), [], []
    for name, default in mmf_defaults().items():
        if name not in ("model_config", "dataset_config", "optimizer", "scheduler", "trainer") and name in config:
            _add_mmf((name,), config[name], default, keys, sections)
    for name, schema in ADDED.items():
        if isinstance(config.get(name), Mapping):
            _add_class((name,), config[name], schema, keys, sections)
    model = config["model"]
    _add_class(("model_config", model), config["model_config"][model], MODELS[model], keys, sections)
    for name in config["datasets"].split(","):
        section, builder = config["dataset_config"][name], registry.get_builder_class(name)
        if (schema := getattr(builder, "CONFIG", None)) is not None:
            _add_class(("dataset_config", name), section, schema, keys, sections)
        else:
            sections.append(("dataset_config", name))
        for processor, entry in (section.get("processors") or {}).items():
            schema = getattr(registry.get_processor_class((entry or {}).get("type", "")), "CONFIG", None)
            if schema is not None:
                path = ("dataset_config", name, "processors", processor, "params")
                _add_class(path, entry["params"], schema, keys, sections)
    sections += [("optimizer",), ("optimizer", "params"), ("scheduler",), ("scheduler", "params")]
    tables = {"optimizer": OPTIMIZER_PARAMS, "scheduler": SCHEDULER_PARAMS[config["scheduler"]["type"]]}
    for section, table in tables.items():
        keys += [Key((section, "params", key), *table[key]) for key in config[section]["params"]]
    sections = [path for path in sections if ".".join(path) not in FREE]
    return [key for key in keys if not is_untouched(key.name)], sections


def is_untouched(name: str) -> bool:
    return any(name == key or name.startswith(f"{key}.") for key in UNTOUCHED | FREE)


def _add_mmf(path: tuple[str, ...], value: Any, default: Any, keys: list, sections: list) -> None:
    name = ".".join(path)
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        own = {field.name for field in fields(ADDED[name])} if name in ADDED else set()
        if default and name != "training.wandb" and name not in FREE:
            sections.append(path)
        for key, item in value.items():
            if key in default and key not in own:
                _add_mmf((*path, key), item, default[key], keys, sections)
    elif name in TYPES:
        keys.append(Key(path, TYPES[name], RANGES.get(name)))
    elif path[0] == "env":
        keys.append(Key(path, str | None, None))
    elif default is not None and not isinstance(default, Mapping | list) and "${" not in str(default):
        keys.append(Key(path, type(default), RANGES.get(name)))


def _add_class(path: tuple[str, ...], section: Mapping, schema: Any, keys: list, sections: list) -> None:
    hints, limits = get_type_hints(schema), {field.name: field.metadata.get(KEY) for field in fields(schema)}
    if path not in sections:
        sections.append(path)
    for key, value in section.items():
        if key not in limits:
            continue
        nested = [kind for kind in (hints[key], *get_args(hints[key])) if is_dataclass(kind)]
        if nested and isinstance(value, Mapping):
            _add_class((*path, key), value, nested[0], keys, sections)
        elif hints[key] is not Any:
            keys.append(Key((*path, key), hints[key], limits[key]))
