"""What a part of the device check is given: its options, and methods that report results."""

import json
import math
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ERROR_LENGTH = 400  # characters of an error message in a result


@dataclass
class Context:
    """The options of one part, which runs in its own process.

    part: the name of the part.
    device: ``cuda`` or ``cpu``.
    tiny: small models and few repeats, to test the check itself.
    out: the folder of results.
    work: a folder for temporary files, shared by all parts.
    failures: the number of failed results so far.
    """

    part: str
    device: str
    tiny: bool
    out: Path
    work: Path
    failures: int = 0

    @property
    def cuda(self) -> bool:
        """Whether the part runs on a GPU."""
        return self.device == "cuda"

    @property
    def run_seconds(self) -> int:
        """The time limit of one ``mmf_run``."""
        return 90 if self.cuda else 900

    def pick(self, full: T, tiny: T) -> T:
        """Return the value for full size, or the one for ``--tiny``."""
        return tiny if self.tiny else full

    def report(self, name: str, **values: Any) -> None:
        """Print one result as a line of JSON. A result with the key ``error`` is a failed one."""
        self.failures += "error" in values
        print(json.dumps({"part": self.part, "name": name, **_to_json(values)}), flush=True)

    def report_limited(self, name: str, key: str, limit: float, **values: Any) -> None:
        """Report a result that fails if ``values[key]`` is missing, not a number, or above ``limit``."""
        value = values[key]
        if value is None or not value <= limit:
            values["error"] = f"{key} is {_to_json(value)}, expected at most {limit:g}"
        self.report(name, **values, limit=limit)

    def skip(self, name: str, reason: str) -> None:
        """Report a result that was not measured."""
        self.report(name, skipped=reason)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Report an exception as a failed result, so that the rest of the part still runs."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            print(f"{name}:", file=sys.stderr)
            traceback.print_exc()
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.report(name, error=text[-ERROR_LENGTH:], seconds=time.perf_counter() - start)


def _to_json(value: Any) -> Any:
    """Round floats to five digits; NaN and infinity become strings, because JSON has no such numbers."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: _to_json(entry) for key, entry in value.items()}
    return [_to_json(entry) for entry in value] if isinstance(value, list | tuple) else value
