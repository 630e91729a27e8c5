"""Selection of the best checkpoint and early stopping, by MMF's keys ``training.early_stop.*``."""

import math
from collections.abc import Mapping
from typing import Any

from mmf_flava.config.criteria import TOTAL, check_criteria, known_criteria, unknown_criteria
from mmf_flava.errors import UserError


class Monitor:
    """Tracks the best value of one criteria on the ``val`` split, and when it was reached.

    Attributes:
        averages: whether the values are of averaged weights (``evaluation.ema``).

    Args:
        criteria: ``total_loss``, the sum of all losses; a value named as in ``metrics.jsonl``, e.g.
            ``metrics/roc_auc`` or ``zero_shot/accuracy``; or a loss or metric named as in MMF, ``DATASET/NAME``. MMF's
            prefix ``val/`` is optional.
        minimize: whether a lower value is better.
        known: criteria that the validation computes, each mapped to True if lower is better, None if unknown.
        patience: training ends at a validation more than this many updates after the best one, as in MMF; None: never.

    Raises:
        UserError: the validation does not compute the criteria, or ``minimize`` has the wrong value for it.
    """

    def __init__(
        self, criteria: str, minimize: bool, known: Mapping[str, bool | None], patience: int | None = None
    ) -> None:
        self.criteria, self.minimize, self.patience = check_criteria(criteria, minimize, known), minimize, patience
        self.is_certain = self.criteria in known
        self.value: float | None = None
        self.update = self.validated = 0
        self.averages = False

    @classmethod
    def of_run(cls, config: Any) -> "Monitor":
        """Return the monitor of a run with the complete config."""
        early_stop = config.training.early_stop
        patience = early_stop.patience if early_stop.enabled else None
        monitor = cls(early_stop.criteria, early_stop.minimize, known_criteria(config), patience)
        monitor.averages = bool(config.evaluation.get("ema"))
        return monitor

    def improved(self, record: Mapping[str, Any], update: int) -> bool:
        """Update the best value and return whether it improved. A missing or NaN value is no improvement.

        Args:
            record: ``SplitResult.to_record()`` of an evaluation.
            update: number of completed updates.

        Raises:
            UserError: the validation did not compute the criteria, which was not known before.
        """
        value, self.validated = self._value(record), update
        if value is None and record["losses"] and not self.is_certain:
            names = {f"{section}/{name}" for section in ("losses", "metrics") for name in record.get(section, ())}
            raise UserError(unknown_criteria(self.criteria, names))
        if value is None or math.isnan(value):
            return False
        better = self.value is None or (value < self.value if self.minimize else value > self.value)
        if better:
            self.value, self.update = value, update
        return better

    def patience_ended(self, update: int) -> bool:
        """Return whether training must end after the validation at ``update``, because the value did not improve."""
        if self.patience is None or self.value is None:
            return False
        return update > self.update + self.patience

    def _value(self, record: Mapping[str, Any]) -> float | None:
        if self.criteria == TOTAL:
            return sum(record["losses"].values()) if record["losses"] else None
        section, _, name = self.criteria.partition("/")
        if section in record:
            return record[section].get(name)
        # DATASET/NAME: the record of a run with one dataset does not contain the name of the dataset
        values = {**record["losses"], **record.get("metrics", {})}
        return values.get(self.criteria, values.get(name))

    def state_dict(self) -> dict[str, Any]:
        """Return the criteria, its best value so far, and the updates of this value and of the last validation."""
        names = ("criteria", "averages", "value", "update", "validated")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any], update: int) -> None:
        """Restore the best value from a checkpoint; it starts anew if ``criteria`` or ``averages`` differ.

        Args:
            state: empty to start anew.
            update: number of completed updates, from which patience counts if it is not known when the best value was
                reached: checkpoints of earlier versions do not store it. They were validated if a validation was due.
        """
        self.update, self.validated = update, state.get("validated", update)
        if (state.get("criteria"), state.get("averages", False)) == (self.criteria, self.averages):
            self.value, self.update = state["value"], state.get("update", update)
