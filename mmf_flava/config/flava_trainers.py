"""Validation of the combinations of keys that mmf_flava's trainers, ``flava`` and ``flava_finetune``, support."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from omegaconf import OmegaConf

from mmf_flava.config.run import (
    REPLACED_KEYS,
    CheckpointConfig,
    EvaluationConfig,
    LinearProbeConfig,
    RetrievalConfig,
    TrainingConfig,
    ZeroShotConfig,
)
from mmf_flava.config.schema import check_keys, suggestion
from mmf_flava.errors import UserError

# optimizers that update each element independently of the others
ELEMENTWISE = ("AdamW", "Adam", "adam_w", "SGD", "RMSprop", "Adagrad", "Adamax")
# keys of the trainer flava that flava_finetune supports too
FINETUNING = {
    "training": {"precision", "max_grad_l2_norm", "process_group_timeout", "tf32", "deterministic"},
    "checkpoint": {"allow_missing"},
    "evaluation": {"task"},
}
EVALUATIONS: dict[str, Any] = {
    "zero_shot": ZeroShotConfig,
    "retrieval": RetrievalConfig,
    "linear_probe": LinearProbeConfig,
}
OWN: dict[str, Any] = {"training": TrainingConfig, "checkpoint": CheckpointConfig, "evaluation": EvaluationConfig}


def check_flava(config: Any) -> None:
    """Check the keys of the trainer ``flava``. Their types and ranges must have been checked before.

    Raises:
        UserError: a key or a combination of keys is not supported.
    """
    training = config.training
    for key, replacement in REPLACED_KEYS.items():
        if OmegaConf.select(config, key) is not None:
            raise UserError(f"{key} was removed. Use {replacement}.")
    names = [name.strip() for name in config.datasets.split(",")]
    for key in ("zero_shot", "retrieval", "linear_probe"):
        section = config.evaluation.get(key)
        dataset = None if section is None else section.get("dataset", EVALUATIONS[key].dataset)
        if dataset is not None and dataset not in names:
            raise UserError(f"evaluation.{key}.dataset: unknown dataset '{dataset}'.{suggestion(str(dataset), names)}")
    if training.max_updates is None and training.max_epochs is None:
        raise UserError("training.max_updates must be given: the number of updates of the run.")
    if training.clip_gradients and training.get("max_grad_l2_norm") is None:
        raise UserError("training.clip_gradients needs training.max_grad_l2_norm. Set it, e.g. to 1.0.")
    if config.checkpoint.resume_zoo:
        raise UserError(
            "checkpoint.resume_zoo is not supported by training.trainer: flava. Set checkpoint.resume_file to a file, "
            "a folder, a URL or a Hugging Face model ID."
        )
    if training.get("fp16"):
        raise UserError("training.fp16 is a key of MMF's trainer. Set training.precision: fp16 instead.")
    if training.get("sharding") == "fsdp" and "train" in config.run_type:
        _check_fsdp(config)


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


def check_finetuning(config: Any, defaults: Mapping[str, Any]) -> str:
    """Check the keys of the trainer ``flava_finetune`` and return the precision of the run.

    Args:
        defaults: MMF's default config.

    Raises:
        UserError: a key or a combination of keys is not supported.
    """
    for section, keys in FINETUNING.items():
        others = {field.name for field in fields(OWN[section])} - keys - set(defaults[section])
        check_keys(config[section], set(config[section]) - others, section)
    if "," in config.datasets:
        raise UserError(
            f"datasets is {config.datasets}, but training.trainer: flava_finetune supports one dataset. MMF would log "
            f"the metrics of all datasets under one name. Select one dataset, or set training.trainer: "
            f"{defaults['training']['trainer']}."
        )
    steps = config.scheduler.get("params") or {}
    if config.training.max_updates is None and steps.get("num_training_steps", 0) is None:
        raise UserError(
            "training.max_updates is null, but the learning rate schedule needs it. Set it to training.max_epochs * "
            "number of training samples / training.batch_size."
        )
    precision = str(config.training.get("precision", "fp32"))
    if precision not in ("fp32", "bf16"):
        raise UserError(f"training.precision: {precision!r} is not one of fp32, bf16.")
    if not config.training.get("fp16"):  # a key of MMF's main branch, whose trainer has its own loss scaler
        return precision
    if precision == "bf16":
        raise UserError("training.fp16 and training.precision: bf16 cannot be combined. Remove one of them.")
    return "fp16"
