"""Defaults and checks of the config section ``dataset_config``, based on config classes.

Each dataset builder and each processor of mmf_flava has a config class as attribute ``CONFIG``. MMF's own builders and
processors have no config class.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmf_flava.config.close_matches import close_matches
from mmf_flava.config.dataset_base import EntriesConfig
from mmf_flava.config.datasets import DATASETS
from mmf_flava.config.processor_base import ModelSizes
from mmf_flava.config.processors import PROCESSORS
from mmf_flava.config.schema import parse_section, suggestion, to_dict
from mmf_flava.errors import UserError

# placeholder for a default that is taken from the model's config after the command line is merged
FROM_MODEL = "from the model"

Section = dict[str, Any]


def fill_defaults(config: Any, names: Sequence[str], replaced: Any, recipe: Any, options: Mapping[str, str]) -> None:
    """Add defaults for the keys of the run's datasets and their processors that ``config`` does not set.

    If the recipe or the command line replaces the type of a processor, the default params of the old type are removed,
    unless both types are MMF's or a user's.

    Args:
        config: the default YAML files merged with the recipe; changed in place.
        names: names of the run's datasets.
        replaced: the merged default YAML files of the datasets.
        recipe: the recipe.
        options: the options of the command line (key -> value), which are merged into ``config`` later.
    """
    sections = _plain(config, "dataset_config")
    defaults, given = _plain(replaced, "dataset_config"), _plain(recipe, "dataset_config")
    for name in names:
        for key, entry in _processors(sections, name).items():
            kind = options.get(f"dataset_config.{name}.processors.{key}.type", entry.get("type"))
            default = _processors(defaults, name).get(key, {})
            old = default.get("type", kind)
            is_replaced = kind != old and any(_config_class("processor", name) for name in (kind, old))
            if is_replaced and isinstance(entry.get("params"), dict):
                kept, removed = _params(_processors(given, name).get(key, {})), _params(default)
                entry["params"] = {k: v for k, v in _params(entry).items() if k in kept or k not in removed}
            _fill_processor(entry, kind)
        _fill_dataset(sections, name)
    if sections:
        config.dataset_config = sections


def set_model_defaults(config: Any) -> None:
    """Set defaults that depend on the model, and add missing keys to sections that the command line has replaced."""
    sections, sizes = _plain(config, "dataset_config"), read_model_sizes(config)
    for name in dataset_names(config):
        for entry in _processors(sections, name).values():
            schema = _config_class("processor", entry.get("type"))
            if schema is None or not isinstance(entry.get("params", {}), dict):
                continue
            _fill_processor(entry, entry["type"])
            for key, value in schema.model_defaults(sizes).items():
                if entry["params"][key] == FROM_MODEL:
                    entry["params"][key] = value
        _fill_dataset(sections, name)
    if sections:
        config.dataset_config = sections


def check_datasets(config: Any, known: Collection[str]) -> None:
    """Check the sections of the run's datasets in ``dataset_config``.

    The types of all processors, and all keys of mmf_flava's datasets and processors are checked.

    Args:
        known: names of all processors.

    Raises:
        UserError: a key or type is unknown, or a value is invalid or does not fit another key or the model.
    """
    sections, names, sizes = config.get("dataset_config") or {}, dataset_names(config), read_model_sizes(config)
    if not isinstance(sections, Mapping):
        raise UserError(f"dataset_config: must be a section (a mapping of keys to values), got {sections!r}.")
    for name in names:
        if name in sections:
            _check_dataset(name, _resolve(sections, name), sizes, known)


def _check_dataset(name: str, section: Any, sizes: ModelSizes, known: Collection[str]) -> None:
    where = f"dataset_config.{name}"
    if (schema := _config_class("builder", name)) is not None:
        parse_section(schema, section, where).check_model(sizes, where)
    elif isinstance(section, Mapping) and "max_bad_share" in section:
        parse_section(EntriesConfig, {"max_bad_share": section["max_bad_share"]}, where)
    processors = section.get("processors") if isinstance(section, Mapping) else None
    for key, entry in processors.items() if isinstance(processors, Mapping) else ():
        if not isinstance(entry, Mapping) or not entry:
            continue
        kind, key = entry.get("type"), f"{where}.processors.{key}"
        if not isinstance(kind, str) or kind not in known:
            ours = [name for name in known if _config_class("processor", name)]
            hint = suggestion(str(kind), known if close_matches(str(kind), known) else ours)
            raise UserError(f"{key}.type: {kind!r} is not a registered processor.{hint}")
        if (schema := _config_class("processor", kind)) is not None:
            params = entry.get("params", {})
            parse_section(schema, params, f"{key}.params").check_model(sizes, f"{key}.params")


def dataset_names(config: Any) -> list[str]:
    """Return the names of the datasets of a run."""
    return [name.strip() for name in str(config.get("datasets") or "").split(",")]


def read_model_sizes(config: Any) -> ModelSizes:
    """Return the sizes of the run's model that its processors must match, such as the image size."""
    name = config.get("model")
    try:
        section = OmegaConf.select(config, f"model_config.{name}")
        section = OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else {}
    except OmegaConfBaseException:  # reported by the check of the model's section
        section = {}
    return ModelSizes.read(section, f"model_config.{name}")


def _config_class(kind: str, name: Any) -> Any:
    """Return the config class of a dataset (kind ``builder``) or processor, or None if it has none."""
    if not isinstance(name, str):
        return None
    module = sys.modules.get("mmf.common.registry")
    if module is None:  # the check of a config before MMF is imported
        return DATASETS.get(name) if kind == "builder" else PROCESSORS.get(name)
    return getattr(module.registry.mapping[f"{kind}_name_mapping"].get(name), "CONFIG", None)


def _plain(config: Any, key: str) -> Section:
    """Return a section as a dict with unresolved interpolations, or an empty dict if the value is not a section."""
    sections: Any = OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else config
    values = sections.get(key)
    return values if isinstance(values, dict) else {}


def _processors(sections: Section, name: str) -> dict[str, Section]:
    section = sections.get(name)
    processors = section.get("processors") if isinstance(section, dict) else None
    entries = processors.items() if isinstance(processors, dict) else ()
    return {key: entry for key, entry in entries if isinstance(entry, dict)}


def _params(entry: Section) -> Section:
    params = entry.get("params")
    return params if isinstance(params, dict) else {}


def _fill_dataset(sections: Section, name: str) -> None:
    schema = _config_class("builder", name)
    if schema is not None and isinstance(sections.get(name), dict):
        sections[name] = _merge(_defaults(schema), sections[name])


def _fill_processor(entry: Section, kind: Any) -> None:
    schema = _config_class("processor", kind)
    if schema is not None and isinstance(entry.get("params", {}), dict):
        from_model = dict.fromkeys(schema.model_defaults(ModelSizes("")), FROM_MODEL)
        entry["params"] = _merge({**_defaults(schema), **from_model}, entry.get("params", {}))


def _defaults(schema: Any) -> Section:
    return OmegaConf.to_container(OmegaConf.structured(schema))  # type: ignore[return-value]


def _merge(defaults: Section, given: Section) -> Section:
    """Merge a section into its defaults. Mandatory keys, which have no default, are not added."""
    merged = {key: value for key, value in defaults.items() if value != MISSING}
    for key, value in given.items():
        default = merged.get(key)
        merged[key] = _merge(default, value) if isinstance(default, dict) and isinstance(value, dict) else value
    return merged


def _resolve(sections: Any, name: str) -> Any:
    """Return a section with its interpolations resolved."""
    try:
        section = sections[name]
        return to_dict(section) if isinstance(section, Mapping) else section
    except OmegaConfBaseException as error:
        raise UserError(f"dataset_config.{name}: {str(error).splitlines()[0]}. Correct the interpolation.") from None
