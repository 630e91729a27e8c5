"""Validation of the config sections of the trainer ``flava``, before datasets and model are built."""

from dataclasses import dataclass
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
from mmf_flava.processes import world_size
from mmf_flava.training.metric_loggers import import_wandb
from mmf_flava.training.model_interface import check_evaluations, check_stock_model
from mmf_flava.training.zoo import replace_zoo_name


@dataclass
class Settings:
    """The config keys that mmf_flava adds to MMF. MMF's own keys are read from the config."""

    training: TrainingConfig
    checkpoint: CheckpointConfig
    evaluation: EvaluationConfig
    multitasking: MultitaskingConfig
    datasets: list[str]


def read_settings(config: Any) -> Settings:
    """Validate ``training``, ``checkpoint``, ``evaluation`` and ``multitasking`` against the keys of MMF and mmf_flava.

    As in MMF, ``training.batch_size_per_device`` sets the global ``config.training.batch_size``. If
    ``evaluation.batch_size`` is None, it is set to ``training.batch_size``, at most ``MAX_EVALUATION_BATCH``.
    ``checkpoint.resume_zoo`` is replaced by the keys of the weights that it names.

    Raises:
        UserError: a key is unknown, a value is invalid or has the wrong type, or a callback is invalid.
    """
    mmf_api.check_callbacks(config)
    check_flava(config)
    defaults = mmf_api.defaults()
    training, checkpoint, evaluation = (
        check_section(name, config[name], defaults[name]) for name in ("training", "checkpoint", "evaluation")
    )
    check_stock_model(config.model, training)
    check_evaluations(config.model, evaluation)
    replace_zoo_name(config)
    names = [name.strip() for name in config.datasets.split(",")]
    multitasking = mmf_api.read_multitasking(config)
    if training.batch_size_per_device is not None:
        config.training.batch_size = training.batch_size_per_device * world_size()
    if training.wandb.enabled:
        import_wandb()  # raises an error before datasets and model are built
    if evaluation.batch_size is None:
        evaluation.batch_size = min(config.training.batch_size, MAX_EVALUATION_BATCH)
    return Settings(training, checkpoint, evaluation, multitasking, names)
