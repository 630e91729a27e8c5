"""Damaged and hostile files: ``python -m tests.faults.format_fuzzer`` changes files of every format at random.

A changed file must be refused with a UserError, or deliver the records that were not changed. Files are read in child
processes, so that a signal, a read of more than 10 s or of more than 1 GB of memory is counted, and does not end the
test. The files include pickles that create a file, which shows whether anything was executed. The changes depend only
on the format and the number of the change: ``--format index --first 17 --count 1`` repeats one.
"""

import json
import logging
import multiprocessing
import os
import pickle
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.errors import UserError
from tests.faults.file_format import Format, copy_files
from tests.faults.formats import FORMATS
from tests.faults.mutations import mutate

SECONDS = 10  # limit of the processor time of one read
MEMORY = 10**9  # limit of the bytes that one read allocates
GOOD = ("refused", "accepted")


class Payload:
    """A pickle that creates the file ``path`` when it is executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def change_file(entry: Format, number: int, folder: Path, sources: tuple[Path, Path]) -> tuple[str, bytes, bytes]:
    """Copy the valid files to ``folder`` and change one; return its name, and its bytes before and after the change."""
    rng = random.Random(f"{entry.name} {number}")
    target = rng.choice(entry.targets)
    before, other = ((source / target).read_bytes() for source in sources)
    after = mutate(rng, before, other, pickle.dumps([Payload(folder.parent / "executed")]))
    copy_files(sources[0], folder)
    (folder / target).write_bytes(after)
    entry.after_change(folder)
    return target, before, after


def read_changed(entry: Format, number: int, work: Path, valid: Any) -> str:
    """Read one changed file and return the outcome: refused, accepted, or a description of the failure."""
    target, before, after = change_file(entry, number, work / "changed", (work / "valid", work / "other"))
    try:
        delivered = entry.read(work / "changed")
    except UserError as error:
        outcome = "refused" if 10 < len(str(error)) < 2000 else f"message: {error}"
    except MemoryError:
        outcome = f"more than {MEMORY:,} bytes: {traceback.format_exc()}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        outcome = f"traceback: {traceback.format_exc()}"
    else:
        try:
            entry.check(target, before, after, valid, delivered)
            outcome = "accepted"
        except Exception as error:
            outcome = f"wrong records: {type(error).__name__}: {error}"
    if (work / "executed").exists():
        (work / "executed").unlink()
        outcome = f"code was executed ({outcome})"
    return outcome


def child(name: str, work: Path, connection: Connection) -> None:
    """Read changed files in this process. Receives numbers of changes and sends the outcomes."""
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # other pools reserve more address space than they use
    logging.disable()  # a warning for almost every change
    entry = FORMATS[name]
    valid = entry.read(work / "valid")  # also imports and initialises libraries before memory is limited
    assert valid
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    connection.send("ready")
    while (number := connection.recv()) is not None:
        start = time.process_time()
        outcome = read_changed(entry, number, work, valid)
        seconds = time.process_time() - start
        connection.send(outcome if seconds < SECONDS else f"{seconds:.0f} s ({outcome})")


class Children:
    """One child process at a time, which is started again when it ends or hangs."""

    def __init__(self, name: str, work: Path) -> None:
        self.name, self.work = name, work
        self.process: Any = None

    def start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=child, args=(self.name, self.work, other), daemon=True)
        self.process.start()
        other.close()
        assert self.connection.recv() == "ready"

    def outcome(self, number: int) -> str:
        if self.process is None:
            self.start()
        self.connection.send(number)
        try:
            if self.connection.poll(6 * SECONDS):  # the child measures its processor time; the machine may be busy
                return self.connection.recv()
            self.process.kill()
            outcome = f"more than {6 * SECONDS} s"
        except (EOFError, ConnectionResetError):
            self.process.join()
            outcome = f"exit code {self.process.exitcode}"
        self.process.join()
        self.process = None
        return outcome

    def stop(self) -> None:
        if self.process is not None:
            self.connection.send(None)
            self.process.join()


def fuzz(name: str, first: int, count: int, work: Path) -> dict[str, Any]:
    """Read ``count`` changed files of a format; return the number of outcomes and the first failures."""
    entry, outcomes, failures = FORMATS[name], Counter[str](), {}
    for folder, seed in (("valid", 1), ("other", 2)):
        (work / folder).mkdir(parents=True)
        entry.make(work / folder, seed)
    children, start = Children(name, work), time.monotonic()
    for number in range(first, first + count):
        outcome = children.outcome(number)
        outcomes[outcome if outcome in GOOD else "failed"] += 1
        if outcome not in GOOD:
            failures[number] = outcome
    children.stop()
    return {
        "test": f"damaged files: {name}",
        "changes": count,
        **outcomes,
        "seconds": round(time.monotonic() - start, 1),
        "failures": dict(list(failures.items())[:20]),
        "passed": not failures,
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m tests.faults.format_fuzzer", description="Read damaged and hostile files.")
    parser.add_argument("--format", choices=[*FORMATS, "all"], default="all", help="default: %(default)s")
    parser.add_argument("--count", type=integer(1), default=1500, help="changes per format (default: %(default)s)")
    parser.add_argument("--first", type=integer(0), default=0, help="number of the first change (default: %(default)s)")
    arguments = parser.parse_args(argv)
    passed = True
    for name in FORMATS if arguments.format == "all" else [arguments.format]:
        with tempfile.TemporaryDirectory() as folder:
            result = fuzz(name, arguments.first, arguments.count, Path(folder))
        print(json.dumps(result), flush=True)
        passed = passed and result["passed"]
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
