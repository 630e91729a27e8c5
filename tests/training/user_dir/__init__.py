"""Code of a user (``env.user_dir``): the callback ``recorder`` records all events."""

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
        file: prefix of the output files.
        nan_attempt: attempt of an update, counted from 1, in which the weights are NaN; 0: none.
        stop: the update after which the process sends itself SIGTERM; 0: none.
    """

    def __init__(self, config: Any, trainer: Any, file: str, nan_attempt: int = 0, stop: int = 0) -> None:
        super().__init__(config, trainer)
        self.file = f"{file}.{os.environ.get('RANK', 0)}"
        self.nan_attempt, self.stop, self.attempts = nan_attempt, stop, 0
        self.weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
        self.initial = [weight.detach().clone() for weight in self.weights] if nan_attempt else []
        for event in EVENTS:
            setattr(self, event, self._listener(event))

    def _listener(self, event: str) -> Any:
        def listen(**arguments: Any) -> None:
            self._write(event, **arguments)
            if event == "on_update_start":
                self._set_weights()
            if event == "on_update_end" and self.trainer.num_updates == self.stop:
                os.kill(os.getpid(), signal.SIGTERM)

        return listen

    def _set_weights(self) -> None:
        self.attempts += 1
        for weight, initial in zip(self.weights, self.initial, strict=False):
            if self.attempts == self.nan_attempt:
                weight.data.fill_(float("nan"))
            elif self.attempts == self.nan_attempt + 1:
                weight.data.copy_(initial)

    def _write(self, event: str, report: Any = None, meter: Any = None, should_log: bool | None = None) -> None:
        trainer = self.trainer
        record = {"event": event, "update": trainer.num_updates, "iteration": trainer.current_iteration}
        if report is not None:
            record["report"] = {"losses": {name: loss.mean().item() for name, loss in report.losses.items()}}
            record["report"] |= {"size": report.batch_size, "of": [report.dataset_name, report.dataset_type]}
        if meter is not None:
            record["meter"] = {name: float(value.get_latest()) for name, value in meter.meters.items()}
        if should_log is not None:
            record |= {"should_log": should_log, "lr": trainer.lr}
        with open(self.file, "a") as file:
            file.write(json.dumps(record) + "\n")
