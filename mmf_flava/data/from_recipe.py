"""Functions that load a recipe and open its datasets, for command-line tools."""

import argparse
from collections.abc import Sequence
from typing import Any

from mmf.common.registry import registry
from mmf.utils.configuration import Configuration
from mmf.utils.env import setup_imports

from mmf_flava.data.stream import StreamDataset
from mmf_flava.errors import UserError


def read_recipe(path: str, overrides: Sequence[str] = ()) -> Any:
    """Load the config that ``mmf_run config=PATH key=value ...`` would use, and set it as MMF's current config."""
    setup_imports()
    arguments = argparse.Namespace(config_override=None, opts=[f"config={path}", *overrides])
    return Configuration(arguments).get_config()


def dataset_names(config: Any) -> list[str]:
    """Return the dataset names in the config key ``datasets``. MMF loads the default configs of these datasets only."""
    return config.datasets.split(",")


def dataset_section(config: Any, name: str) -> Any:
    """Return ``dataset_config.<name>``.

    Raises:
        UserError: the config's ``datasets`` does not contain ``name``.
    """
    if name not in dataset_names(config) or name not in config.dataset_config:
        raise UserError(f"The recipe has no dataset '{name}'. Choose one of {', '.join(dataset_names(config))}.")
    return config.dataset_config[name]


def open_dataset(config: Any, name: str, split: str) -> StreamDataset:
    """Open one split of a dataset with its registered builder. With ``build: demo``, missing demo data are created.

    Raises:
        UserError: the config has no dataset ``name``, or the split has no paths.
    """
    section = dataset_section(config, name)
    for processor in section.get("processors") or {}:
        registry.unregister(f"{name}_{processor}")  # otherwise MMF reuses a registered processor
    builder = registry.get_builder_class(name)()
    builder.build_dataset(section, split)
    dataset = builder.load_dataset(section, split)
    if dataset is None:
        raise UserError(
            f"dataset_config.{name}.splits.{split}: no paths are listed. List at least one path, or choose another "
            "split."
        )
    return dataset
