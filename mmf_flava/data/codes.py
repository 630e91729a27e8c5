"""Cached image codes: the codebook's output for every record, computed once, 2 bytes per code, memory-mapped.

A codes folder (``<data_dir>/codes/<name>``, or any path) contains for each dataset and split:
    pmd-train.codes    (records, views, P) raw little-endian uint16; cannot contain executable code, unlike pickles
    pmd-train.json     the header: counts, codebook, geometry of the views, hash of the records; written last
An interrupted computation leaves ``pmd-train.codes.partial`` and ``pmd-train.partial.json`` and resumes from them.

Codes depend on the crop box of a view, so cached views use fixed boxes, a pure function of (record, view).

Shapes: R records · V views · P patches.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from mmf_flava.data.order import sample_generator
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.errors import UserError

OPENED_CODES = "flava_codes"  # key in MMF's registry of {"pmd train": header of the opened codes, or None}
VERSION = 1
DTYPE = np.dtype("<u2")
NO_CODE = 0xFFFF  # marks records whose image could not be decoded
MAX_HEADER = 2**20  # bytes
_VIEW_STREAM = crc32(b"views")


def view_generator(record: int, view: int) -> np.random.Generator:
    """Return the generator of the crop box of a view. It is independent of the seed, so that codes can be cached."""
    return sample_generator(0, record, _VIEW_STREAM + view)


def resolve_codes_folder(codes: str, data_dir: str | Path) -> Path:
    """Resolve ``dataset_config.<name>.codes``: a path, or a name in ``data_dir/codes``."""
    path = Path(codes).expanduser()
    return path if path.is_absolute() or len(path.parts) > 1 else Path(data_dir).expanduser() / "codes" / codes


class CodeFile:
    """Read access to the codes of one dataset split.

    Args:
        folder: the codes folder.
        stem: file stem, for example ``pmd-train``.
        expected: expected header values by key; see ``build_header``.

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
            raise UserError(f"{self.path}: expected {expected_size} bytes, got {size}. Cache these codes again.")
        self._open()

    def _open(self) -> None:
        self._codes = np.memmap(self.path, DTYPE, "r", shape=self.shape).view(np.ndarray)

    def read(self, record: int, view: int) -> np.ndarray:
        """Return the codes of one view, (P,) int64.

        Raises:
            BadRecord: the image could not be decoded when the codes were computed.
        """
        codes = self._codes[record, view].astype(np.int64)
        if codes.max() >= self.vocab_size:
            raise BadRecord(Reason.NO_CODES, f"record {record} has no codes in {self.path}")
        return codes

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_codes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


class CodeWriter:
    """Context manager that writes the codes of one dataset split and resumes an interrupted computation.

    ``done`` is the number of records written so far, ``write`` appends the next ones and ``finish`` renames the
    completed files.

    Raises:
        UserError: the partial file has different settings, or another process is writing it.
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
            raise UserError(f"{error} Remove {self.path} to start again.") from None
        done = state.get("done")
        if type(done) is not int or not 0 <= done * self.record_bytes <= self.path.stat().st_size:
            raise UserError(f"{self.state_path} does not match {self.path.name}. Remove both to start again.")
        self._file.truncate(done * self.record_bytes)
        return done

    def write(self, codes_RVP: np.ndarray) -> None:
        """Append the codes of the next R records, (R, V, P)."""
        assert codes_RVP.shape[1:] == (self.header["views"], self.header["patches"])
        self._file.write(np.ascontiguousarray(codes_RVP, DTYPE).tobytes())
        self.done += len(codes_RVP)

    def save_progress(self) -> None:
        """Flush written codes to disk. An interrupted computation resumes from here."""
        self._file.flush()
        os.fsync(self._file.fileno())
        _write_json(self.state_path, {**self.header, "done": self.done})

    def finish(self) -> None:
        """Rename the partial files to their final names. All records must have been written."""
        assert self.done == self.header["records"]
        self._file.flush()
        os.fsync(self._file.fileno())
        self.final_header_path.unlink(missing_ok=True)
        os.replace(self.path, self.final_path)
        _write_json(self.final_header_path, self.header)
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
        codebook: type, sha256, vocab_size and dtype.
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
    """Read and validate the header of completed codes.

    Raises:
        UserError: the header is missing or invalid.
    """
    if not path.is_file():
        raise UserError(f"{path.with_suffix('.codes')}: no completed codes were found.")
    header = _read_json(path)
    codebook = header.get("codebook")
    codebook = codebook if isinstance(codebook, dict) else {}
    counts = [header.get("records"), header.get("views"), header.get("patches"), codebook.get("vocab_size")]
    limits = [2**40, 2**16, 2**16, NO_CODE]
    if not all(type(count) is int and 0 < count <= limit for count, limit in zip(counts, limits, strict=True)):
        raise UserError(f"{path}: invalid codes header. Cache these codes again.")
    if not isinstance(codebook.get("sha256"), str):
        raise UserError(f"{path}: the header has no codebook hash. Cache these codes again.")
    return header


MISMATCHES = {
    "version": "a different version of the file format",
    "records": "a different number of records",
    "records_sha256": "different records (the data or their order have changed)",
    "views": "a different number of views",
    "patches": "a different number of patches",
    "geometry": "a different geometry of the views",
    "codebook": "a different codebook",
}


def check_header(header: Mapping[str, Any], expected: Mapping[str, Any], path: str) -> None:
    """Raise UserError for the first header value that differs from the expected one."""
    for key, value in expected.items():
        cached = header.get(key)
        if cached == value:
            continue
        if isinstance(value, Mapping) and isinstance(cached, Mapping):
            name = next(name for name in [*value, *cached] if cached.get(name) != value.get(name))
            key, cached, value = f"{key}.{name}", cached.get(name), value.get(name)
        raise UserError(
            f"{path}: the codes were cached with {MISMATCHES[key.partition('.')[0]]}. Expected {key} {value}, got "
            f"{cached}. Cache the codes again under another name, or restore the settings and data they were made with."
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_HEADER:
            raise ValueError("the file is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: invalid codes header ({error}). Cache these codes again.") from None
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
