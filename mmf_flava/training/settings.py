"""Validation of the config sections of the trainer ``flava``, before datasets and model are built."""

from dataclasses import dataclass, fields
from typing import Any

from mmf_flava.compat import mmf_api
from mmf_flava.config.flava_trainers import check_flava
from mmf_flava.config.mmf_sections import check_section
from mmf_flava.config.run import (
    MAX_EVALUATION_BATCH,
    CheckpointConfig,
    EvaluationConfig,
    MultitaskingConfig,
    TrainingConfig,
)
from mmf_flava.config.schema import parse_section, suggestion
from mmf_flava.errors import UserError
from mmf_flava.processes import world_size
from mmf_flava.training.metric_loggers import import_wandb


@dataclass
class Settings:
    """The config keys that mmf_flava adds to MMF's. MMF's keys are read from the config itself."""

    training: TrainingConfig
    checkpoint: CheckpointConfig
    evaluation: EvaluationConfig
    multitasking: MultitaskingConfig
    datasets: list[str]


def read_settings(config: Any) -> Settings:
    """Validate ``training``, ``checkpoint``, ``evaluation`` and ``multitasking`` against the keys of MMF and mmf_flava.

    As in MMF, ``training.batch_size_per_device`` sets the global ``config.training.batch_size``. If
    ``evaluation.batch_size`` is None, it is set to its default.

    Raises:
        UserError: a key is unknown, a value is invalid or has the wrong type, or a callback is invalid.
    """
    mmf_api.check_callbacks(config)
    check_flava(config)
    defaults = mmf_api.defaults()
    training, checkpoint, evaluation = (
        check_section(name, config[name], defaults[name]) for name in ("training", "checkpoint", "evaluation")
    )
    names = [name.strip() for name in config.datasets.split(",")]
    multitasking = _multitasking(config.get("multitasking") or {}, names)
    if training.batch_size_per_device is not None:
        config.training.batch_size = training.batch_size_per_device * world_size()
    if training.wandb.enabled:
        import_wandb()  # raises an error before datasets and model are built
    if evaluation.batch_size is None:
        evaluation.batch_size = min(config.training.batch_size, MAX_EVALUATION_BATCH)
    return Settings(training, checkpoint, evaluation, multitasking, names)


def _multitasking(section: Any, names: list[str]) -> MultitaskingConfig:
    """Validate ``multitasking``, and remove the ``params`` of types that are not selected."""
    config = parse_section(MultitaskingConfig, section, "multitasking")
    schemas = mmf_api.strategy_schemas()
    if config.type not in schemas:
        known = ", ".join(sorted(schemas))
        raise UserError(f"multitasking.type: {config.type!r} is not one of {known}; {mmf_api.STRATEGIES_HINT}.")
    # recipes are merged key by key, so the params of the included recipe's type may remain
    all_params = {field.name for schema in schemas.values() for field in fields(schema)}
    type_params = {field.name for field in fields(schemas[config.type])}
    config.params = {key: value for key, value in config.params.items() if key in type_params or key not in all_params}
    parse_section(schemas[config.type], {"name": config.type, **config.params}, "multitasking.params")
    if config.type == "ratios" and config.enabled and len(names) > 1:
        _check_ratios(config.params["sampling_ratios"], names)
    return config


def _check_ratios(ratios: dict[str, float], names: list[str]) -> None:
    for name in ratios:
        if name not in names:
            raise UserError(
                f"multitasking.params.sampling_ratios: '{name}' is not a dataset of this run.{suggestion(name, names)}"
            )
    if missing := [name for name in names if ratios.get(name, 0) <= 0]:
        raise UserError(f"multitasking.params.sampling_ratios: the weight of '{missing[0]}' must be positive.")
