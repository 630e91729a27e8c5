"""Metric loggers: TensorBoard and Weights & Biases, enabled by MMF's config keys."""

import importlib
from pathlib import Path
from typing import Any, Protocol

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import WandbConfig
from mmf_flava.config.secrets import to_public
from mmf_flava.errors import UserError
from mmf_flava.files import atomic


class MetricLogger(Protocol):
    """Interface of a metric logger. ``metrics`` are scalars by name, e.g. ``{"train/losses/flava_mim": 4.2}``."""

    def add_scalars(self, metrics: dict[str, float], update: int) -> None: ...

    def close(self) -> None: ...


def open_metric_loggers(folder: Path, config: Any, wandb: WandbConfig, resumed: bool) -> list[MetricLogger]:
    """Open the metric loggers that ``training.tensorboard`` and ``training.wandb.enabled`` enable.

    They write to ``env.tensorboard_logdir`` and ``env.wandb_logdir``; by default, to ``logs`` in the run folder.

    Args:
        folder: the run folder.
        config: the complete MMF config.
        wandb: the config section ``training.wandb``.
        resumed: whether the run was resumed; W&B then appends to the existing W&B run.
    """
    loggers: list[MetricLogger] = []
    if config.training.tensorboard:
        loggers.append(TensorBoardLogger(Path(config.env.get("tensorboard_logdir") or folder / "logs")))
    if wandb.enabled:
        loggers.append(WandbLogger(folder / "logs", config, wandb, resumed))
    return loggers


def import_wandb() -> Any:
    """Import wandb.

    Raises:
        UserError: wandb is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise UserError(
            f"training.wandb.enabled is true, but wandb cannot be imported ({error}). Run `pip install wandb` or set "
            "training.wandb.enabled=false."
        ) from error


class TensorBoardLogger:
    """TensorBoard logger that wraps MMF's ``TensorboardLogger``."""

    def __init__(self, folder: Path) -> None:
        self.logger = mmf_api.TensorboardLogger(str(folder))

    def add_scalars(self, metrics: dict[str, float], update: int) -> None:
        self.logger.add_scalars(metrics, update)

    def close(self) -> None:
        if self.logger.summary_writer is not None:
            self.logger.summary_writer.close()


class WandbLogger:
    """Weights & Biases logger. The x-axis is ``update``, not W&B's step, because a resumed run may log an update again.

    Raises:
        UserError: wandb is not installed or cannot start, e.g. without a login or network.
    """

    def __init__(self, folder: Path, config: Any, wandb: WandbConfig, resumed: bool) -> None:
        module = import_wandb()
        folder.mkdir(parents=True, exist_ok=True)
        id_file = folder / "wandb_id"  # lets a resumed run append to the same W&B run
        run_id = id_file.read_text(encoding="utf-8").strip() if resumed and id_file.is_file() else None
        try:
            self.run = module.init(
                project=wandb.project,
                entity=wandb.entity,
                name=wandb.name or config.training.experiment_name,
                job_type=wandb.job_type,
                group=wandb.group,
                tags=wandb.tags or None,
                mode=wandb.mode,
                dir=config.env.get("wandb_logdir") or str(folder),
                config=to_public(config),
                id=run_id,
                resume="allow" if run_id else None,
            )
        except module.Error as error:
            raise UserError(
                f"training.wandb: W&B cannot start ({error}). Run `wandb login`, or log to the run folder with "
                "training.wandb.mode=offline."
            ) from error
        atomic.write_text(id_file, self.run.id)
        self.run.define_metric("*", step_metric="update")

    def add_scalars(self, metrics: dict[str, float], update: int) -> None:
        self.run.log({**metrics, "update": update})

    def close(self) -> None:
        self.run.finish()
