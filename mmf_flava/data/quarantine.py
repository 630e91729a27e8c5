"""Tracking of bad records: counts by reason, a list in a file, and an error if a dataset has too many."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import parse_object

logger = logging.getLogger(__name__)

BadRecords = dict[tuple[str, str, int], str]  # (dataset, split, record index) -> reason

LEFT_OUT = "left_out"  # field of a batch of an evaluation
MIN_SAMPLES = 1000  # the fraction of bad records of a dataset is checked after this number of samples


class Quarantine:
    """Tracks the bad records of a run.

    Batches of the training data report them in the field ``replaced``: for each sample, the entries of the bad records
    that it replaces. Batches of evaluations report them in the field ``left_out``, see ``EvaluationSamples``.

    Records are counted when the trainer receives a batch, not when a data loader worker reads them, so the counts do
    not depend on the number of workers or on restarts.

    Args:
        file: JSON Lines file with one entry per bad record of the run: dataset, split, sample_id, record (its index),
            reason, message. New entries are appended; existing entries are not written again. The traceback of an
            unexpected error is logged once, and not written to the file.
        limits: dataset -> maximum fraction of replaced training samples, or None for no limit. The limit is checked as
            soon as this process has received at least 1,000 training samples of the dataset.
        warn: function that is called with a message for the first bad record of each dataset and reason.

    Attributes:
        bad_records: (dataset, split, record index) -> reason, of all bad records of the run so far.
    """

    def __init__(
        self, file: Path, limits: Mapping[str, float | None], warn: Callable[[str], None] = logger.warning
    ) -> None:
        self.file, self.limits, self.warn = file, dict(limits), warn
        self.bad_records: BadRecords = {}
        self._warned: set[tuple[str, str]] = set()
        self._samples: Counter[str] = Counter()
        self._replaced: Counter[str] = Counter()
        self._errors: dict[tuple[str, str], UnexpectedErrors] = {}
        if file.is_file():
            with open(file, encoding="utf-8") as lines:
                for line in lines:
                    self._load_line(line)

    def _load_line(self, line: str) -> None:
        try:
            entry = parse_object(line)
            self.bad_records[entry["dataset"], entry["split"], entry["record"]] = entry["reason"]
        except (ValueError, KeyError, TypeError):
            return  # incomplete last line of a killed run; the record is listed again when it is read again

    def update(self, batch: Mapping[str, Any]) -> None:
        """Count and list the bad records that were replaced in a batch or left out of it.

        Raises:
            UserError: the fraction of replaced training samples of a dataset exceeds its limit.
            RuntimeError: too many records of an evaluation fail with unexpected errors, see ``UnexpectedErrors``.
        """
        name, split = batch["dataset_name"], batch["dataset_type"]
        replaced = batch.get("replaced", [])
        for sample in replaced:
            self._unexpected_errors(name, split).add_good()  # ``StreamDataset`` stops a run in which all samples fail
            for entry in sample:
                self._add(name, split, entry, "replaced")
        for entry in batch.get(LEFT_OUT, ()):
            if entry is None:
                self._unexpected_errors(name, split).add_good()
            else:
                self._add(name, split, entry, "left out")
        if replaced and split == "train":
            self._samples[name] += len(replaced)
            self._replaced[name] += sum(map(len, replaced))
            self._check_limit(name)

    def _unexpected_errors(self, name: str, split: str) -> UnexpectedErrors:
        return self._errors.setdefault((name, split), UnexpectedErrors(f"dataset {name} ({split})", self.warn))

    def _add(self, name: str, split: str, entry: dict[str, Any], action: str) -> None:
        if (name, split, entry["record"]) not in self.bad_records:
            self._append(name, split, {key: value for key, value in entry.items() if key != "failure"}, action)
        self._unexpected_errors(name, split).add_bad(entry.get("failure"))

    def _append(self, name: str, split: str, entry: dict[str, Any], action: str) -> None:
        if (name, entry["reason"]) not in self._warned:
            self._warned.add((name, entry["reason"]))
            self.warn(
                f"dataset {name}: {action} a bad record: {entry['message']} (logged once per reason; "
                f"{self.file} lists all bad records)"
            )
        self.bad_records[name, split, entry["record"]] = entry["reason"]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as file:
            # ASCII only: a key may contain characters that UTF-8 cannot encode
            file.write(json.dumps({"dataset": name, "split": split, **entry}) + "\n")

    def _check_limit(self, name: str) -> None:
        samples, replaced, limit = self._samples[name], self._replaced[name], self.limits.get(name)
        if limit is None or samples < MIN_SAMPLES or replaced <= limit * samples:
            return
        reasons = format_counts(count_by_reason(self.bad_records)[name])
        raise UserError(
            f"dataset {name}: {replaced} of {samples} training samples were replaced because their records are bad "
            f"({reasons}). dataset_config.{name}.max_bad_share allows a fraction of {limit:g}. Repair the data "
            f"({self.file} lists the records) or increase max_bad_share."
        )


def count_by_reason(bad_records: BadRecords) -> dict[str, dict[str, int]]:
    """Return dataset -> reason -> number of records, most frequent first."""
    pairs = Counter((name, reason) for (name, _, _), reason in bad_records.items())
    result: dict[str, dict[str, int]] = {}
    for (name, reason), count in pairs.most_common():
        result.setdefault(name, {})[reason] = count
    return result


def format_counts(reasons: Mapping[str, int]) -> str:
    """Format the number of records per reason, for example "3 not an image, 1 no caption"."""
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
