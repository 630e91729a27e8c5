"""Non-fatal issues of a run: bad records that were replaced, and updates that were skipped."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmf_flava.report.values import as_mapping, as_numbers, as_text, read_json_lines

QUARANTINE, SKIPPED = "quarantine*.jsonl", "skipped.jsonl"  # one quarantine file per process


@dataclass(frozen=True)
class Issues:
    """Counts of bad records and skipped updates."""

    bad_records: dict[str, dict[str, int]] = field(default_factory=dict)  # dataset -> reason -> number of records
    skipped_updates: int = 0


def read_issues(folder: Path, summary: dict[str, Any]) -> Issues:
    """Read the issues of a run; if summary.json lists no bad records, they are counted in quarantine*.jsonl."""
    reported = {str(name): as_numbers(reasons) for name, reasons in as_mapping(summary.get("bad_records")).items()}
    bad_records = {
        name: {reason: int(count) for reason, count in reasons.items()} for name, reasons in reported.items() if reasons
    }
    # a resumed run may log the same update again
    updates = {str(entry.get("update")) for entry in read_json_lines(folder / SKIPPED)}
    return Issues(bad_records or _count_quarantined(folder), len(updates))


def _count_quarantined(folder: Path) -> dict[str, dict[str, int]]:
    reasons: dict[tuple[str, str, str], str] = {}
    for path in sorted(folder.glob(QUARANTINE)):
        for entry in read_json_lines(path):
            record = (str(entry.get("dataset")), str(entry.get("split")), str(entry.get("record")))
            reasons[record] = as_text(entry.get("reason")) or "bad"
    totals = Counter((record[0], reason) for record, reason in reasons.items())
    counts: dict[str, dict[str, int]] = {}
    for (name, reason), count in totals.most_common():
        counts.setdefault(name, {})[reason] = count
    return counts
