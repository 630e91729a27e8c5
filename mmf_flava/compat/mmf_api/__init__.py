"""The one bridge to MMF's own builders: what differs between MMF's lines is spelt here and nowhere else.

``rc10`` speaks to 1.0.0rc10 of the package index, ``main`` to the main branch of MMF's repository, ``builders`` to
either; the first two have the same names, so that nobody else asks which MMF is there.
"""

import importlib
from importlib.util import find_spec

from mmf.utils.configuration import get_default_config_path, load_yaml
from omegaconf import OmegaConf

from mmf_flava.compat.mmf_api.builders import (
    TensorboardLogger,
    build_model,
    build_optimizer,
    build_scheduler,
    quiet_console,
    save_dir,
)

LINE = "main" if find_spec("mmf.trainers.mmf_trainer") else "rc10"
_line = importlib.import_module(f"mmf_flava.compat.mmf_api.{LINE}")

OTHER_STRATEGIES = _line.OTHER_STRATEGIES
build_dataset = _line.build_dataset
iteration_strategy = _line.iteration_strategy
log = _line.log
register_loss_of_main = _line.register_loss_of_main
strategy_schemas = _line.strategy_schemas
check_callbacks = _line.check_callbacks
user_callbacks = _line.user_callbacks


def default_keys(section: str) -> set[str]:
    """The keys of a section (``training``, ``checkpoint``, ...) in MMF's own defaults, and those it once had."""
    defaults = OmegaConf.select(load_yaml(get_default_config_path()), section) or {}
    return {*defaults, *_line.FORMER_KEYS.get(section, ())}


__all__ = [
    "LINE",
    "OTHER_STRATEGIES",
    "TensorboardLogger",
    "build_dataset",
    "build_model",
    "build_optimizer",
    "build_scheduler",
    "check_callbacks",
    "default_keys",
    "iteration_strategy",
    "log",
    "quiet_console",
    "register_loss_of_main",
    "save_dir",
    "strategy_schemas",
    "user_callbacks",
]
