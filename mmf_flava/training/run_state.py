"""The state of a run: everything that a checkpoint stores in addition to the weights."""

from dataclasses import dataclass
from pathlib import Path

import torch

import mmf_flava
from mmf_flava.compat import mmf_api
from mmf_flava.config.run import EvaluationConfig, ResetConfig
from mmf_flava.files.checkpoint_names import BEST, parse_name, read_pointer
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.processes import gather_objects, rank, wait_for_all
from mmf_flava.report.values import as_int, read_json
from mmf_flava.training.checkpoint import GatheredState, load_state, restore_rng, rng_state
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.finite import raise_not_finite
from mmf_flava.training.guard import UpdateGuard
from mmf_flava.training.identity import IDENTITY, RunIdentity
from mmf_flava.training.model_interface import metadata
from mmf_flava.training.monitor import Monitor
from mmf_flava.training.results import Results
from mmf_flava.training.run_data import RunData
from mmf_flava.training.update import Updater
from mmf_flava.weights.weight_files import find_checkpoint


def evaluated_update(checkpoint: Path | None, resume_file: str | None) -> int:
    """Return the number of updates of the model that a run without training evaluates; 0 if it is not known.

    Args:
        checkpoint: the loaded checkpoint.
        resume_file: ``checkpoint.resume_file``, whose weights are loaded if ``checkpoint`` is None.
    """
    path = checkpoint or (find_checkpoint(Path(resume_file).expanduser()) if resume_file else None)
    state = None if path is None else read_json(path / "state.json")
    return as_int((state or {}).get("update")) or 0


@dataclass
class RunState:
    """The stateful components of a training run."""

    updater: Updater
    data: RunData
    monitor: Monitor
    guard: UpdateGuard
    results: Results
    identity: RunIdentity

    def save(self, checkpoints: CheckpointFolder, update: int, seconds: float, best: bool) -> None:
        """Save a checkpoint. Must be called by all processes.

        Args:
            seconds: training time so far in seconds.
            best: mark the checkpoint as the best one.

        Raises:
            UserError: the weights, buffers or optimizer state of a process contain NaN or infinity. Nothing is written.
        """
        weights, moments = self.updater.model_state(), self.updater.state_dict()
        averages = self.updater.average_state()
        find = self.updater.finite_check.find
        bad_tensors = gather_objects(find(weights, moments) or find(averages, {}))
        if any(bad_tensors):
            raise_not_finite(checkpoints.folder, update, bad_tensors)
        state = {
            "seconds": seconds,
            **self.updater.schedule_state(),
            "loader": self.data.loader.state_dict(),
            "losses": [self.results.first_losses, self.results.last_losses],
            "best": self.monitor.state_dict(),
            "guard": self.guard.state_dict(),
            "rng": gather_objects(rng_state()),
            "version": mmf_flava.__version__,
            IDENTITY: self.identity.to_json(),
        }
        if rank() == 0:
            model = GatheredState(weights, metadata(self.updater.engine.model))
            optimizer = GatheredState(moments)
            checkpoints.save(update, model, optimizer, state, best, self.data.processors, averages)
        wait_for_all()

    def load_evaluated(self, checkpoints: CheckpointFolder, update: int, evaluation: EvaluationConfig) -> int:
        """Load the weights that ``evaluation.weights`` selects for the final evaluation, and return their update.

        Must be called by all processes.

        Args:
            update: the last update, whose weights the model has.
        """
        best = self.monitor.update
        if evaluation.weights == "last" or self.monitor.value is None or best == update:
            return update
        path = gather_objects(read_pointer(checkpoints.folder / BEST) if rank() == 0 else None)[0]
        if path is None or parse_name(path)[0] != best:  # it was removed, or is the best by another criteria
            mmf_api.log(
                f"Warning: the best checkpoint by {self.monitor.criteria} is missing. Evaluating the last weights."
            )
            return update
        mmf_api.log(f"Evaluating the best checkpoint by {self.monitor.criteria}, {path}")
        self.updater.load_model_state(path, evaluation.ema)
        return best

    def resume(self, path: Path, reset: ResetConfig) -> tuple[int, float]:
        """Restore the state from a checkpoint, with which ``identity`` has been compared.

        Args:
            path: the checkpoint's folder.
            reset: ``optimizer`` resets the optimizer, ``counts`` resets all other state.

        Returns:
            The checkpoint's number of updates and training time in seconds; zeros with ``reset.counts``.
        """
        self.identity.log_changes(path)
        remedy = "Resume from another checkpoint, or set checkpoint.reset."
        with damaged_file(path, "checkpoint of this recipe", remedy, (torch.OutOfMemoryError,)):
            return self._resume(path, reset)

    def _resume(self, path: Path, reset: ResetConfig) -> tuple[int, float]:
        state = load_state(path, None if reset.optimizer else self.updater)
        self.updater.load_average_state(path)
        if reset.counts:
            return 0, 0.0
        self.updater.load_schedule_state({**state, "precision": {}} if reset.fp16_scaler else state)
        if not self.identity.new_data:
            self.data.loader.load_state_dict(state["loader"])
        # the best checkpoint of another run is in the folder of that run
        is_own = path.parent.resolve() == (self.results.folder / "checkpoints").resolve()
        self.monitor.load_state_dict(state["best"] if is_own else {}, state["update"])
        self.guard.load_state_dict(state["guard"])
        self.results.first_losses, self.results.last_losses = state["losses"]
        # a checkpoint of a run with fewer processes has no state for the additional processes
        if rank() < len(state["rng"]):
            restore_rng(state["rng"][rank()])
        return state["update"], state["seconds"]
