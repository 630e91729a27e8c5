"""What a recipe says to the trainer, checked before anything is built."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import (
    MOVED,
    PRECISIONS,
    SHARDINGS,
    CheckpointConfig,
    EvaluationConfig,
    MultitaskingConfig,
    TrainingConfig,
)
from mmf_flava.config.schema import check_keys, near_miss, one_of, parse, plain, positive
from mmf_flava.errors import UserError
from mmf_flava.ranks import world_size
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
    multitasking: MultitaskingConfig
    datasets: list[str]


def read_settings(config: Any) -> Settings:
    """Checks ``training``, ``checkpoint``, ``evaluation`` and ``multitasking`` against MMF's keys and ours.

    A batch size that is given for each process becomes the global one, ``config.training.batch_size``, as in MMF.

    Raises:
        UserError: an unknown key, a wrong type, a size that cannot be, a choice that does not exist, or a callback
            that cannot be built.
    """
    mmf_api.check_callbacks(config)
    for key, now in MOVED.items():
        if OmegaConf.select(config, key) is not None:
            raise UserError(f"{key} is not a key any more; say {now}.")
    training = _section(TrainingConfig, config, "training")
    checkpoint = _section(CheckpointConfig, config, "checkpoint")
    evaluation = _section(EvaluationConfig, config, "evaluation")
    names = [name.strip() for name in config.datasets.split(",")]
    multitasking = _multitasking(config.get("multitasking") or {}, names)
    if training.batch_size_per_device is not None:
        each = positive(training.batch_size_per_device, "training.batch_size_per_device")
        config.training.batch_size = each * world_size()
    _check_training(config.training, training)
    if training.sharding == "fsdp" and "train" in config.run_type:
        _check_fsdp(config)
    return Settings(training, checkpoint, evaluation, multitasking, names)


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


def _check_training(given: Any, training: TrainingConfig) -> None:
    one_of(training.precision, PRECISIONS, "training.precision")
    one_of(training.sharding, SHARDINGS, "training.sharding")
    if given.max_epochs is not None:
        raise UserError("training.max_epochs: the datasets are endless streams here; say training.max_updates.")
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
    if given.get("fp16"):
        raise UserError("training.fp16 is for MMF's own trainer; say training.precision: fp16.")


def _multitasking(section: Any, names: list[str]) -> MultitaskingConfig:
    """The section with only those ``params`` that its type knows."""
    found = parse(MultitaskingConfig, section, "multitasking")
    schemas = mmf_api.strategy_schemas()
    if found.type not in schemas:
        known = ", ".join(sorted(schemas))
        raise UserError(f"multitasking.type: {found.type!r} is not one of {known}; {mmf_api.OTHER_STRATEGIES}.")
    # recipes are merged key by key: another type's params are left from a recipe in which that one was chosen
    others = {field.name for schema in schemas.values() for field in fields(schema)}
    own = {field.name for field in fields(schemas[found.type])}
    found.params = {key: value for key, value in found.params.items() if key in own or key not in others}
    parse(schemas[found.type], {"name": found.type, **found.params}, "multitasking.params")
    if found.type == "ratios" and found.enabled and len(names) > 1:
        _check_ratios(found.params["sampling_ratios"], names)
    return found


def _check_ratios(ratios: dict[str, float], names: list[str]) -> None:
    for name in ratios:
        if name not in names:
            raise UserError(
                f"multitasking.params.sampling_ratios: '{name}' is not a dataset of this run.{near_miss(name, names)}"
            )
    if lacking := [name for name in names if ratios.get(name, 0) <= 0]:
        raise UserError(f"multitasking.params.sampling_ratios must give '{lacking[0]}' a weight above 0.")
