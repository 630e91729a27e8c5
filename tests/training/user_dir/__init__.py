"""A user's own code, ``env.user_dir``: the callback ``recorder`` writes down all that it is told."""

import json
import os
import signal
from typing import Any

from mmf.common.registry import registry
from mmf.trainers.callbacks.base import Callback

EVENTS = [name for name in vars(Callback) if name.startswith("on_")] + ["teardown"]


@registry.register_callback("recorder")
class Recorder(Callback):
    """Appends a JSON line for each event to ``<file>.<rank>``.

    Args:
        file: where to.
        spoil: the update's attempt, from 1, in which the weights are NaN.
        stop: the update after which the process sends itself SIGTERM.
    """

    def __init__(self, config: Any, trainer: Any, file: str, spoil: int = 0, stop: int = 0) -> None:
        super().__init__(config, trainer)
        self.file, self.spoil, self.stop, self.attempts = f"{file}.{os.environ.get('RANK', 0)}", spoil, stop, 0
        self.weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        self.good = [weight.detach().clone() for weight in self.weights] if spoil else []
        for event in EVENTS:
            setattr(self, event, self._listener(event))

    def _listener(self, event: str) -> Any:
        def listen(**what: Any) -> None:
            self._write(event, **what)
            if event == "on_update_start":
                self._spoil()
            if event == "on_update_end" and self.trainer.num_updates == self.stop:
                os.kill(os.getpid(), signal.SIGTERM)

        return listen

    def _spoil(self) -> None:
        self.attempts += 1
        for weight, good in zip(self.weights, self.good, strict=False):
            if self.attempts == self.spoil:
                weight.data.fill_(float("nan"))
            elif self.attempts == self.spoil + 1:
                weight.data.copy_(good)

    def _write(self, event: str, report: Any = None, meter: Any = None, should_log: bool | None = None) -> None:
        trainer = self.trainer
        line = {"event": event, "update": trainer.num_updates, "iteration": trainer.current_iteration}
        if report is not None:
            line["report"] = {"losses": {name: loss.mean().item() for name, loss in report.losses.items()}}
            line["report"] |= {"size": report.batch_size, "of": [report.dataset_name, report.dataset_type]}
        if meter is not None:
            line["meter"] = {name: float(value.get_latest()) for name, value in meter.meters.items()}
        if should_log is not None:
            line |= {"should_log": should_log, "lr": trainer.optimizer.param_groups[0]["lr"]}
        with open(self.file, "a") as file:
            file.write(json.dumps(line) + "\n")
