"""Defects of MMF's own training loops, of either line, that would hurt any model."""

from __future__ import annotations

import inspect
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

from mmf_flava.compat.cure import cure, shadow, source_has
from mmf_flava.errors import UserError


@cure(
    "mmf.datasets.multi_dataset_loader",
    when="after",
    what="each pass over several datasets starts afresh",
    why="MultiDatasetLoader keeps its finished iterators: the second epoch yields nothing and training spins for ever",
    since="MMF 1.0.0rc1",
    until="MultiDatasetLoader.__iter__ clears its state",
    needed=lambda module: "_finished_iterators" not in inspect.getsource(module.MultiDatasetLoader.__iter__),
)
def fresh_iterators(module: ModuleType) -> None:
    iterate = module.MultiDatasetLoader.__iter__

    def __iter__(self: Any) -> Any:
        self._iterators, self._finished_iterators, self._used_once = [], {}, {}
        return iterate(self)

    module.MultiDatasetLoader.__iter__ = __iter__


@cure(
    "mmf.trainers.base_trainer",
    when="after",
    what="anomaly detection is off unless the user turns it on",
    why="train() calls torch.autograd.set_detect_anomaly(True): a debugging aid that slows every backward pass",
    since="MMF 1.0.0rc1",
    until="MMF makes it an option",
    needed=source_has("set_detect_anomaly(True)", "BaseTrainer.train"),
)
def no_anomaly_detection(module: ModuleType) -> None:
    import torch

    # only this file's view of torch changes: a user's own torch.autograd.detect_anomaly() still works
    autograd = shadow(torch.autograd, set_detect_anomaly=lambda mode, check_nan=True: None)
    vars(module)["torch"] = shadow(torch, autograd=autograd)


@cure(
    "mmf.utils.early_stopping",
    when="after",
    what="a resumed run knows at which update it was best",
    why="only the best value is restored: patience is counted from update 0, and a resumed run stops at once",
    since="MMF 1.0.0rc1",
    until="EarlyStopping.init_from_checkpoint reads best_update",
    needed=lambda module: "best_update" not in inspect.getsource(module.EarlyStopping.init_from_checkpoint),
)
def patience(module: ModuleType) -> None:
    init = module.EarlyStopping.init_from_checkpoint

    def init_from_checkpoint(self: Any, load: Any) -> None:
        init(self, load)
        self.best_monitored_update = load.get("best_update", self.best_monitored_update)

    module.EarlyStopping.init_from_checkpoint = init_from_checkpoint


@cure(
    "mmf.utils.checkpoint",
    when="after",
    what="checkpoint.max_to_keep counts a checkpoint once that is saved twice at one update",
    why="where evaluation_interval and checkpoint_interval meet, MMF removes the file that it has just written",
    since="MMF's main branch of 2020",
    until="Checkpoint.save looks for the update in saved_iterations",
    needed=source_has("self.saved_iterations.append", "Checkpoint.save"),
)
def kept_once(module: ModuleType) -> None:
    save = module.Checkpoint.save

    def save_once(self: Any, update: int, *args: Any, **kwargs: Any) -> None:
        if update in self.saved_iterations:
            self.saved_iterations.remove(update)
        save(self, update, *args, **kwargs)

    module.Checkpoint.save = save_once


@cure(
    "mmf.utils.early_stopping",
    when="after",
    what="early stopping leaves it to the trainer to bring the best weights back",
    why="the first process alone waits for all others amid the evaluation; the trainer restores them anyway",
    since="MMF 1.0.0rc1",
    until="EarlyStopping.__call__ does not call restore",
    needed=source_has("self.checkpoint.restore()", "EarlyStopping.__call__"),
)
def no_early_restore(module: ModuleType) -> None:
    call = module.EarlyStopping.__call__

    def __call__(self: Any, update: int, iteration: int, meter: Any) -> bool:
        checkpoint = self.checkpoint
        self.checkpoint = SimpleNamespace(save=checkpoint.save, restore=lambda: None, finalize=lambda: None)
        try:
            return call(self, update, iteration, meter)
        finally:
            self.checkpoint = checkpoint

    module.EarlyStopping.__call__ = __call__


@cure(
    "mmf.trainers.core.training_loop",
    when="after",
    what="silence about torch.cuda.amp in MMF's trainer",
    why="a newcomer can do nothing about these warnings, two at every start",
    since="torch 2.4",
    until="MMF takes autocast and GradScaler from torch.amp",
    needed=source_has("torch.cuda.amp", "TrainerTrainingLoopMixin._forward"),
)
def former_amp(_: ModuleType) -> None:
    outdated = r"`torch\.cuda\.amp\.(autocast|GradScaler)"
    warnings.filterwarnings("ignore", message=outdated, category=FutureWarning, module=r"mmf\.trainers")


@cure(
    "mmf.trainers.mmf_trainer",
    when="after",
    what="training.fp16 without CUDA is refused in a sentence",
    why="MMF ends with the traceback of an assertion",
    since="MMF's main branch of 2021",
    until="MMF tells users' mistakes from its own",
    needed=source_has("fp16 cannot be used on cpu", "MMFTrainer.load_fp16_scaler"),
)
def fp16_without_cuda(module: ModuleType) -> None:
    load = module.MMFTrainer.load_fp16_scaler

    def load_fp16_scaler(self: Any) -> None:
        if self.training_config.fp16 and self.device == module.torch.device("cpu"):
            raise UserError("training.fp16 needs CUDA, and this run is on the CPU: leave training.fp16 out.")
        load(self)

    module.MMFTrainer.load_fp16_scaler = load_fp16_scaler
