"""Validation of MMF's own config sections. Keys and types are taken from MMF's defaults; ranges are listed here."""

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any

from omegaconf import MISSING

from mmf_flava.config import mmf_trainer
from mmf_flava.config.close_matches import close_matches, did_you_mean
from mmf_flava.config.ranges import Range, check_value
from mmf_flava.config.run import CheckpointConfig, EvaluationConfig, MultitaskingConfig, TrainingConfig
from mmf_flava.config.schema import check_keys, check_type, parse_section, to_dict
from mmf_flava.errors import UserError

# keys that mmf_flava adds to MMF's sections
ADDED = {
    "training": TrainingConfig,
    "checkpoint": CheckpointConfig,
    "evaluation": EvaluationConfig,
    "multitasking": MultitaskingConfig,
}
# sections that are checked elsewhere or may have any keys
OTHERS = {"model_config", "dataset_config", "optimizer", "scheduler", "trainer", "config", "includes", "dataset"}
# keys that MMF's Configuration.upgrade moves to other sections, and a key that MMF's main branch has removed
MOVED = {
    "training": {
        "resume_file", "resume", "resume_best", "load_pretrained", "pretrained_state_mapping", "run_type",
        "stdout_capture",
    }
}  # fmt: skip
# key that only MMF's main branch has
CALLBACKS = "callbacks"
POSITIVE = Range(at_least=1)
RANGES = {
    "training.seed": Range(at_least=-1, at_most=2**32 - 1),
    "training.batch_size": POSITIVE,
    "training.max_updates": POSITIVE,
    "training.max_epochs": POSITIVE,
    "training.log_interval": POSITIVE,
    "training.evaluation_interval": POSITIVE,
    "training.checkpoint_interval": POSITIVE,
    "training.num_workers": Range(at_least=0, at_most=1024),
    "training.early_stop.patience": Range(at_least=0),
    "training.lr_ratio": Range(above=0),
    "training.warmup_factor": Range(above=0),
    "training.warmup_iterations": Range(at_least=0),
    "training.local_rank": Range(at_least=0),
    "training.logger_level": Range(choices=("debug", "info", "warning", "error", "critical")),
    "training.log_format": Range(choices=("simple", "json")),
    "training.clip_norm_mode": Range(choices=("all", "question", "parameter")),
    "evaluation.predict_file_format": Range(choices=("csv", "json")),
    "distributed.rank": Range(at_least=0),
    "distributed.port": Range(at_least=-1, at_most=65535),
    "distributed.backend": Range(choices=("nccl", "gloo", "mpi")),
    "distributed.world_size": POSITIVE,
    "learning_rate": Range(at_least=0),
}
# types of the keys for which MMF's default does not determine the type
TYPES: dict[str, Any] = {
    "datasets": str | list[str],
    "model": str,
    "learning_rate": float | None,
    "training.seed": int | None,
    "training.max_updates": int | None,
    "training.max_epochs": int | None,
    "training.evaluation_interval": int | None,
    "training.checkpoint_interval": int | None,
    "training.local_rank": int | None,
    "training.lr_steps": list[int],
    "evaluation.metrics": list[Any] | str | dict[str, Any] | None,
    "evaluation.reporter.params": dict[str, Any],
    "checkpoint.resume_file": str | None,
    "checkpoint.resume_zoo": str | None,
    "distributed.init_method": str | None,
    "distributed.rank": int | None,
}
# trainers that support training.wandb only on MMF's main branch, whose defaults contain it
WITHOUT_WANDB = (*mmf_trainer.NAMES, "lightning")
FOLDERS = ("env.save_dir", "env.data_dir", "env.cache_dir")
RUN_TYPES = ("train", "val", "test", "inference", "predict")


def check_mmf_sections(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check all sections except those of models, datasets, optimizer and scheduler.

    Args:
        config: the complete config as a dict, with its interpolations resolved.
        defaults: MMF's default config as a dict, with unresolved interpolations.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or is out of range.
    """
    for name, default in {**{key: {} for key in ADDED}, "learning_rate": None, **defaults}.items():
        if name in config and name not in OTHERS:
            if name in ADDED and isinstance(config[name], Mapping):
                check_section(name, config[name], default, str(config["training"].get("trainer")))
            else:
                _check(name, config[name], default)
    words = str(config["run_type"]).replace("+", "_").split("_")
    if unknown := [word for word in words if word not in RUN_TYPES]:
        hint = did_you_mean(close_matches(unknown[0], RUN_TYPES)) if close_matches(unknown[0], RUN_TYPES) else ""
        raise UserError(
            f"run_type: {config['run_type']!r} must consist of {', '.join(RUN_TYPES)}, joined by '_'. {hint}".rstrip()
        )


def check_section(name: str, section: Any, default: Mapping[str, Any], trainer: str = "flava") -> Any:
    """Check a section to which mmf_flava adds keys, and return these keys as a config object.

    Args:
        trainer: name of the trainer. With a trainer other than ``flava``, ``training.wandb`` may have any argument of
            ``wandb.init``, if the trainer supports it.
    """
    schema, values = ADDED[name], to_dict(section)
    own = {field.name for field in fields(schema)}
    known = {*own, *MOVED.get(name, ())}
    if trainer != "flava":
        own -= {"wandb"}
    if trainer in WITHOUT_WANDB:
        known -= {"wandb"}
    if name == "training" and CALLBACKS in {*values} - {*default}:
        raise UserError("training.callbacks is not supported by MMF 1.0.0rc10. Remove it, or use MMF's main branch.")
    check_keys(values, known | {*default}, name)
    for key, value in values.items():
        if key not in own:
            _check(f"{name}.{key}", value, default.get(key))
    return parse_section(schema, {key: value for key, value in values.items() if key in own}, name)


def _check(key: str, value: Any, default: Any) -> None:
    """Check a value against its default in MMF. Sections that are empty by default, and ``wandb``, may have any key."""
    if value == MISSING:
        raise UserError(f"{key} must be given.")
    if value == "" and default != "" and isinstance(TYPES.get(key), UnionType):
        raise UserError(f"{key}: must not be empty. Set a value, or null.")
    if key in TYPES:
        check_type(TYPES[key], value, key)
    elif isinstance(default, Mapping):
        check_type(dict[str, Any], value, key)
        if default and key != "training.wandb":
            check_keys(value, default, key)
            if missing := [name for name in default if name not in value]:
                raise UserError(f"{key}.{missing[0]} must be given, because the config replaces the whole section.")
            for name, item in value.items():
                _check(f"{key}.{name}", item, default[name])
    elif key.startswith("env."):
        check_type(str if key in FOLDERS else str | None, value, key)
    elif isinstance(default, list):
        check_type(list[Any], value, key)
    elif isinstance(default, str) and "${" in default:  # distributed.world_size
        check_type(int, value, key)
    elif default is not None:
        check_type(type(default), value, key)
    check_value(value, RANGES.get(key), key)
