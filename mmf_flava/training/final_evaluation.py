"""Evaluation of the splits of ``run_type``: metrics or predictions, examples, report and summary."""

import time
from collections.abc import Callable
from typing import Any

from mmf_flava.compat import mmf_api
from mmf_flava.errors import UserError
from mmf_flava.evaluation.split_result import SplitResult
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.processes import rank
from mmf_flava.training.callbacks import Callbacks
from mmf_flava.training.results import Results

# split -> parts of ``run_type`` that select it, as in MMF
SPLITS = {"val": ("val",), "test": ("test", "inference", "predict")}


class FinalEvaluation:
    """Evaluates a model on the splits of ``run_type``, or predicts with ``evaluation.predict``, as MMF does.

    All processes take part. Only the first process writes files.

    Args:
        config: the complete MMF config.
    """

    def __init__(self, suite: EvaluationSuite, results: Results, config: Any, callbacks: Callbacks) -> None:
        self.suite, self.results, self.config, self.callbacks = suite, results, suite.config, callbacks
        self.splits = [split for split, names in SPLITS.items() if any(name in config.run_type for name in names)]
        self.run_type, self.predicts = str(config.run_type), config.evaluation.predict

    def check(self, model: Any) -> None:
        """Raise UserError if a split that ``run_type`` names has no data, or if the run cannot predict."""
        if missing := [split for split in SPLITS if split in self.run_type and not self.suite.datasets[split]]:
            raise UserError(
                f"dataset_config: the split {missing[0]} of {', '.join(self.suite.names)} has no data, but run_type "
                f"{self.run_type} uses it. List the split's files, or set another run_type."
            )
        if not self.predicts or self.config.zero_shot is not None:
            return
        if self.splits and not any(self.suite.predicted(model, split) for split in self.splits):
            raise UserError(
                f"evaluation.predict: {', '.join(self.suite.names)} has no predictions (method format_for_prediction), "
                "and evaluation.zero_shot, whose predictions can be written too, is not set. Set evaluation.zero_shot, "
                "or set evaluation.predict: false."
            )

    def evaluate_trained(self, model: Any, update: int, summarise: Callable[[float], None]) -> None:
        """Evaluate a model after training, and write examples and the summary.

        Args:
            update: number of updates that the model was trained for.
            summarise: called on all processes with the duration of the evaluation in seconds.
        """
        started = time.perf_counter()
        evaluated = self._run(model)
        if self.config.examples is not None and "test" in self.splits:
            self.results.write_examples(model, self.suite, self.config.examples, silent=rank() > 0)
        if self.config.attention_maps is not None and "test" in self.splits:
            self.results.write_attention_maps(model, self.suite, self.config.attention_maps, silent=rank() > 0)
        summarise(time.perf_counter() - started)
        self._write(evaluated, update)

    def evaluate_loaded(self, model: Any, update: int) -> None:
        """Evaluate a loaded model without training.

        Args:
            update: number of updates that the model was trained for.
        """
        self._write(self._run(model), update)

    def _run(self, model: Any) -> dict[str, SplitResult]:
        """Evaluate or predict, and return the results by split; predictions are written immediately."""
        evaluated = {}
        for split in self.splits:
            if self.predicts:
                self._predict(model, split)
                continue
            self.callbacks.call("on_test_start")
            result = self.suite.run(model, split)
            assert result is not None  # only validations are stopped
            self.callbacks.end_evaluation("on_test_end", split, result, self.suite.datasets[split])
            evaluated[split] = result
        return evaluated

    def _predict(self, model: Any, split: str) -> None:
        self.callbacks.call("on_prediction_start")
        zero_shot, predictions = self.suite.classify(model, split), self.suite.predict(model, split)
        if rank() == 0:
            if zero_shot is not None:
                mmf_api.log(f"Wrote {self.results.write_zero_shot_predictions(split, zero_shot.prediction_rows())}")
            for name, rows in predictions.items():
                mmf_api.write_predictions(self.suite.datasets[split][name], split, rows)
        self.callbacks.call("on_prediction_end")

    def _write(self, evaluated: dict[str, SplitResult], update: int) -> None:
        if rank() > 0:
            return
        scored = {split: result for split, result in evaluated.items() if result.has_scores}
        for split, result in scored.items():
            self.results.write_evaluation(split, update, result, self.config.task, is_last=split == [*scored][-1])
        for message in self.results.summary_lines(scored):
            mmf_api.log(message)
