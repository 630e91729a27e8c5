"""Validation of the combinations of keys that the trainer ``flava`` supports."""

from collections.abc import Iterable
from typing import Any

from omegaconf import OmegaConf

from mmf_flava.config.registered_models import MODELS
from mmf_flava.config.run import (
    REPLACED_KEYS,
    AttentionMapsConfig,
    KnnConfig,
    LinearProbeConfig,
    RetrievalConfig,
    ZeroShotConfig,
)
from mmf_flava.config.schema import suggestion
from mmf_flava.config.zoo import check_zoo_name
from mmf_flava.errors import UserError
from mmf_flava.packages import check_installed

# optimizers that update each element independently of the others
ELEMENTWISE = ("AdamW", "Adam", "adam_w", "SGD", "RMSprop", "Adagrad", "Adamax")
EVALUATIONS: dict[str, Any] = {
    "zero_shot": ZeroShotConfig,
    "retrieval": RetrievalConfig,
    "linear_probe": LinearProbeConfig,
    "knn": KnnConfig,
    "attention_maps": AttentionMapsConfig,
}


def check_evaluated_dataset(key: str, dataset: str, datasets: Iterable[str]) -> None:
    """Raise UserError if ``dataset``, the value of ``evaluation.KEY.dataset``, is not one of ``datasets``."""
    if dataset not in (names := list(datasets)):
        raise UserError(f"evaluation.{key}.dataset: unknown dataset '{dataset}'.{suggestion(str(dataset), names)}")


def check_flava(config: Any) -> None:
    """Check the keys of the trainer ``flava``. Their types and ranges must have been checked before.

    Raises:
        UserError: a key or a combination of keys is not supported, or a package that it needs is not installed.
    """
    training = config.training
    for key, replacement in REPLACED_KEYS.items():
        if OmegaConf.select(config, key) is not None:
            raise UserError(f"{key} was removed. Use {replacement}.")
    names = [name.strip() for name in config.datasets.split(",")]
    for key, schema in EVALUATIONS.items():
        section = config.evaluation.get(key)
        dataset = None if section is None else section.get("dataset", schema.dataset)
        if dataset is not None:
            check_evaluated_dataset(key, dataset, names)
    if training.max_updates is None and training.max_epochs is None:
        raise UserError("training.max_updates or training.max_epochs must be given: the length of the run.")
    if training.clip_gradients and training.get("max_grad_l2_norm") is None:
        raise UserError("training.clip_gradients needs training.max_grad_l2_norm. Set it, e.g. to 1.0.")
    if training.get("clip_norm_mode") == "parameter" and not training.clip_gradients:
        raise UserError(
            "training.clip_norm_mode: parameter has no effect without training.clip_gradients. Set clip_gradients: "
            "true and max_grad_l2_norm, or remove clip_norm_mode."
        )
    if config.model == "flava" and config.evaluation.get("metrics"):
        raise UserError(
            "evaluation.metrics is not supported by model: flava, which has no classifier. Remove it; the keys "
            "zero_shot, retrieval and linear_probe of evaluation select the metrics."
        )
    if config.model in MODELS and config.checkpoint.get("pretrained_state_mapping"):
        raise UserError(
            f"checkpoint.pretrained_state_mapping is not supported by model: {config.model}. Set "
            "checkpoint.allow_missing and checkpoint.allow_extra instead."
        )
    ema = (training.get("ema") or {}).get("enabled", False)
    if ema and config.model == "flava_dino":
        raise UserError(
            "training.ema is not supported by model: flava_dino, whose teacher is an average of the student's weights "
            "and is the model that is evaluated and exported. Set training.ema.enabled: false."
        )
    if config.evaluation.get("ema") and not ema and "train" in config.run_type:
        raise UserError(
            "evaluation.ema: true evaluates averages of the weights, but training.ema.enabled is false. Set both to "
            "the same value."
        )
    check_zoo_name(config)
    if "train" in config.run_type:
        if training.get("precision") == "fp16":
            check_installed("training.precision: fp16", "fairseq")
        if training.get("sharding") == "fsdp":
            check_installed("training.sharding: fsdp", "fairseq", "fairscale")
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
