"""Selection of the best checkpoint by MMF's keys ``training.early_stop.criteria`` and ``minimize``."""

import math
from typing import Any

from mmf_flava.config.run import EvaluationConfig
from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError

TOTAL = "total_loss"


class Monitor:
    """Tracks the best value of one metric on the ``val`` split.

    Args:
        criteria: ``total_loss``, the sum of all losses, or a metric as named in ``metrics.jsonl``, e.g.
            ``losses/flava_mim``, ``zero_shot/accuracy`` or ``retrieval/text_to_image_r1``. MMF's prefix ``val/`` is
            optional.
        minimize: True for losses, False for all other metrics.
        losses: names of the losses in the config.
        evaluation: the config section ``evaluation``.

    Raises:
        UserError: the evaluation does not compute the metric, or ``minimize`` has the wrong value for it.
    """

    def __init__(self, criteria: str, minimize: bool, losses: list[str], evaluation: EvaluationConfig) -> None:
        self.criteria, self.minimize = criteria.removeprefix("val/"), minimize
        self.value: float | None = None
        known = _available_metrics(losses, evaluation)
        if self.criteria not in known:
            raise UserError(
                f"training.early_stop.criteria: the evaluation of this recipe does not compute '{self.criteria}'."
                f"{suggestion(self.criteria, known)}"
            )
        if minimize != known[self.criteria]:
            raise UserError(
                f"training.early_stop.minimize is {str(minimize).lower()}, which would keep the checkpoint with "
                f"the worst {self.criteria}. Set it to {str(not minimize).lower()}."
            )

    def improved(self, metrics: dict[str, Any]) -> bool:
        """Update the best value and return whether the metric improved. A missing or NaN value is no improvement.

        Args:
            metrics: ``SplitResult.to_record()`` of an evaluation.
        """
        if self.criteria == TOTAL:
            value = sum(metrics["losses"].values()) if metrics["losses"] else math.nan
        else:
            section, _, name = self.criteria.partition("/")
            value = metrics.get(section, {}).get(name, math.nan)
        if math.isnan(value):
            return False
        better = self.value is None or (value < self.value if self.minimize else value > self.value)
        if better:
            self.value = value
        return better

    def state_dict(self) -> dict[str, Any]:
        """Return the criterion and its best value so far, to be saved in a checkpoint."""
        return {"criteria": self.criteria, "value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the best value from a checkpoint, unless the checkpoint was saved with another ``criteria``."""
        if state["criteria"] == self.criteria:
            self.value = state["value"]


def _available_metrics(losses: list[str], evaluation: EvaluationConfig) -> dict[str, bool]:
    """Return the metrics that the evaluation computes, each mapped to True if lower is better."""
    known = {TOTAL: True, **{f"losses/{name}": True for name in losses}}
    if evaluation.zero_shot is not None:
        known["zero_shot/accuracy"] = False
    if evaluation.retrieval is not None:
        for prefix in ("", "reranked_")[: 2 if evaluation.retrieval.rerank else 1]:
            for k in evaluation.retrieval.recall_at:
                known |= {f"retrieval/{prefix}{name}_r{k}": False for name in ("image_to_text", "text_to_image")}
    return known
