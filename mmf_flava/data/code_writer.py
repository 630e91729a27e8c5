"""Writer of cached image codes that several processes use at the same time, on one or several machines.

Until the codes of a part are complete, its folder has, instead of ``STEM.codes`` and ``STEM.json``:
    STEM.codes.partial    the codes at their final offsets
    STEM.partial          the header in one line of JSON, then one character per record: PENDING, DONE, or a letter that
                          stands for the reason why the record is bad

A process claims records by a lock on their characters in ``STEM.partial``. The system releases the locks of a process
that ends, so other processes can compute what it has not saved. The characters are written after the codes are on disk.
Codes do not depend on who computes them. If a file system has no locks, records may be computed twice, and the result
is the same.

Shapes: R = number of records, V = views per record, P = patches per view.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.data.codes import DTYPE, check_header
from mmf_flava.data.record import Reason
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import parse_object
from mmf_flava.files.random_access import write_at

PENDING, DONE = b".", b"+"
REASONS = {bytes([ord("A") + number]): reason for number, reason in enumerate(Reason)}
LETTERS = {reason: letter for letter, reason in REASONS.items()}
FILES_LOCK = 2**40  # byte of ``STEM.partial`` that is locked while files are created or renamed
HELD = (errno.EACCES, errno.EAGAIN)  # errors if another process holds a lock


class CodeWriter:
    """Context manager that writes the codes of one part and resumes an interrupted computation.

    A process uses at most one writer of a part at a time, because it would release the locks of another one.

    Args:
        folder: the codes folder; created if missing.
        stem: name of the files without ending.
        header: see ``codes.build_header``.

    Attributes:
        finished: whether the codes are complete under their final name.
        has_locks: whether the file system has locks.

    Raises:
        UserError: the partial file was written with different settings.
    """

    def __init__(self, folder: Path, stem: str, header: Mapping[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        self.header, self.records = dict(header), header["records"]
        self.path, self.header_path = folder / f"{stem}.codes", folder / f"{stem}.json"
        self.partial_path, self.progress_path = folder / f"{stem}.codes.partial", folder / f"{stem}.partial"
        self.record_bytes = header["views"] * header["patches"] * DTYPE.itemsize
        self.finished, self.has_locks = False, True
        self._unsaved: list[tuple[int, bytes]] = []
        self._first_line = json.dumps(self.header, sort_keys=True).encode() + b"\n"
        self._codes = self._progress = -1
        try:
            self._open()
        except BaseException:
            self._close()
            raise

    def claim(self, first: int, end: int, own: bool = True) -> bool:
        """Claim the records from ``first`` to ``end`` - 1 until this writer is closed; return False if others have one.

        Args:
            own: whether to claim the records on a file system without locks.
        """
        if not self.has_locks:
            return own
        try:
            fcntl.lockf(self._progress, fcntl.LOCK_EX | fcntl.LOCK_NB, end - first, len(self._first_line) + first)
        except OSError as error:
            if error.errno in HELD:
                return False
            self.has_locks = False
            return own
        return True

    def pending(self, first: int, end: int) -> np.ndarray:
        """Return the indices of the records from ``first`` to ``end`` - 1 whose codes have not been saved."""
        return np.flatnonzero(self._read(first, end) == ord(PENDING)) + first

    def count_pending(self) -> int:
        """Return the number of records whose codes have not been saved."""
        return 0 if self.finished else int(self._count_statuses()[ord(PENDING)])

    def write(self, record: int, codes_VP: np.ndarray, reason: Reason | None = None) -> None:
        """Write the codes of a claimed record. ``reason``: why it is bad, None if it is not."""
        assert codes_VP.shape == (self.header["views"], self.header["patches"])
        data = np.ascontiguousarray(codes_VP, DTYPE).tobytes()
        write_at(self._codes, data, record * self.record_bytes)
        self._unsaved.append((record, DONE if reason is None else LETTERS[reason]))

    def save_progress(self) -> None:
        """Flush the written codes to disk and mark their records, so that they are not computed again."""
        if not self._unsaved:
            return
        os.fsync(self._codes)
        for record, status in self._unsaved:
            write_at(self._progress, status, len(self._first_line) + record)
        os.fsync(self._progress)
        self._unsaved = []

    def finish(self) -> bool:
        """Save the progress. If the codes of all records are written, by any process, rename them; return whether."""
        self.save_progress()
        if not self.finished:
            with self._files_lock():
                self._finish()
        return self.finished

    def _open(self) -> None:
        """Open the files, and create them if they do not exist."""
        while True:
            self._progress = os.open(self.progress_path, os.O_RDWR | os.O_CREAT, 0o666)
            with self._files_lock():
                if _is_at(self._progress, self.progress_path):
                    self._open_codes()
                    return
            os.close(self._progress)  # another process finished and deleted it

    def _open_codes(self) -> None:
        if self.header_path.is_file():
            os.unlink(self.progress_path)
            self.finished = True
            return
        size, full_size = os.fstat(self._progress).st_size, self.records * self.record_bytes
        if size:
            self._check_settings()
        partial_size = self.partial_path.stat().st_size if self.partial_path.exists() else -1
        renamed = partial_size < 0 and self.path.is_file() and self.path.stat().st_size == full_size
        is_valid = size == len(self._first_line) + self.records
        is_valid = is_valid and os.pread(self._progress, len(self._first_line), 0) == self._first_line
        if is_valid and renamed and not self.count_pending():  # killed between the renaming and writing the header
            self._finish()
            return
        if not (is_valid and partial_size == full_size):
            write_at(self._progress, self._first_line + PENDING * self.records, 0)
            os.ftruncate(self._progress, len(self._first_line) + self.records)
        # not open for reading: a network file system would write back the codes of other processes that it has read
        self._codes = os.open(self.partial_path, os.O_WRONLY | os.O_CREAT, 0o666)
        os.ftruncate(self._codes, full_size)

    def _check_settings(self) -> None:
        first_line = os.pread(self._progress, 2**20, 0).partition(b"\n")[0]
        try:
            check_header(parse_object(first_line.decode()), self.header, str(self.partial_path))
        except ValueError as error:  # includes UserError
            reason = str(error) if isinstance(error, UserError) else f"{self.progress_path}: it is damaged ({error})."
            raise UserError(
                f"{reason} Or delete {self.partial_path} and {self.progress_path} to start from the first record."
            ) from None

    def _finish(self) -> None:
        if self.header_path.is_file():
            self.finished = True
            return
        statuses = self._count_statuses().tolist()
        if statuses[ord(PENDING)]:
            return
        if self._codes >= 0:
            os.fsync(self._codes)
            os.replace(self.partial_path, self.path)
        bad = {reason.value: statuses[ord(letter)] for letter, reason in REASONS.items() if statuses[ord(letter)]}
        atomic.write_json(self.header_path, {**self.header, "bad": bad})
        os.unlink(self.progress_path)
        self.finished = True

    def _count_statuses(self) -> np.ndarray:
        """Return the number of records with each status, a byte, as an array of 256 integers."""
        counts = np.zeros(256, np.int64)
        for first in range(0, self.records, 2**20):
            counts += np.bincount(self._read(first, min(first + 2**20, self.records)), minlength=256)
        return counts

    def _read(self, first: int, end: int) -> np.ndarray:
        data = os.pread(self._progress, end - first, len(self._first_line) + first)
        return np.frombuffer(data, np.uint8)

    @contextlib.contextmanager
    def _files_lock(self) -> Iterator[None]:
        try:
            fcntl.lockf(self._progress, fcntl.LOCK_EX, 1, FILES_LOCK)
        except OSError:
            self.has_locks = False
        try:
            yield
        finally:
            if self.has_locks:
                fcntl.lockf(self._progress, fcntl.LOCK_UN, 1, FILES_LOCK)

    def _close(self) -> None:
        for descriptor in (self._codes, self._progress):
            if descriptor >= 0:
                os.close(descriptor)
        self._codes = self._progress = -1

    def __enter__(self) -> "CodeWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with contextlib.suppress(OSError) if kind is not None else contextlib.nullcontext():  # a full disk
                self.save_progress()
        finally:
            self._close()


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still at ``path``."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
