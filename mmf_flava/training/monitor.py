"""Which checkpoint is the best: MMF's own keys ``training.early_stop.criteria`` and ``minimize``."""

import math
from typing import Any

from mmf_flava.config.run import EvaluationConfig
from mmf_flava.config.schema import near_miss
from mmf_flava.errors import UserError

TOTAL = "total_loss"


class Monitor:
    """Compares evaluations of the ``val`` split by one figure.

    Args:
        criteria: ``total_loss``, the sum of all losses, or a figure as ``metrics.jsonl`` has it: ``losses/flava_mim``,
            ``zero_shot/accuracy``, ``retrieval/text_to_image_r1``. MMF's prefix ``val/`` may stand before it.
        minimize: True for losses, False for the rest.
        losses: names of the recipe's losses.
        evaluation: the recipe's section.

    Raises:
        UserError: a figure that this recipe does not compute, or one whose worst value would be kept.
    """

    def __init__(self, criteria: str, minimize: bool, losses: list[str], evaluation: EvaluationConfig) -> None:
        self.criteria, self.minimize = criteria.removeprefix("val/"), minimize
        self.value: float | None = None
        known = _known(losses, evaluation)
        if self.criteria not in known:
            raise UserError(
                f"training.early_stop.criteria: '{self.criteria}' is not computed by this recipe's evaluation."
                f"{near_miss(self.criteria, known)}"
            )
        if minimize != known[self.criteria]:
            raise UserError(
                f"training.early_stop.minimize is {str(minimize).lower()}, which would keep the worst "
                f"{self.criteria}; set it to {str(not minimize).lower()}."
            )

    def improved(self, figures: dict[str, Any]) -> bool:
        """Whether these (``SplitResult.figures``) are the best so far; an empty split or NaN never is."""
        if self.criteria == TOTAL:
            value = sum(figures["losses"].values()) if figures["losses"] else math.nan
        else:
            section, _, name = self.criteria.partition("/")
            value = figures.get(section, {}).get(name, math.nan)
        if math.isnan(value):
            return False
        better = self.value is None or (value < self.value if self.minimize else value > self.value)
        if better:
            self.value = value
        return better

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"criteria": self.criteria, "value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint; begins anew where that was chosen by another figure."""
        if state["criteria"] == self.criteria:
            self.value = state["value"]


def _known(losses: list[str], evaluation: EvaluationConfig) -> dict[str, bool]:
    """The figures that a recipe's evaluation has, and whether less is better."""
    known = {TOTAL: True, **{f"losses/{name}": True for name in losses}}
    if evaluation.zero_shot is not None:
        known["zero_shot/accuracy"] = False
    if evaluation.retrieval is not None:
        for ranked in ("", "reranked_")[: 2 if evaluation.retrieval.rerank else 1]:
            for k in evaluation.retrieval.recall_at:
                known |= {f"retrieval/{ranked}{name}_r{k}": False for name in ("image_to_text", "text_to_image")}
    return known
