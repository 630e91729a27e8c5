"""Bad records of a run: counted by reason, named in a file, and too many of them stop it."""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmf_flava.errors import UserError

logger = logging.getLogger(__name__)

BadRecords = dict[tuple[str, str, int], str]  # (dataset, split, number of the record) -> reason

JUDGED_FROM = 1000  # samples of a dataset before its share of bad records is worth judging


class Quarantine:
    """Notes what the datasets had to replace, as the batches that it is shown tell.

    Workers see records ahead of their turn and each for itself; batches that were handed out are seen once and in
    order, so that counts are the same for any number of workers and after any restart.

    Args:
        file: JSON lines, one for each bad record of the run: dataset, split, sample_id, record (its number), reason,
            message. It is appended to; what it holds already is not written again.
        limits: dataset -> the share of its training samples, of at least 1,000 since this process began, that may
            have been replaced; a dataset that is not named has no limit.

    Attributes:
        found: the run's bad records so far, each once.
    """

    def __init__(self, file: Path, limits: Mapping[str, float]) -> None:
        self.file, self.limits = file, dict(limits)
        self.found: BadRecords = {}
        self._told: set[tuple[str, str]] = set()
        self._samples: Counter[str] = Counter()
        self._replaced: Counter[str] = Counter()
        if file.is_file():
            with open(file, encoding="utf-8") as lines:
                for line in lines:
                    self._read(line)

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.found[entry["dataset"], entry["split"], entry["record"]] = entry["reason"]
        except (ValueError, KeyError, TypeError):
            return  # the line at which an earlier run was killed; its record will be named again

    def note(self, batch: Mapping[str, Any]) -> None:
        """Notes a batch as ``collate`` made it.

        Raises:
            UserError: a batch of training brings a dataset's share of replaced samples above its limit.
        """
        if "replaced" not in batch:
            return
        name, split = batch["dataset_name"], batch["dataset_type"]
        replaced = [entry for sample in batch["replaced"] for entry in sample]
        for entry in replaced:
            if (name, split, entry["record"]) not in self.found:
                self._add(name, split, entry)
        if split == "train":
            self._samples[name] += len(batch["replaced"])
            self._replaced[name] += len(replaced)
            self._judge(name)

    def _add(self, name: str, split: str, entry: dict[str, Any]) -> None:
        if (name, entry["reason"]) not in self._told:
            self._told.add((name, entry["reason"]))
            logger.warning(
                "%s: bad record, replaced by the next: %s (said once a reason; %s names all)",
                name,
                entry["message"],
                self.file,
            )
        self.found[name, split, entry["record"]] = entry["reason"]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as file:
            # plain ASCII: a key may hold what UTF-8 cannot
            file.write(json.dumps({"dataset": name, "split": split, **entry}) + "\n")

    def _judge(self, name: str) -> None:
        samples, replaced, limit = self._samples[name], self._replaced[name], self.limits.get(name)
        if limit is None or samples < JUDGED_FROM or replaced <= limit * samples:
            return
        reasons = sentence(counts(self.found)[name])
        raise UserError(
            f"dataset {name}: {replaced} of {samples} training samples had to be replaced because their records are "
            f"bad ({reasons}), more than dataset_config.{name}.max_bad_share {limit:g} allows: mend the "
            f"data ({self.file} names the records) or raise the share."
        )


def counts(found: BadRecords) -> dict[str, dict[str, int]]:
    """dataset -> reason -> number of records, the most frequent first."""
    pairs = Counter((name, reason) for (name, _, _), reason in found.items())
    result: dict[str, dict[str, int]] = {}
    for (name, reason), count in pairs.most_common():
        result.setdefault(name, {})[reason] = count
    return result


def sentence(reasons: Mapping[str, int]) -> str:
    """Counts of one dataset in words: "3 not an image, 1 no caption"."""
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
