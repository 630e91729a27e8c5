"""Where a run is: what its checkpoints hold beside the weights, collected from its parts and given back to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmf_flava
from mmf_flava.ranks import gather_objects, rank, wait_for_all
from mmf_flava.training.checkpoint import Gathered, load_state, restore_rng, rng_state
from mmf_flava.training.checkpoint_folder import CheckpointFolder
from mmf_flava.training.guard import LossGuard
from mmf_flava.training.monitor import Monitor
from mmf_flava.training.results import Results
from mmf_flava.training.run_data import RunData
from mmf_flava.training.update import Updater


@dataclass
class RunState:
    """The parts of a run that change while it trains."""

    updater: Updater
    data: RunData
    monitor: Monitor
    guard: LossGuard
    results: Results

    def save(self, checkpoints: CheckpointFolder, update: int, seconds: float, sizes: Any, best: bool) -> None:
        """Saves all of it and the weights, with the model's ``sizes``; every process must call it."""
        state = {
            "seconds": seconds,
            **self.updater.schedule_state(),
            "loader": self.data.loader.state_dict(),
            "losses": [self.results.first_losses, self.results.last_losses],
            "best": self.monitor.state_dict(),
            "guard": self.guard.state_dict(),
            "rng": gather_objects(rng_state()),
            "vocabularies": self.data.vocabularies,
            "version": mmf_flava.__version__,
        }
        model = Gathered(self.updater.model_state(), sizes)
        optimizer = Gathered(self.updater.state_dict())
        if rank() == 0:
            checkpoints.save(update, model, optimizer, state, best)
        wait_for_all()

    def resume(self, path: Path, reset: Any) -> tuple[int, float]:
        """Goes on from the checkpoint at ``path`` and returns its update and training time in seconds.

        ``reset`` is MMF's section ``checkpoint.reset``: what begins anew instead; ``counts`` is all but the optimizer.

        Raises:
            UserError: the checkpoint was trained with other vocabularies than the recipe's.
        """
        state = load_state(path, None if reset.optimizer else self.updater)
        self.data.check_vocabularies(state.get("vocabularies", {}), path)
        if reset.counts:
            return 0, 0.0
        self.updater.restore_schedule(state)
        self.data.loader.load_state_dict(state["loader"])
        self.monitor.load_state_dict(state["best"])
        self.guard.load_state_dict(state["guard"])
        self.results.first_losses, self.results.last_losses = state["losses"]
        if rank() < len(state["rng"]):  # a process that the saved run did not have starts with its own
            restore_rng(state["rng"][rank()])
        return state["update"], state["seconds"]
