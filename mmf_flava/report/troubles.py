"""What went wrong in a run and was lived with: bad records that were replaced, updates that were skipped."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmf_flava.report.values import mapping, numbers, read_json_lines, text

QUARANTINE, SKIPPED = "quarantine*.jsonl", "skipped.jsonl"  # each process has a quarantine of its own


@dataclass(frozen=True)
class Troubles:
    bad_records: dict[str, dict[str, int]] = field(default_factory=dict)  # dataset -> reason -> records
    skipped: int = 0  # updates


def read_troubles(folder: Path, summary: dict[str, Any]) -> Troubles:
    """From the summary where it tells, else, as while a run is going on, from the files that name each one."""
    told = {str(name): numbers(reasons) for name, reasons in mapping(summary.get("bad_records")).items()}
    bad = {name: {reason: int(count) for reason, count in reasons.items()} for name, reasons in told.items() if reasons}
    # a resumed run names an update again that it skips again
    updates = {str(line.get("update")) for line in read_json_lines(folder / SKIPPED)}
    return Troubles(bad or _named(folder), len(updates))


def _named(folder: Path) -> dict[str, dict[str, int]]:
    reasons: dict[tuple[str, str, str], str] = {}
    for path in sorted(folder.glob(QUARANTINE)):
        for line in read_json_lines(path):
            record = (str(line.get("dataset")), str(line.get("split")), str(line.get("record")))
            reasons[record] = text(line.get("reason")) or "bad"
    counts = Counter((record[0], reason) for record, reason in reasons.items())
    found: dict[str, dict[str, int]] = {}
    for (name, reason), count in counts.most_common():
        found.setdefault(name, {})[reason] = count
    return found
