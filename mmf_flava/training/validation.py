"""Evaluation on the ``val`` split during training."""

from functools import partial

from mmf_flava.compat import mmf_api
from mmf_flava.errors import UserError
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.training.callbacks import Callbacks
from mmf_flava.training.engine import Engine
from mmf_flava.training.monitor import Monitor
from mmf_flava.training.progress import Progress
from mmf_flava.training.signals import StopSignals


class Validation:
    """Evaluates a model in training on the ``val`` split, and tells whether it is the best one so far."""

    def __init__(
        self, suite: EvaluationSuite, engine: Engine, monitor: Monitor, signals: StopSignals, callbacks: Callbacks
    ) -> None:
        self.suite, self.engine, self.monitor, self.signals, self.callbacks = suite, engine, monitor, signals, callbacks
        if monitor.patience is not None and not suite.datasets["val"]:
            raise UserError(
                f"training.early_stop.enabled: {', '.join(suite.names)} has no val split, by which training could be "
                "stopped. Add the split, or set the key to false."
            )

    def run(self, update: int, progress: Progress) -> tuple[bool, bool]:
        """Evaluate. Must be called by all processes, and returns the same on all of them.

        Args:
            update: number of completed updates.

        Returns:
            Whether the monitored metric improved, and whether a signal stopped the run.
        """
        improved = False
        self.callbacks.call("on_validation_start")
        self.engine.broadcast_buffers()
        stopped = partial(self.signals.received_by_any, self.suite.device)
        result = self.suite.run(self.engine.evaluated, "val", stopped)
        if result is not None:
            progress.write("val", result.to_record())
            mmf_api.log(f"Evaluation at update {update}: {result.format_summary()}")
            improved = self.monitor.improved(result.to_record(), update)
            self.callbacks.end_evaluation("on_validation_end", "val", result, self.suite.datasets["val"])
        progress.reset()
        return improved, result is None
