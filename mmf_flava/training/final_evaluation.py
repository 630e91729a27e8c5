"""Evaluation at the end of a run: metrics, examples, predictions, report and summary."""

import time
from collections.abc import Callable
from typing import Any

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import EvaluationConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.suite import EvaluationSuite, SplitResult
from mmf_flava.processes import rank
from mmf_flava.training.results import Results


class FinalEvaluation:
    """Evaluates a model and writes the results to the run folder. Only the first process writes files."""

    def __init__(self, suite: EvaluationSuite, results: Results, config: EvaluationConfig) -> None:
        self.suite, self.results, self.config = suite, results, config

    def evaluate_trained(self, model: Any, update: int, summarise: Callable[[float], None]) -> SplitResult:
        """Evaluate on the test split after training.

        Args:
            update: number of updates that the model was trained for.
            summarise: called with the duration of the evaluation in seconds.
        """
        started = time.perf_counter()
        result = self.suite.run(model, "test")
        if self.config.examples is not None:
            self.results.write_examples(model.eval(), self.suite, self.config.examples, silent=rank() > 0)
        if rank() == 0:
            summarise(time.perf_counter() - started)
            self._write_results(result, "test", update)
        return result

    def evaluate_loaded(self, model: Any, split: str, update: int, predicts: bool) -> SplitResult:
        """Evaluate a loaded model on a split without training.

        Args:
            update: number of updates that the model was trained for.
            predicts: write zero-shot predictions instead of metrics.

        Raises:
            UserError: ``predicts`` is set, but ``evaluation.zero_shot`` is not.
        """
        if predicts and self.config.zero_shot is None:
            raise UserError(
                "evaluation.predict: true writes zero-shot predictions, but evaluation.zero_shot is not set. Set "
                "evaluation.zero_shot, or set evaluation.predict: false."
            )
        result = self.suite.run(model, split)
        if rank() == 0:
            if predicts and result.zero_shot is not None:
                mmf_api.log(f"Wrote {self.results.write_predictions(split, result.zero_shot.prediction_rows())}")
            else:
                self._write_results(result, split, update)
        return result

    def _write_results(self, result: SplitResult, split: str, update: int) -> None:
        self.results.write_evaluation(split, update, result, self.config.task)
        for message in self.results.summary_lines(split, result):
            mmf_api.log(message)
