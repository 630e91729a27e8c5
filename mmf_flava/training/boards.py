"""Where the figures of ``metrics.jsonl`` go as well: TensorBoard and Weights & Biases, by MMF's switches."""

import importlib
from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import WandbConfig
from mmf_flava.errors import UserError


class Board(Protocol):
    """Takes ``{"train/losses/flava_mim": 4.2, ...}``, and the update that they were measured at."""

    def add_scalars(self, figures: dict[str, float], update: int) -> None: ...

    def close(self) -> None: ...


def open_boards(folder: Path, config: Any, wandb: WandbConfig, resumed: bool) -> list[Board]:
    """The boards that the recipe switches on: ``training.tensorboard`` and ``training.wandb.enabled``.

    Args:
        folder: the run's folder; both write to ``logs/`` there.
        config: the whole recipe.
        wandb: its section ``training.wandb``.
        resumed: the run goes on; W&B then goes on with the curves that it has.
    """
    boards: list[Board] = []
    if config.training.tensorboard:
        boards.append(TensorBoard(folder / "logs"))
    if wandb.enabled:
        boards.append(WeightsAndBiases(folder / "logs", config, wandb, resumed))
    return boards


def import_wandb() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise UserError(
            f"training.wandb.enabled is true, but wandb cannot be imported ({error}); pip install wandb, or set "
            "training.wandb.enabled=false."
        ) from error


class TensorBoard:
    """MMF's own logger."""

    def __init__(self, folder: Path) -> None:
        self.logger = mmf_api.TensorboardLogger(str(folder))

    def add_scalars(self, figures: dict[str, float], update: int) -> None:
        self.logger.add_scalars(figures, update)

    def close(self) -> None:
        if self.logger.summary_writer is not None:
            self.logger.summary_writer.close()


class WeightsAndBiases:
    """A run of W&B; curves stand over ``update``, so that updates that are done again after a restart may be logged.

    Raises:
        UserError: wandb is not installed, or does not begin, for want of a login or of a network.
    """

    def __init__(self, folder: Path, config: Any, wandb: WandbConfig, resumed: bool) -> None:
        module = import_wandb()
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / "wandb_id"  # of the run, for its next process
        known = place.read_text(encoding="utf-8").strip() if resumed and place.is_file() else None
        try:
            self.run = module.init(
                project=wandb.project,
                entity=wandb.entity,
                name=wandb.name or config.training.experiment_name,
                job_type=wandb.job_type,
                group=wandb.group,
                tags=wandb.tags or None,
                mode=wandb.mode,
                dir=str(folder),
                config=OmegaConf.to_container(config, resolve=True),
                id=known,
                resume="allow" if known else None,
            )
        except module.Error as error:
            raise UserError(
                f"training.wandb: W&B does not begin ({error}); run `wandb login`, or log to the run's folder with "
                "training.wandb.mode=offline."
            ) from error
        place.write_text(self.run.id, encoding="utf-8")
        self.run.define_metric("*", step_metric="update")

    def add_scalars(self, figures: dict[str, float], update: int) -> None:
        self.run.log({**figures, "update": update})

    def close(self) -> None:
        self.run.finish()
