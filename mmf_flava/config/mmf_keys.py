"""What the trainer ``flava`` does with each key of MMF's defaults, of MMF 1.0.0rc10 and of MMF's main branch.

A key is honoured, has no effect on a run (``FREE``), or is refused if its value is not MMF's default. The keys of
models and datasets are checked by their own schemas.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from mmf_flava.errors import UserError

# patterns of keys -> what honours them
HONOURED: dict[str, str] = {
    "training.trainer": "MMF, which builds this trainer",
    "training.seed": "training.run_data: the order of the data; MMF: initial weights",
    "training.experiment_name": "training.metric_loggers, the report, names of prediction files",
    "training.max_updates": "training.trainer",
    "training.max_epochs": "config.schedule: sets training.max_updates",
    "training.*_interval": "training.trainer",
    "training.logger_level": "MMF's logger",
    "training.log_detailed_config": "MMF, which logs the config",
    "training.stdout_capture": "MMF's logger",
    "training.tensorboard": "training.metric_loggers",
    "training.wandb.*": "training.metric_loggers",
    "training.batch_size*": "data.sampling, training.settings",
    "training.num_workers": "data.sampling",
    "training.pin_memory": "data.sampling",
    "training.fast_read": "training.run_data: sets dataset_config.NAME.fast_read",
    "training.update_frequency": "training.update",
    "training.clip_gradients": "training.update",
    "training.early_stop.*": "training.monitor",
    "training.lr_scheduler": "training.update",
    "training.device": "training.device",
    "training.cudnn_benchmark": "training.device",
    "training.detect_anomaly": "training.device",
    "training.callbacks": "training.callbacks",
    "training.find_unused_parameters": "training.update: of stock models; FLAVA's may leave parameters unused",
    "evaluation.metrics": "evaluation.scorer",
    "evaluation.use_cpu": "evaluation.scorer: the fields of metrics are always collected on the CPU",
    "evaluation.predict*": "evaluation.predictions",
    "evaluation.reporter.*": "MMF's test reporter, which writes the predictions",
    "model*": "MMF, which builds the model",
    "dataset*": "MMF, which builds the datasets",
    "config": "MMF's command line",
    "run_type": "training.trainer",
    "learning_rate": "MMF: sets optimizer.params.lr",
    "optimizer": "MMF, which builds the optimizer",
    "scheduler": "MMF, which builds the schedule",
    "optimizer.allow_unused_parameters": "compat.mmf_api.parameter_groups",
    "env.*": "MMF; training.metric_loggers",
    "distributed.*": "MMF, which starts the processes",
    "checkpoint.resume*": "training.initial_weights",
    "checkpoint.pretrained_state_mapping": "weights.stock",
    "checkpoint.max_to_keep": "training.retention",
    "checkpoint.reset.*": "training.run_state",
    "multitasking.*": "data.dataset_schedule",
}
# keys without effect on a run of this trainer, whatever their value
FREE: dict[str, str] = {
    "config_version": "MMF does not read it",
    "training.colored_logs": "MMF's main branch does not read it",
    "training.persistent_workers": "the training stream has no end, so its workers are started once",
    "checkpoint.save_git_details": "checkpoints contain no git details; they store the complete recipe",
}


class Refused(NamedTuple):
    """A key that is refused if its value is neither MMF's default nor in ``also``."""

    default: Any
    remedy: str
    also: tuple[Any, ...] = ()  # other values that are honoured


PYTHIA = "Only scheduler.type: pythia reads it. Set this type and training.lr_scheduler: true, or remove the key."
UNREAD = "MMF's trainers do not read it either. Remove it."
REFUSED: dict[str, Refused] = {
    "training.dataset_size_proportional_sampling": Refused(
        True, "Set multitasking.type, e.g. to round_robin or ratios, and remove it."
    ),
    "training.clip_norm_mode": Refused(
        "all",
        "Set it to all, for the norm of all gradients, or to parameter, for each parameter's norm.",
        ("parameter",),
    ),
    "training.evaluate_metrics": Refused(
        False, "Set it to false: metrics are computed on the val split, every training.evaluation_interval updates."
    ),
    "training.log_format": Refused(
        "simple", "Set it to simple: metrics.jsonl in the run folder has the values as JSON."
    ),
    "training.should_not_log": Refused(False, "Set training.logger_level: error instead."),
    "training.verbose_dump": Refused(False, UNREAD),
    "training.local_rank": Refused(None, "Remove it: torchrun sets the local rank, and training.device: cuda:N a GPU."),
    "training.fp16": Refused(False, "Set training.precision: fp16 instead."),
    "training.exit_on_nan_losses": Refused(
        True, "Set it to true: updates with NaN losses are skipped, and ten in a row end the run."
    ),
    "training.wandb.log_checkpoint": Refused(False, "Set it to false: checkpoints stay in the run folder."),
    "checkpoint.zoo_config_override": Refused(False, "Set the keys of the zoo's model in model_config."),
    "optimizer.enable_state_sharding": Refused(False, "Set training.sharding: fsdp instead."),
}
# keys that one schedule reads
SCHEDULE: dict[str, Refused] = {
    "training.lr_steps": Refused([], PYTHIA),
    "training.lr_ratio": Refused(0.1, PYTHIA),
    "training.use_warmup": Refused(False, PYTHIA),
    "training.warmup_factor": Refused(0.2, PYTHIA),
    "training.warmup_iterations": Refused(1000, PYTHIA),
}
# PyTorch Lightning's section: its defaults are those of MMF
LIGHTNING = "trainer.*"
LIGHTNING_REMEDY = "Set the keys of training, e.g. training.max_updates, and remove the section trainer."


def outcome(key: str) -> str | None:
    """Return ``honoured``, ``free`` or ``refused``, or None if the table has no row for a key of MMF's defaults."""
    if key in REFUSED or key in SCHEDULE or fnmatchcase(key, LIGHTNING):
        return "refused"
    if key in FREE:
        return "free"
    return "honoured" if any(fnmatchcase(key, pattern) for pattern in HONOURED) else None


def check_mmf_keys(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check that the config of a run with the trainer ``flava`` sets no key that this trainer refuses.

    Args:
        config: the complete config as a dict, with its interpolations resolved.
        defaults: MMF's default config as a dict.

    Raises:
        UserError: a key has a value that this trainer does not support.
    """
    scheduler = (config.get("scheduler") or {}).get("type", "pythia")
    uses_pythia = scheduler == "pythia" and (config.get("training") or {}).get("lr_scheduler")
    rows = REFUSED if uses_pythia else REFUSED | SCHEDULE
    lightning = dict(leaves(defaults.get("trainer") or {}, "trainer"))
    for key, value in leaves(config):
        row = rows.get(key)
        if row is None and fnmatchcase(key, LIGHTNING):
            row = Refused(lightning.get(key), LIGHTNING_REMEDY)
        if row is not None and value not in (row.default, *row.also):
            raise UserError(f"{key}: {_text(value)} is not supported by training.trainer: flava. {row.remedy}")


def leaves(section: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full name and the value of every key that is not a section; an empty section is a value."""
    for key, value in section.items():
        full = f"{name}.{key}" if name else str(key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, full)
        else:
            yield full, value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
