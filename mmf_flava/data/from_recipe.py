"""The datasets of a recipe, for command-line tools that read them without training."""

import argparse
from collections.abc import Sequence
from typing import Any

from mmf.common.registry import registry
from mmf.utils.configuration import Configuration
from mmf.utils.env import setup_imports

from mmf_flava.data.stream import StreamDataset
from mmf_flava.errors import UserError


def read_recipe(path: str, overrides: Sequence[str] = ()) -> Any:
    """Load the complete configuration of ``mmf_run config=PATH key=value ...`` and make it MMF's current one."""
    setup_imports()
    arguments = argparse.Namespace(config_override=None, opts=[f"config={path}", *overrides])
    return Configuration(arguments).get_config()


def dataset_names(config: Any) -> list[str]:
    """Return the datasets that the recipe trains on; other entries of ``dataset_config`` lack their defaults."""
    return config.datasets.split(",")


def dataset_section(config: Any, name: str) -> Any:
    """Return ``dataset_config.NAME``. Raises UserError if the recipe does not train on this dataset."""
    if name not in dataset_names(config) or name not in config.dataset_config:
        raise UserError(f"The recipe has no dataset '{name}'. Known: {', '.join(dataset_names(config))}.")
    return config.dataset_config[name]


def open_dataset(config: Any, name: str, split: str) -> StreamDataset:
    """Open one split of a dataset with its registered builder; build the data first if the recipe has ``build`` set.

    Raises:
        UserError: the recipe does not have the dataset, or the split has no paths.
    """
    section = dataset_section(config, name)
    for processor in section.get("processors") or {}:
        registry.unregister(f"{name}_{processor}")  # MMF reuses the first processor built under this name
    builder = registry.get_builder_class(name)()
    builder.build_dataset(section, split)
    dataset = builder.load_dataset(section, split)
    if dataset is None:
        raise UserError(f"dataset_config.{name}.splits.{split}: no paths are listed.")
    return dataset
