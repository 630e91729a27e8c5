"""Patches of MMF's training loops: data loading, anomaly detection, early stopping and checkpoints."""

import inspect
from types import SimpleNamespace
from typing import Any

from mmf_flava.compat.patch import overlay, patch, source_contains, wrap


@patch(
    "mmf.datasets.multi_dataset_loader",
    what="with several datasets, each epoch starts with new iterators",
    why="MultiDatasetLoader keeps its exhausted iterators: the second epoch has no batches, and training hangs",
    since="MMF 1.0.0rc1",
    until="MultiDatasetLoader.__iter__ clears its state",
    needed=lambda module: "_finished_iterators" not in inspect.getsource(module.MultiDatasetLoader.__iter__),
)
def fresh_iterators(module: Any) -> None:
    @wrap(module.MultiDatasetLoader, "__iter__")
    def __iter__(original: Any, self: Any) -> Any:
        self._iterators, self._finished_iterators, self._used_once = [], {}, {}
        return original(self)


@patch(
    "mmf.trainers.base_trainer",
    what="anomaly detection is disabled unless the user enables it",
    why="train() calls torch.autograd.set_detect_anomaly(True), a debugging tool that slows down every backward pass",
    since="MMF 1.0.0rc1",
    until="MMF makes anomaly detection an option",
    needed=source_contains("set_detect_anomaly(True)", "BaseTrainer.train"),
)
def no_anomaly_detection(module: Any) -> None:
    import torch

    # torch is replaced in this module only, so that torch.autograd.detect_anomaly() works in users' code
    autograd = overlay(torch.autograd, set_detect_anomaly=lambda mode, check_nan=True: None)
    module.torch = overlay(torch, autograd=autograd)


@patch(
    "mmf.utils.early_stopping",
    what="a resumed run restores the number of the update with the best metric value",
    why="MMF restores only the best value: patience is counted from update 0, and a resumed run stops immediately",
    since="MMF 1.0.0rc1",
    until="EarlyStopping.init_from_checkpoint reads best_update",
    needed=lambda module: "best_update" not in inspect.getsource(module.EarlyStopping.init_from_checkpoint),
)
def patience(module: Any) -> None:
    @wrap(module.EarlyStopping, "init_from_checkpoint")
    def init_from_checkpoint(original: Any, self: Any, load: Any) -> None:
        original(self, load)
        self.best_monitored_update = load.get("best_update", self.best_monitored_update)


@patch(
    "mmf.utils.checkpoint",
    what="checkpoint.max_to_keep counts a checkpoint once if it is saved twice after the same update",
    why="if an evaluation and a checkpoint follow the same update, MMF deletes the checkpoint that it has just written",
    since="MMF's main branch of 2020",
    until="Checkpoint.save looks for the update in saved_iterations",
    needed=source_contains("self.saved_iterations.append", "Checkpoint.save"),
)
def kept_once(module: Any) -> None:
    @wrap(module.Checkpoint, "save")
    def save(original: Any, self: Any, update: int, *args: Any, **kwargs: Any) -> None:
        if update in self.saved_iterations:
            self.saved_iterations.remove(update)
        original(self, update, *args, **kwargs)


@patch(
    "mmf.utils.early_stopping",
    what="early stopping does not restore the best weights; the trainer restores them after training",
    why="only the first process calls restore, which waits for the other processes, while these are still evaluating",
    since="MMF 1.0.0rc1",
    until="EarlyStopping.__call__ does not call restore",
    needed=source_contains("self.checkpoint.restore()", "EarlyStopping.__call__"),
)
def no_early_restore(module: Any) -> None:
    @wrap(module.EarlyStopping, "__call__")
    def __call__(original: Any, self: Any, update: int, iteration: int, meter: Any) -> bool:
        checkpoint = self.checkpoint
        self.checkpoint = SimpleNamespace(save=checkpoint.save, restore=lambda: None, finalize=lambda: None)
        try:
            return original(self, update, iteration, meter)
        finally:
            self.checkpoint = checkpoint
