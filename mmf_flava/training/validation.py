"""Evaluation on the ``val`` split during training."""

from functools import partial

from mmf_flava.compat import mmf_api
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.processes import gather_objects, rank
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

    @property
    def takes_part(self) -> bool:
        """Whether this process takes part in evaluations: only the first process, or all if weights are sharded."""
        return rank() == 0 or self.engine.all_ranks_evaluate

    def run(self, update: int, progress: Progress) -> tuple[bool, bool]:
        """Evaluate. Must be called by all processes.

        Args:
            update: number of completed updates.

        Returns:
            Whether the monitored metric improved, and whether a signal stopped the run.
        """
        improved = stopping = False
        result = None
        self.callbacks.call("on_validation_start")
        if self.takes_part:
            evaluate = partial(self.suite.run, self.engine.evaluated, "val")
            collective = self.engine.all_ranks_evaluate
            result = evaluate() if collective else self.signals.run_unless_stopped(evaluate)
            stopping = result is None
            if result is not None:
                progress.write("val", result.to_record())
                mmf_api.log(f"Evaluation at update {update}: {result.format_summary()}")
                improved = self.monitor.improved(result.to_record(), update)
        self.callbacks.end_evaluation("on_validation_end", "val", result, self.suite.datasets["val"])
        progress.reset()
        return gather_objects((improved, stopping))[0]
