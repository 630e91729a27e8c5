"""The datasets of a recipe, for command lines that look at them without training."""

import argparse
from collections.abc import Sequence
from typing import Any

from mmf.common.registry import registry
from mmf.utils.configuration import Configuration
from mmf.utils.env import setup_imports

from mmf_flava.data.stream import StreamDataset
from mmf_flava.errors import UserError


def read_recipe(path: str, overrides: Sequence[str] = ()) -> Any:
    """The whole configuration as ``mmf_run config=PATH key=value ...`` sees it; it becomes MMF's current one."""
    setup_imports()
    arguments = argparse.Namespace(config_override=None, opts=[f"config={path}", *overrides])
    return Configuration(arguments).get_config()


def dataset_names(config: Any) -> list[str]:
    """The datasets that the recipe trains on; others in its ``dataset_config`` lack their defaults."""
    return config.datasets.split(",")


def dataset_section(config: Any, name: str) -> Any:
    """``dataset_config.NAME``; UserError when the recipe does not train on this dataset."""
    if name not in dataset_names(config) or name not in config.dataset_config:
        raise UserError(f"The recipe has no dataset '{name}'; it has {', '.join(dataset_names(config))}.")
    return config.dataset_config[name]


def open_dataset(config: Any, name: str, split: str) -> StreamDataset:
    """One split of a dataset as its registered builder opens it, data built where the recipe says so.

    Raises:
        UserError: the recipe has no such dataset, or no data for this split.
    """
    section = dataset_section(config, name)
    for processor in section.get("processors") or {}:
        registry.unregister(f"{name}_{processor}")  # MMF keeps the first ones that it ever built by this name
    builder = registry.get_builder_class(name)()
    builder.build_dataset(section, split)
    dataset = builder.load_dataset(section, split)
    if dataset is None:
        raise UserError(f"dataset_config.{name}.splits.{split} lists no data.")
    return dataset
