"""Defaults of the keys of mmf_flava that a recipe does not set, so that recipes can be compared key by key."""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from mmf_flava.config.datasets import DATASETS
from mmf_flava.config.mmf_sections import ADDED
from mmf_flava.config.processor_base import ModelSizes
from mmf_flava.config.processors import PROCESSORS
from mmf_flava.config.registered_models import MODELS
from mmf_flava.config.written_values import by_type, is_section


def fill_defaults(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored values of a recipe (see ``written_values``), complete with the defaults of mmf_flava's keys."""
    filled, model = dict(recipe), str(recipe["model"])
    for name, schema in ADDED.items():
        filled[name] = _fill(schema, recipe.get(name))
    models = recipe.get("model_config") or {}
    if model in MODELS:
        filled["model_config"] = {**models, model: _fill(MODELS[model], models.get(model))}
    sizes = ModelSizes.read((filled.get("model_config") or {}).get(model), f"model_config.{model}")
    datasets = recipe.get("dataset_config") or {}
    filled["dataset_config"] = {name: _fill_dataset(name, section, sizes) for name, section in datasets.items()}
    return filled


def add_trainer_keys(config: Any) -> None:
    """Add the keys of the trainer ``flava`` that a config lacks, with their defaults, so that options can set them."""
    for name, schema in ADDED.items():
        _add_missing(config.setdefault(name, {}), schema)


def _add_missing(section: Any, schema: Any) -> None:
    """Add the missing keys to a section, and to its sections, also to those that are null by default."""
    hints = get_type_hints(schema)
    for field in fields(schema):
        if field.name not in section:
            value = _value(field)
            section[field.name] = asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
        elif (nested := _section_class(hints[field.name])) is not None and OmegaConf.is_dict(section[field.name]):
            _add_missing(section[field.name], nested)


def _fill_dataset(name: str, section: Any, sizes: ModelSizes) -> Any:
    if name in DATASETS:
        section = _fill(DATASETS[name], section)
    if not is_section(section) or not is_section(section.get("processors")):
        return section
    processors = {key: _fill_processor(entry, sizes) for key, entry in section["processors"].items()}
    return {**section, "processors": processors}


def _fill_processor(entry: Any, sizes: ModelSizes) -> Any:
    schema = PROCESSORS.get(str(entry.get("type"))) if is_section(entry) else None
    if schema is None:
        return entry
    return {**entry, "params": _fill(schema, {**schema.model_defaults(sizes), **(entry.get("params") or {})})}


def _fill(schema: Any, section: Any) -> Any:
    """Return a section complete with the defaults of its config class."""
    if section is not None and not is_section(section):
        return section
    filled, hints = dict(section or {}), get_type_hints(schema)
    for field in fields(schema):
        hint = hints[field.name]
        value = filled[field.name] if field.name in filled else _default(field)
        nested = _section_class(hint)
        if nested is not None and is_section(value):
            # a list of losses is stored as a section of its types
            is_list = get_origin(hint) is list
            value = {name: _fill(nested, item) for name, item in value.items()} if is_list else _fill(nested, value)
        filled[field.name] = value
    return filled


def _section_class(hint: Any) -> Any:
    """Return the config class of a section, of a section that may be null, or of a list of sections; else None."""
    return next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)


def _value(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _default(field: Any) -> Any:
    value = _value(field)
    if isinstance(value, list):
        return by_type([asdict(item) if is_dataclass(item) else item for item in value])  # type: ignore[arg-type]
    return asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
