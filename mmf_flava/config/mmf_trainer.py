"""What MMF's own trainer (``training.trainer: mmf`` of its main branch) makes of a recipe for pretraining."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from mmf_flava.config.run import CheckpointConfig, EvaluationConfig, TrainingConfig
from mmf_flava.config.schema import plain
from mmf_flava.errors import UserError

NAME = "mmf"
# 1.0.0rc10's: its samples have to be of one size, and its epochs to end
FORMER = "base_trainer"
# the keys of ours that MMF's trainer reads as well
READ = {"training": {"update_frequency", "max_grad_l2_norm", "wandb"}, "checkpoint": {"max_to_keep"}}
SECTIONS = {"training": TrainingConfig, "checkpoint": CheckpointConfig, "evaluation": EvaluationConfig}
# of datasets: bad records are replaced, but not counted; batches are not sorted by length
DATA = {"max_bad_share": None, "length_buckets": 1}


def check_mmf_trainer(config: Any, processes: int, devices: int) -> None:
    """Refuses what needs our trainer.

    Args:
        config: the whole recipe.
        processes: how many train together.
        devices: how many GPUs this process would spread its batches over.

    Raises:
        UserError: several processes or GPUs, half precision, sharding or activation checkpointing.
    """
    training = config.training
    wanted = {
        f"{processes} processes": processes > 1,
        f"{devices} GPUs": devices > 1,
        "training.fp16": training.get("fp16", False),
        f"training.precision: {training.get('precision')}": training.get("precision", "fp32") != "fp32",
        f"training.sharding: {training.get('sharding')}": training.get("sharding", "none") != "none",
        "training.activation_checkpointing": training.get("activation_checkpointing", False),
    }
    if asked := [name for name, there in wanted.items() if there]:
        raise UserError(
            f"training.trainer: {NAME}, MMF's own, pretrains FLAVA on one process and one device in fp32, and cannot "
            f"have {', '.join(asked)}: choose training.trainer: flava, which can."
        )


def unread_keys(config: Any) -> list[str]:
    """The keys of the recipe that say something to our trainer and nothing to MMF's, as ``evaluation.zero_shot``."""
    return [*_unread_sections(config), *_unread_data(config)]


def _unread_sections(config: Any) -> Iterator[str]:
    for name, schema in SECTIONS.items():
        section, defaults = plain(config[name]), schema()
        for field in fields(schema):  # type: ignore[arg-type]
            if field.name in section and field.name not in READ.get(name, ()):
                default = getattr(defaults, field.name)
                given = section[field.name]
                if given != (vars(default) if hasattr(default, "__dataclass_fields__") else default):
                    yield f"{name}.{field.name}"


def _unread_data(config: Any) -> Iterator[str]:
    for name in config.datasets.split(","):
        dataset = config.dataset_config.get(name.strip()) or {}
        for key, nothing in DATA.items():
            if dataset.get(key, nothing) != nothing:
                yield f"dataset_config.{name.strip()}.{key}"
