"""Patches of MMF's configuration: defaults of datasets and processors."""

from typing import Any

from omegaconf import open_dict

from mmf_flava.compat import flava_run
from mmf_flava.compat.command_line import split_options
from mmf_flava.compat.dataset_config import dataset_names, fill_defaults, set_model_defaults
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.config.dataset_base import EntriesConfig


@patch(
    "mmf.utils.configuration",
    what="dataset_config contains all keys of mmf_flava's datasets and processors, with their defaults",
    why="the command line can only set keys that the configuration contains; MMF reads defaults from YAML files only, "
    "but the defaults of mmf_flava's datasets and processors are in their config classes",
    since="MMF 1.0.0rc1",
    until="MMF reads the defaults of a dataset from a config class",
)
def defaults(module: Any) -> None:
    # not restricted to FLAVA's runs: only datasets and processors of mmf_flava are changed
    @wrap(module.Configuration, "_build_dataset_config")
    def _build_dataset_config(original: Any, self: Any, config: Any) -> Any:
        self._dataset_defaults = original(self, config)
        self._dataset_names = dataset_names(config)
        return self._dataset_defaults

    @wrap(module.Configuration, "_build_other_configs")
    def _build_other_configs(original: Any, self: Any) -> Any:
        config, options = original(self), dict(split_options(self.args.opts or []))
        fill_defaults(config, self._dataset_names, self._dataset_defaults, self._user_config, options)
        return config

    @wrap(module.Configuration, "_update_specific")
    def _update_specific(original: Any, self: Any, config: Any) -> Any:
        set_model_defaults(config)
        return original(self, config)


@patch(
    "mmf.utils.configuration",
    what="dataset_config.<name>.max_bad_share is a key of MMF's datasets",
    why="the command line can only set keys that the configuration contains",
    since="MMF 1.0.0rc1",
    until="MMF skips bad entries",
)
def entry_limit(module: Any) -> None:
    @wrap(module.Configuration, "_build_dataset_config", only_if=flava_run.is_current)
    def _build_dataset_config(original: Any, self: Any, config: Any) -> Any:
        defaults = original(self, config)
        for name in dataset_names(config):
            builder = module.registry.mapping["builder_name_mapping"].get(name)
            section = (defaults.get("dataset_config") or {}).get(name)
            if section is not None and getattr(builder, "__module__", "").startswith("mmf."):
                with open_dict(section):
                    section.setdefault("max_bad_share", EntriesConfig.max_bad_share)
        return defaults
