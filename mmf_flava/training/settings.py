"""What a recipe says to the trainer, checked before anything is built."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import (
    PRECISIONS,
    SAMPLINGS,
    SHARDINGS,
    CheckpointConfig,
    EvaluationConfig,
    TrainingConfig,
)
from mmf_flava.config.schema import check_keys, near_miss, one_of, parse, plain, positive
from mmf_flava.errors import UserError
from mmf_flava.training.boards import import_wandb

T = TypeVar("T")
# optimizers that treat each number by itself, whatever matrix it is of
ELEMENTWISE = ("AdamW", "Adam", "adam_w", "SGD", "RMSprop", "Adagrad", "Adamax")


@dataclass
class Settings:
    """Our own part of the recipe; MMF's keys are read from its configuration directly."""

    training: TrainingConfig
    checkpoint: CheckpointConfig
    evaluation: EvaluationConfig
    datasets: list[str]


def read_settings(config: Any) -> Settings:
    """Checks ``training``, ``checkpoint`` and ``evaluation`` against MMF's keys and ours.

    Raises:
        UserError: an unknown key, a wrong type, a size that cannot be, or a choice that does not exist.
    """
    training = _section(TrainingConfig, config, "training")
    checkpoint = _section(CheckpointConfig, config, "checkpoint")
    evaluation = _section(EvaluationConfig, config, "evaluation")
    names = [name.strip() for name in config.datasets.split(",")]
    _check_training(config.training, training, names)
    if training.sharding == "fsdp" and "train" in config.run_type:
        _check_fsdp(config)
    return Settings(training, checkpoint, evaluation, names)


def _check_fsdp(config: Any) -> None:
    if (optimizer := config.optimizer.type) not in ELEMENTWISE:
        raise UserError(
            f"optimizer.type: {optimizer} may look at whole matrices, of which a process has only a piece with "
            f"training.sharding: fsdp; use {', '.join(ELEMENTWISE)}, or ddp."
        )
    if OmegaConf.select(config, f"model_config.{config.model}.compile"):
        raise UserError(
            f"model_config.{config.model}.compile: with training.sharding: fsdp torch compiles each block anew until "
            "it gives up; leave it false, or use ddp."
        )


def _section(schema: type[T], config: Any, name: str) -> T:
    """A section of MMF's that we add keys to: all its keys checked, ours parsed."""
    ours = {field.name for field in fields(schema)}  # type: ignore[arg-type]
    check_keys(config[name], mmf_api.default_keys(name) | ours, name)
    return parse(schema, {key: value for key, value in plain(config[name]).items() if key in ours}, name)


def _check_training(given: Any, training: TrainingConfig, names: list[str]) -> None:
    one_of(training.precision, PRECISIONS, "training.precision")
    one_of(training.sharding, SHARDINGS, "training.sharding")
    one_of(training.sampling.type, SAMPLINGS, "training.sampling.type")
    for key in ("batch_size", "max_updates", "log_interval", "evaluation_interval", "checkpoint_interval"):
        positive(given[key], f"training.{key}")
    positive(training.update_frequency, "training.update_frequency")
    if training.wandb.enabled:
        import_wandb()  # now, and not after the data and the model are there
    if given.early_stop.enabled:
        raise UserError(
            "training.early_stop.enabled is not available in this version; the best checkpoint by its criteria is "
            "kept, and checkpoint.resume_best=true takes it."
        )
    if given.clip_gradients and training.max_grad_l2_norm is None:
        raise UserError("training.clip_gradients is true; say how far with training.max_grad_l2_norm, e.g. 1.0.")
    if training.sampling.type == "ratios":
        ratios = training.sampling.ratios
        for name in ratios:
            if name not in names:
                raise UserError(
                    f"training.sampling.ratios: '{name}' is not a dataset of this run.{near_miss(name, names)}"
                )
        if lacking := [name for name in names if ratios.get(name, 0) <= 0]:
            raise UserError(f"training.sampling.ratios must give '{lacking[0]}' a weight above 0.")
