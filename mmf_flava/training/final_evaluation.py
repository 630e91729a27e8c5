"""What a finished model is worth: its figures on a split, its examples and predictions, the report, the last lines."""

import time
from collections.abc import Callable
from typing import Any

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import EvaluationConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.suite import EvaluationSuite, SplitResult
from mmf_flava.ranks import rank
from mmf_flava.training.results import Results


class FinalEvaluation:
    """Evaluates, and leaves what it finds in the run's folder: all processes that call it compute, the first writes."""

    def __init__(self, suite: EvaluationSuite, results: Results, config: EvaluationConfig) -> None:
        self.suite, self.results, self.config = suite, results, config

    def of_trained(self, model: Any, update: int, summarise: Callable[[float], None]) -> SplitResult:
        """The model on the test split after training; ``summarise`` is told the seconds that it took."""
        began = time.perf_counter()
        result = self.suite.run(model, "test")
        if self.config.examples is not None:
            self.results.write_examples(model.eval(), self.suite, self.config.examples, silent=rank() > 0)
        if rank() == 0:
            summarise(time.perf_counter() - began)
            self._finish(result, "test", update)
        return result

    def of_loaded(self, model: Any, split: str, update: int, predicts: bool) -> SplitResult:
        """The model on a split, without training; ``predicts``: leaves its zero-shot predictions instead of figures.

        Raises:
            UserError: the recipe has nothing to predict with.
        """
        if predicts and self.config.zero_shot is None:
            raise UserError("evaluation.predict writes zero-shot predictions; give the recipe an evaluation.zero_shot.")
        result = self.suite.run(model, split)
        if rank() == 0:
            if predicts and result.zero_shot is not None:
                mmf_api.log(f"Wrote {self.results.write_predictions(split, result.zero_shot.rows())}")
            else:
                self._finish(result, split, update)
        return result

    def _finish(self, result: SplitResult, split: str, update: int) -> None:
        self.results.write_evaluation(split, update, result, self.config.task)
        for line in self.results.closing_lines(split, result):
            mmf_api.log(line)
