"""Handling of unexpected errors in records: the traceback is logged once, and repeated errors stop the run."""

import logging
from collections.abc import Callable

from mmf_flava.data.record import Failure

logger = logging.getLogger(__name__)

MAX_CONSECUTIVE = 10  # number of unexpected errors in a row that stops a run
MAX_FIRST = 32  # number of bad records at the start of a run that stops it, if one of them is an unexpected error


class UnexpectedErrors:
    """Logs the traceback of each different unexpected error, and stops a run in which records keep failing.

    A single unexpected error costs one record. Many in a row are an error of the program, for example in a processor.

    Args:
        source: name of the dataset or file, for error messages.
        warn: function that is called with each different traceback; None: tracebacks are not logged.
    """

    def __init__(self, source: str, warn: Callable[[str], None] | None = logger.warning) -> None:
        self.source, self.warn = source, warn
        self._logged: set[tuple[str, str]] = set()
        self._consecutive = 0
        self._first = 0  # number of bad records before the first good one
        self._last: Failure | None = None
        self._any_good = False

    def add_good(self) -> None:
        """Count a good record."""
        self._consecutive, self._any_good = 0, True

    def add_bad(self, failure: Failure | None) -> None:
        """Count a bad record; ``failure`` is None if the reason is known.

        Raises:
            RuntimeError: ten unexpected errors in a row, or the first 32 records are bad and some of the errors are
                unexpected. The message contains the traceback of the last error.
        """
        self._consecutive = self._consecutive + 1 if failure else 0
        self._first += not self._any_good
        self._last = failure or self._last
        if failure is not None:
            self._log(failure)
        if self._consecutive >= MAX_CONSECUTIVE:
            self.stop(f"{self._consecutive} records in a row failed with an unexpected error")
        if self._first >= MAX_FIRST and not self._any_good and self._last is not None:
            self.stop(f"the first {self._first} records failed, some of them with an unexpected error")

    def _log(self, failure: Failure) -> None:
        error = (failure.type, failure.place)
        if self.warn is not None and error not in self._logged:
            self._logged.add(error)
            self.warn(f"{self.source}: unexpected error in a record (logged once):\n{failure.traceback}")

    def stop(self, problem: str) -> None:
        """Raise RuntimeError with the traceback of the last unexpected error."""
        assert self._last is not None
        raise RuntimeError(f"{self.source}: {problem}. The last one:\n{self._last.traceback}")
