"""Detection of config keys that MMF's own trainers (``training.trainer: mmf``, ``base_trainer``) do not support."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from mmf_flava.config.run import CheckpointConfig, EvaluationConfig, TrainingConfig
from mmf_flava.config.schema import to_dict
from mmf_flava.errors import UserError

# MMF's trainers: in 1.0.0rc10 and on the main branch
NAMES = ("base_trainer", "mmf")
# mmf_flava's keys that also have an effect with MMF's trainers
READ = {
    "training": {"update_frequency", "max_grad_l2_norm", "wandb", "process_group_timeout"},
    "checkpoint": {"max_to_keep", "allow_missing", "reset"},
}
SECTIONS = {"training": TrainingConfig, "checkpoint": CheckpointConfig, "evaluation": EvaluationConfig}
# dataset keys that MMF's trainers ignore, and the values that describe what these trainers do: batches are not sorted
# by length
DATA = {"length_buckets": 1}


def check_mmf_trainer(config: Any, processes: int, devices: int) -> None:
    """Raise UserError if the config requires a trainer of mmf_flava.

    Args:
        config: the complete config.
        processes: number of processes of the run.
        devices: number of GPUs among which this process would split each batch (DataParallel).

    Raises:
        UserError: the config sets training.precision, training.sharding, training.activation_checkpointing or
            training.clip_norm_mode: parameter, which MMF's trainers do not support. For model ``flava``, also if it
            sets training.fp16 or training.trainer: base_trainer, or if there are several processes or GPUs.
    """
    training = config.training
    if config.model == "flava" and training.trainer == "base_trainer":
        raise UserError("training.trainer: base_trainer cannot pretrain FLAVA. Use training.trainer: flava.")
    used = {
        f"training.precision: {training.get('precision')}": training.get("precision", "fp32") != "fp32",
        f"training.sharding: {training.get('sharding')}": training.get("sharding", "none") == "fsdp",
        "training.activation_checkpointing": training.get("activation_checkpointing", False),
        "training.clip_norm_mode: parameter": training.get("clip_norm_mode") == "parameter",
    }
    if config.model == "flava":
        used |= {
            f"{processes} processes": processes > 1,
            f"{devices} GPUs": devices > 1,
            "training.fp16": training.get("fp16", False),
        }
    if unsupported := [name for name, is_used in used.items() if is_used]:
        raise UserError(
            f"training.trainer: MMF's trainer {training.trainer} does not support {', '.join(unsupported)}. Use "
            "training.trainer: flava."
        )


def unread_keys(config: Any) -> list[str]:
    """Return the config keys that MMF's trainers ignore, such as ``evaluation.zero_shot``."""
    return [*_unread_sections(config), *_unread_data(config)]


def _unread_sections(config: Any) -> Iterator[str]:
    for name, schema in SECTIONS.items():
        section, defaults = to_dict(config[name]), schema()
        for field in fields(schema):  # type: ignore[arg-type]
            if field.name in section and field.name not in READ.get(name, ()):
                default = getattr(defaults, field.name)
                value = section[field.name]
                if value != (vars(default) if hasattr(default, "__dataclass_fields__") else default):
                    yield f"{name}.{field.name}"


def _unread_data(config: Any) -> Iterator[str]:
    for name in config.datasets.split(","):
        dataset = config.dataset_config.get(name.strip()) or {}
        for key, default in DATA.items():
            if dataset.get(key, default) != default:
                yield f"dataset_config.{name.strip()}.{key}"
