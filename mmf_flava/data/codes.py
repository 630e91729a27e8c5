"""Cached image codes: files with the output of the image codebook for every record of a dataset split.

A codes folder (``<data_dir>/codes/<name>``, or any path) contains for each dataset and split:
    pmd-train.codes    (records, views, P) raw little-endian uint16
    pmd-train.json     header: counts, codebook, sizes and crop parameters of the views, hash of the records; written
                       last
An interrupted computation leaves ``pmd-train.codes.partial`` and ``pmd-train.partial.json``, from which the next call
resumes.

A view is a crop of an image. Codes depend on the crop, so cached views use fixed crop boxes, which are determined by
the indices of the record and of the view.

Shapes: R = number of records, V = views per record, P = patches per view.
"""

import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from mmf_flava.config.paths import resolve_path
from mmf_flava.data.order import sample_generator
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object
from mmf_flava.files.random_access import RandomAccessFile

OPENED_CODES = "flava_codes"  # key in MMF's registry; the value maps "pmd train" to the header of its codes, or None
VERSION = 1
DTYPE = np.dtype("<u2")
COMMAND = "python -m mmf_flava.cache_codes"
RECOMPUTE = f"Delete the codes file and its JSON header, and run {COMMAND} again."
NO_CODE = 0xFFFF  # stored instead of codes if the image could not be decoded
MAX_HEADER = 2**20  # bytes
_VIEW_STREAM = crc32(b"views")


def view_generator(record: int, view: int) -> np.random.Generator:
    """Return the random generator for crop ``view`` of a record's image. It does not depend on the run's seed."""
    return sample_generator(0, record, _VIEW_STREAM + view)


def resolve_codes_folder(codes: str, data_dir: str | Path) -> Path:
    """Return the folder that ``dataset_config.NAME.codes`` refers to: a path, or a folder in data_dir/codes."""
    path = resolve_path(codes)
    return path if path.is_absolute() or len(path.parts) > 1 else resolve_path("codes", data_dir) / codes


class CodeFile:
    """Reader of the cached codes of one dataset split. It can be used after a fork, and pickled.

    Args:
        folder: the codes folder.
        stem: file stem, for example ``pmd-train``.
        expected: header key -> expected value, see ``build_header``.

    Raises:
        UserError: the codes are missing or incomplete, have the wrong size, or do not match ``expected``.
    """

    def __init__(self, folder: Path, stem: str, expected: Mapping[str, Any]):
        self.path = folder / f"{stem}.codes"
        self.header = read_header(folder / f"{stem}.json")
        check_header(self.header, expected, str(self.path))
        self.views, self.vocab_size = self.header["views"], self.header["codebook"]["vocab_size"]
        self.shape = (self.header["records"], self.views, self.header["patches"])
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size != (expected_size := self.shape[0] * self.shape[1] * self.shape[2] * DTYPE.itemsize):
            raise UserError(f"{self.path}: expected {expected_size} bytes, got {size}. {RECOMPUTE}")
        self._file = RandomAccessFile(self.path)

    def read(self, record: int, view: int) -> np.ndarray:
        """Return the codes of crop ``view`` of a record's image: one int64 number per patch.

        Raises:
            BadRecord: the image could not be decoded when the codes were computed; or the file cannot be read, or has
                changed.
        """
        records, views, patches = self.shape
        if not (0 <= record < records and 0 <= view < views):
            raise IndexError(f"view {view} of record {record} is out of range for {records} records of {views} views")
        size = patches * DTYPE.itemsize
        try:
            data = self._file.read((record * views + view) * size, size)
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{self.path} cannot be read: {error}") from error
        if len(data) != size:
            raise BadRecord(Reason.CHANGED, f"{self.path} was truncated. {RECOMPUTE}")
        codes = np.frombuffer(data, DTYPE).astype(np.int64)
        if codes.max() >= self.vocab_size:
            raise BadRecord(Reason.NO_CODES, f"{self.path} has no codes for record {record}")
        return codes


class CodeWriter:
    """Context manager that writes the codes of one dataset split and resumes an interrupted computation.

    Attributes:
        done: number of records written so far.

    Raises:
        UserError: the partial file was written with different settings, or another process is writing to it.
    """

    def __init__(self, folder: Path, stem: str, header: Mapping[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        self.header = dict(header)
        self.final_path, self.final_header_path = folder / f"{stem}.codes", folder / f"{stem}.json"
        self.path, self.state_path = folder / f"{stem}.codes.partial", folder / f"{stem}.partial.json"
        self.record_bytes = header["views"] * header["patches"] * DTYPE.itemsize
        self._file = open(self.path, "ab")  # noqa: SIM115 (closed by __exit__)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(f"{self.path} is being written by another process. Wait until it has finished.") from None
        self.done = self._resume()

    def _resume(self) -> int:
        if not self.state_path.is_file():
            self._file.truncate(0)
            return 0
        state = _read_json(self.state_path)
        try:
            check_header(state, self.header, str(self.path))
        except UserError as error:
            raise UserError(f"{error} Or delete {self.path} to start from the first record.") from None
        done = state.get("done")
        if type(done) is not int or not 0 <= done * self.record_bytes <= self.path.stat().st_size:
            raise UserError(
                f"{self.state_path}: the number of completed records does not match the size of {self.path.name}. "
                "Delete both files to start from the first record."
            )
        self._file.truncate(done * self.record_bytes)
        return done

    def write(self, codes_RVP: np.ndarray) -> None:
        """Append the codes of the next records, an array of shape (records, views, patches)."""
        assert codes_RVP.shape[1:] == (self.header["views"], self.header["patches"])
        self._file.write(np.ascontiguousarray(codes_RVP, DTYPE).tobytes())
        self.done += len(codes_RVP)

    def save_progress(self) -> None:
        """Flush the written codes to disk and save their number, so that an interrupted computation can resume."""
        self._file.flush()
        os.fsync(self._file.fileno())
        atomic.write_json(self.state_path, {**self.header, "done": self.done})

    def finish(self) -> None:
        """Rename the partial codes files to their final names. The codes of all records must have been written."""
        assert self.done == self.header["records"]
        self._file.flush()
        os.fsync(self._file.fileno())
        self.final_header_path.unlink(missing_ok=True)
        os.replace(self.path, self.final_path)
        atomic.write_json(self.final_header_path, self.header)
        self.state_path.unlink(missing_ok=True)

    def __enter__(self) -> "CodeWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # the disk may be full
                self.save_progress()
        self._file.close()


def build_header(
    records: int, views: int, patches: int, records_hash: str, geometry: Mapping[str, Any], codebook: Mapping[str, Any]
) -> dict[str, Any]:
    """Build the header of a codes file.

    Args:
        records_hash: see ``records_sha256``.
        geometry: sizes and crop parameters of the image processor.
        codebook: type, sha256, vocab_size and dtype of the image codebook.
    """
    return {
        "version": VERSION,
        "records": records,
        "views": views,
        "patches": patches,
        "records_sha256": records_hash,
        "geometry": dict(geometry),
        "codebook": dict(codebook),
    }


def read_header(path: Path) -> dict[str, Any]:
    """Read and validate the header of a completed codes file.

    Raises:
        UserError: the header is missing or invalid.
    """
    if not path.is_file():
        raise UserError(f"{path.with_suffix('.codes')}: no completed codes were found. Compute them with {COMMAND}.")
    header = _read_json(path)
    codebook = header.get("codebook")
    codebook = codebook if isinstance(codebook, dict) else {}
    counts = [header.get("records"), header.get("views"), header.get("patches"), codebook.get("vocab_size")]
    limits = [2**40, 2**16, 2**16, NO_CODE]
    if not all(type(count) is int and 0 < count <= limit for count, limit in zip(counts, limits, strict=True)):
        raise UserError(
            f"{path}: invalid codes header. records, views, patches and codebook.vocab_size must be positive integers, "
            f"got {counts}. {RECOMPUTE}"
        )
    if not isinstance(codebook.get("sha256"), str):
        raise UserError(f"{path}: codebook.sha256 is missing. {RECOMPUTE}")
    return header


MISMATCHES = {
    "version": "a different version of the file format",
    "records": "a different number of records",
    "records_sha256": "different records (the data or their order have changed)",
    "views": "a different number of views (crops per image)",
    "patches": "a different number of patches",
    "geometry": "a different geometry (image sizes or crop parameters)",
    "codebook": "a different codebook",
}


def check_header(header: Mapping[str, Any], expected: Mapping[str, Any], path: str) -> None:
    """Raise UserError if a value in the header of a codes file differs from the expected value."""
    for key, value in expected.items():
        cached = header.get(key)
        if cached == value:
            continue
        if isinstance(value, Mapping) and isinstance(cached, Mapping):
            names = dict.fromkeys([*value, *cached])
            name = next(
                name for name in names if (name in cached, cached.get(name)) != (name in value, value.get(name))
            )
            key, cached, value = f"{key}.{name}", cached.get(name), value.get(name)
        raise UserError(
            f"{path}: the codes were computed with {MISMATCHES[key.partition('.')[0]]}. Expected {key} {value}, got "
            f"{cached!s:.100}. Compute the codes under another name, or restore the previous settings and data."
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path, MAX_HEADER)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: invalid codes header ({error}). {RECOMPUTE}") from None
