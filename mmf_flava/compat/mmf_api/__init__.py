"""Interface to MMF that is the same for MMF 1.0.0rc10 and MMF's main branch.

``rc10`` and ``main`` implement the same functions for one version each; ``builders`` has functions for both versions.
No other package of mmf_flava checks which version is installed.
"""

import importlib
from importlib.util import find_spec
from typing import Any

from mmf.utils.configuration import get_default_config_path, load_yaml
from omegaconf import OmegaConf

from mmf_flava.compat.mmf_api.builders import (
    TensorboardLogger,
    build_model,
    build_optimizer,
    build_scheduler,
    find_in_mmf_zoo,
    redirect_logging_to_tqdm,
    save_dir,
)
from mmf_flava.compat.mmf_api.parameter_groups import parameter_groups
from mmf_flava.compat.multitasking import parse_multitasking
from mmf_flava.config.run import MultitaskingConfig

MMF_VERSION = "main" if find_spec("mmf.trainers.mmf_trainer") else "rc10"
_version = importlib.import_module(f"mmf_flava.compat.mmf_api.{MMF_VERSION}")

MMF_TRAINER = _version.MMF_TRAINER
STRATEGIES_HINT = _version.STRATEGIES_HINT
build_callbacks = _version.build_callbacks
build_dataset = _version.build_dataset
build_iteration_strategy = _version.build_iteration_strategy
check_callbacks = _version.check_callbacks
log = _version.log
register_loss_if_missing = _version.register_loss_if_missing
strategy_schemas = _version.strategy_schemas
write_predictions = _version.write_predictions


def read_multitasking(config: Any) -> MultitaskingConfig:
    """Validate the section ``multitasking`` of a config, and remove ``params`` of other iteration strategies.

    Raises:
        UserError: a key is unknown, or a value is invalid.
    """
    names = [name.strip() for name in config.datasets.split(",")]
    return parse_multitasking(config.get("multitasking") or {}, names, strategy_schemas(), STRATEGIES_HINT)


def defaults() -> dict[str, Any]:
    """Return MMF's default config with unresolved interpolations."""
    return OmegaConf.to_container(load_yaml(get_default_config_path()), resolve=False)  # type: ignore[return-value]


__all__ = [
    "MMF_TRAINER",
    "MMF_VERSION",
    "STRATEGIES_HINT",
    "TensorboardLogger",
    "build_callbacks",
    "build_dataset",
    "build_iteration_strategy",
    "build_model",
    "build_optimizer",
    "build_scheduler",
    "check_callbacks",
    "defaults",
    "find_in_mmf_zoo",
    "log",
    "parameter_groups",
    "read_multitasking",
    "redirect_logging_to_tqdm",
    "register_loss_if_missing",
    "save_dir",
    "strategy_schemas",
    "write_predictions",
]
