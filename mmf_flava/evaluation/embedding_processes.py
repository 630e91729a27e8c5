"""Embedding by several processes: each one computes a range of batches, and the first one joins what they wrote."""

import json
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from torch import distributed

from mmf_flava.command import report_error
from mmf_flava.errors import UserError

LONGEST = timedelta(days=30)  # for which a process waits for a slower one; a dead one ends the wait at once


@dataclass(frozen=True)
class Failure:
    """An error of a process, as the others see it."""

    message: str
    code: int  # exit code


class Processes:
    """Context manager: the processes of a command, by default this process alone. They exchange values by gloo.

    Args:
        rank, count: rank of this process, and number of processes.

    Raises:
        UserError: the processes cannot connect.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self._group: Any = None
        self._computing = False

    def __enter__(self) -> "Processes":
        if self.count > 1:
            try:
                distributed.init_process_group("gloo", rank=self.rank, world_size=self.count)
                self._group = distributed.new_group(timeout=LONGEST)
            except (ValueError, RuntimeError) as error:  # ValueError: a variable is missing
                reason = str(error).partition("\n")[0].rstrip(".")
                raise UserError(
                    f"The {self.count} processes cannot connect ({reason}). Start them with torchrun, or set "
                    "MASTER_ADDR and MASTER_PORT to the address of the process with RANK=0."
                ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._group is not None:
            distributed.destroy_process_group()

    def range_of(self, size: int) -> range:
        """Return the range of ``size`` numbers that belongs to this process."""
        return range(size * self.rank // self.count, size * (self.rank + 1) // self.count)

    def compute(self) -> None:
        """Start the part in which the processes work apart. It ends with the next ``gather``."""
        self._computing = True

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, in rank order. Every process must call this.

        Raises:
            SystemExit: another process has failed in ``same_errors``, which has printed the error.
            UserError: another process has ended.
        """
        values = self._gather(value)
        self._computing = False
        if failure := next((value for value in values if isinstance(value, Failure)), None):
            self._gather(None)  # the error has been printed
            raise SystemExit(failure.code)
        return values

    @contextmanager
    def same_errors(self) -> Iterator[None]:
        """Context manager: an error of one process ends all with the same exit code, and is printed once.

        An error in the part in which the processes work apart ends only this process, and is raised: the others would
        reach the end of their part hours later. torchrun ends them at once.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if self.count == 1 or self._computing:
                raise
            failures = self._gather(Failure(str(error), 2 if isinstance(error, UserError | OSError) else 1))
            own = failures[self.rank]
            if failures.index(own) == self.rank and report_error(error) is None:
                traceback.print_exc()
            self._gather(None)
            raise SystemExit(own.code) from None
        if not self._computing:
            self.gather(None)

    def _gather(self, value: Any) -> list[Any]:
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        try:
            distributed.all_gather_object(values, value, self._group)
        except RuntimeError as error:
            self._computing = True
            raise UserError(
                "Another process of this command has ended, and nothing was written. Its message says why. Run the "
                "command again."
            ) from error
        return values


def write_batches(path: Path, batches: Iterable[dict[str, Any]]) -> None:
    """Write batches of embeddings to a file: a line of JSON for each, followed by the values of its arrays.

    Raises:
        UserError: writing fails.
    """
    try:
        file = open(path, "wb")  # noqa: SIM115 (closed below)
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent} was not found. All processes must see the folder of --out: set it to a shared file system."
        ) from error
    try:
        with file:
            for batch in batches:
                arrays = {name: values for name, values in batch.items() if isinstance(values, np.ndarray)}
                line = {name: arrays[name].shape if name in arrays else values for name, values in batch.items()}
                file.write(json.dumps([list(arrays), line]).encode() + b"\n")
                for values in arrays.values():
                    file.write(np.ascontiguousarray(values, np.float32).tobytes())
    except OSError as error:
        raise UserError(f"Failed to write {path} ({error.strerror}). Free disk space, or set another --out.") from error


def read_batches(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the batches that ``write_batches`` wrote, and delete the file."""
    with open(path, "rb") as file:
        for line in file:
            names, batch = json.loads(line)
            for name in names:
                rows, width = batch[name]
                batch[name] = np.frombuffer(file.read(4 * rows * width), np.float32).reshape(rows, width)
            yield batch
    path.unlink()
