"""The rule that a preparation without a result is an error, for shards and for text.

A preparation ends with an error if all its rows are dropped, or if none of the first 1,000 rows that were looked up
gives a record. Rows that a rule leaves out, such as those of another language, do not count towards the 1,000.
"""

from collections import Counter

from mmf_flava.errors import UserError

FIRST_ROWS = 1000
MAX_REASONS = 3  # reasons that the message explains


class NoRecordError(UserError):
    """No row gives a record. Nothing of the preparation is worth keeping."""


class EmptyResultCheck:
    """Counts the rows of a preparation until the first record, and raises UserError if there is none.

    Args:
        source: the input, for the message.
        remedy: what to do about it, one or more sentences.
    """

    def __init__(self, source: str, remedy: str):
        self.source, self.remedy = source, remedy
        self.has_record = False
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._failed = 0

    def add_record(self) -> None:
        """Note that the preparation has a record. From now on, dropped rows are no error."""
        self.has_record = True

    def add_dropped(self, reason: str, problem: str = "", count: int = 1) -> None:
        """Count dropped rows.

        Args:
            problem: what was wrong or what did not match, empty if a rule leaves the rows out.

        Raises:
            NoRecordError: this is the 1,000th row with a problem, and there is no record yet.
        """
        if self.has_record:
            return
        self._reasons[reason] += count
        if problem:
            self._failed += count
            self._examples.setdefault(reason, problem)
        if self._failed >= FIRST_ROWS:
            raise self._error(f"none of the first {self._reasons.total():,} rows gives a record")

    def finish(self) -> None:
        """Note the end of the input.

        Raises:
            NoRecordError: there is no record.
        """
        if not self.has_record:
            rows = self._reasons.total()
            raise self._error(f"none of the {rows:,} rows gives a record" if rows else "there are no rows")

    def _error(self, problem: str) -> NoRecordError:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self._reasons.most_common())
        examples = [
            f" The first {reason}: {self._examples[reason].rstrip('.')}."
            for reason, _ in self._reasons.most_common()
            if reason in self._examples
        ]
        described = f"{problem} ({reasons})." if reasons else f"{problem}."
        return NoRecordError(f"{self.source}: {described}{''.join(examples[:MAX_REASONS])} {self.remedy}")
