"""Validation of the config sections of the trainer ``flava``, before datasets and model are built."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import (
    MAX_EVALUATION_BATCH,
    PRECISIONS,
    REPLACED_KEYS,
    SHARDINGS,
    CheckpointConfig,
    EvaluationConfig,
    MultitaskingConfig,
    TrainingConfig,
)
from mmf_flava.config.schema import check_choice, check_keys, check_positive, parse_section, suggestion, to_dict
from mmf_flava.errors import UserError
from mmf_flava.processes import world_size
from mmf_flava.training.metric_loggers import import_wandb

T = TypeVar("T")
# optimizers that update each element independently of the others
ELEMENTWISE = ("AdamW", "Adam", "adam_w", "SGD", "RMSprop", "Adagrad", "Adamax")


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
    for key, replacement in REPLACED_KEYS.items():
        if OmegaConf.select(config, key) is not None:
            raise UserError(f"{key} was removed. Use {replacement}.")
    training = _section(TrainingConfig, config, "training")
    checkpoint = _section(CheckpointConfig, config, "checkpoint")
    evaluation = _section(EvaluationConfig, config, "evaluation")
    names = [name.strip() for name in config.datasets.split(",")]
    multitasking = _multitasking(config.get("multitasking") or {}, names)
    if training.batch_size_per_device is not None:
        per_device = check_positive(training.batch_size_per_device, "training.batch_size_per_device")
        config.training.batch_size = per_device * world_size()
    _check_training(config.training, training)
    if evaluation.batch_size is None:
        evaluation.batch_size = min(config.training.batch_size, MAX_EVALUATION_BATCH)
    check_positive(evaluation.batch_size, "evaluation.batch_size")
    if training.sharding == "fsdp" and "train" in config.run_type:
        _check_fsdp(config)
    return Settings(training, checkpoint, evaluation, multitasking, names)


def _check_fsdp(config: Any) -> None:
    if (optimizer := config.optimizer.type) not in ELEMENTWISE:
        raise UserError(
            f"optimizer.type: {optimizer} is not supported with training.sharding: fsdp, because it may need complete "
            f"weight matrices. Set it to one of {', '.join(ELEMENTWISE)}, or set training.sharding: ddp."
        )
    if OmegaConf.select(config, f"model_config.{config.model}.compile"):
        raise UserError(
            f"model_config.{config.model}.compile is not supported with training.sharding: fsdp, because torch "
            "would exceed its recompilation limit. Set it to false, or set training.sharding: ddp."
        )


def _section(schema: type[T], config: Any, name: str) -> T:
    """Check the keys of an MMF config section, and parse the keys that mmf_flava adds into ``schema``."""
    added = {field.name for field in fields(schema)}  # type: ignore[arg-type]
    check_keys(config[name], mmf_api.default_keys(name) | added, name)
    return parse_section(schema, {key: value for key, value in to_dict(config[name]).items() if key in added}, name)


def _check_training(section: Any, training: TrainingConfig) -> None:
    check_choice(training.precision, PRECISIONS, "training.precision")
    check_choice(training.sharding, SHARDINGS, "training.sharding")
    if section.max_epochs is not None:
        raise UserError(
            "training.max_epochs is not supported, because the datasets are endless streams. Set training.max_updates."
        )
    for key in ("batch_size", "max_updates", "log_interval", "evaluation_interval", "checkpoint_interval"):
        check_positive(section[key], f"training.{key}")
    check_positive(training.update_frequency, "training.update_frequency")
    if training.wandb.enabled:
        import_wandb()  # raises an error before datasets and model are built
    if section.early_stop.enabled:
        raise UserError(
            "training.early_stop.enabled is not supported. Set it to false: the best checkpoint by "
            "training.early_stop.criteria is kept, and checkpoint.resume_best=true loads it."
        )
    if section.clip_gradients and training.max_grad_l2_norm is None:
        raise UserError("training.clip_gradients needs training.max_grad_l2_norm. Set it, e.g. to 1.0.")
    if section.get("fp16"):
        raise UserError("training.fp16 is a key of MMF's trainer. Set training.precision: fp16 instead.")


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
