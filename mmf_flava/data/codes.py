"""Cached codes: the image codebook's answer for every record, computed once, 2 bytes a code, memory-mapped.

A codes folder (``<data_dir>/codes/<name>``, or any path) holds for each dataset and split
    pmd-train.codes    (records, views, P) little-endian uint16, raw: not a format that could hold code
    pmd-train.json     the header: counts, the codebook, the views' geometry, the records' hash; written last
and while it is being made ``pmd-train.codes.partial`` and ``pmd-train.partial.json``, from which the making goes on.

Codes depend on the box that a view shows, so the boxes of cached views are fixed: a pure function of (record, view).

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

OPENED = "flava_codes"  # MMF's registry: "pmd train" -> header of the codes that it was opened with, or None
VERSION = 1
DTYPE = np.dtype("<u2")
NO_CODE = 0xFFFF  # fills the row of a record that could not be decoded
MAX_HEADER = 2**20  # bytes
_CROPS = crc32(b"views")


def view_generator(record: int, view: int) -> np.random.Generator:
    """The randomness of the box of one view of one record; the same for every seed, so that codes can be cached."""
    return sample_generator(0, record, _CROPS + view)


def codes_folder(codes: str, data_dir: str | Path) -> Path:
    """The folder that ``dataset_config.<name>.codes`` means: a path, or a bare name below ``data_dir/codes``."""
    path = Path(codes).expanduser()
    return path if path.is_absolute() or len(path.parts) > 1 else Path(data_dir).expanduser() / "codes" / codes


class CodeFile:
    """Reads the codes of one dataset's split.

    Args:
        folder, stem: where, and for example ``pmd-train``.
        expected: what the header must say, by key; see ``make_header``.

    Raises:
        UserError: there are no codes, they are unfinished, of another size than announced, or not of what is expected.
    """

    def __init__(self, folder: Path, stem: str, expected: Mapping[str, Any]):
        self.path = folder / f"{stem}.codes"
        self.header = read_header(folder / f"{stem}.json")
        compare(self.header, expected, str(self.path))
        self.views, self.vocab_size = self.header["views"], self.header["codebook"]["vocab_size"]
        self.shape = (self.header["records"], self.views, self.header["patches"])
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size != (announced := self.shape[0] * self.shape[1] * self.shape[2] * DTYPE.itemsize):
            raise UserError(f"{self.path} has {size} bytes, its header announces {announced}: cache these codes again.")
        self._open()

    def _open(self) -> None:
        self._codes = np.memmap(self.path, DTYPE, "r", shape=self.shape).view(np.ndarray)

    def read(self, record: int, view: int) -> np.ndarray:
        """(P,) int64. Raises BadRecord where the record had no readable image when the codes were made."""
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
    """Makes the codes of one dataset's split, going on where an earlier, interrupted making stopped.

    Use it as a context manager; ``done`` records are there already, ``write`` takes the next ones in order, and
    ``finish`` gives the files their names.

    Raises:
        UserError: an unfinished file is there that was begun with other settings, or that another process is writing.
    """

    def __init__(self, folder: Path, stem: str, header: Mapping[str, Any]):
        folder.mkdir(parents=True, exist_ok=True)
        self.header = dict(header)
        self.final, self.final_header = folder / f"{stem}.codes", folder / f"{stem}.json"
        self.path, self.state = folder / f"{stem}.codes.partial", folder / f"{stem}.partial.json"
        self.row = header["views"] * header["patches"] * DTYPE.itemsize
        self._file = open(self.path, "ab")  # noqa: SIM115 (closed by __exit__)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(f"{self.path} is being written by another process.") from None
        self.done = self._resume()

    def _resume(self) -> int:
        if not self.state.is_file():
            self._file.truncate(0)
            return 0
        state = _read_json(self.state)
        try:
            compare(state, self.header, str(self.path))
        except UserError as error:
            raise UserError(f"{error} Remove {self.path} to begin anew.") from None
        done = state.get("done")
        if type(done) is not int or not 0 <= done * self.row <= self.path.stat().st_size:
            raise UserError(f"{self.state} does not fit {self.path.name}; remove both to begin anew.")
        self._file.truncate(done * self.row)
        return done

    def write(self, codes_RVP: np.ndarray) -> None:
        """The codes of the next R records, (R, V, P)."""
        assert codes_RVP.shape[1:] == (self.header["views"], self.header["patches"])
        self._file.write(np.ascontiguousarray(codes_RVP, DTYPE).tobytes())
        self.done += len(codes_RVP)

    def keep(self) -> None:
        """Brings what was written to the disk: from here an interrupted making goes on."""
        self._file.flush()
        os.fsync(self._file.fileno())
        _write_json(self.state, {**self.header, "done": self.done})

    def finish(self) -> None:
        assert self.done == self.header["records"]
        self._file.flush()
        os.fsync(self._file.fileno())
        self.final_header.unlink(missing_ok=True)
        os.replace(self.path, self.final)
        _write_json(self.final_header, self.header)
        self.state.unlink(missing_ok=True)

    def __enter__(self) -> "CodeWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(OSError):  # a full disk is what may have brought us here
                self.keep()
        self._file.close()


def make_header(
    records: int, views: int, patches: int, records_hash: str, geometry: Mapping[str, Any], codebook: Mapping[str, Any]
) -> dict[str, Any]:
    """The header: ``codebook`` has type, sha256, vocab_size and dtype; ``geometry`` is the image processor's."""
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
    """A finished header whose numbers are numbers; UserError else."""
    if not path.is_file():
        raise UserError(f"There are no finished codes {path.with_suffix('.codes')}.")
    header = _read_json(path)
    book = header.get("codebook")
    book = book if isinstance(book, dict) else {}
    counts = [header.get("records"), header.get("views"), header.get("patches"), book.get("vocab_size")]
    limits = [2**40, 2**16, 2**16, NO_CODE]
    if not all(type(n) is int and 0 < n <= most for n, most in zip(counts, limits, strict=True)):
        raise UserError(f"{path} is no header of codes: cache these codes again.")
    if not isinstance(book.get("sha256"), str):
        raise UserError(f"{path} does not say which codebook made the codes: cache these codes again.")
    return header


MEANINGS = {
    "version": "another version of mmf_flava",
    "records": "another number of records",
    "records_sha256": "other records (the data have changed since, or their order has)",
    "views": "another number of views",
    "patches": "another number of patches",
    "geometry": "another geometry of the views",
    "codebook": "another codebook",
}


def compare(header: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """UserError that names the first thing in which a header differs from what is expected."""
    for key, value in expected.items():
        found = header.get(key)
        if found == value:
            continue
        if isinstance(value, Mapping) and isinstance(found, Mapping):
            wrong = next(name for name in [*value, *found] if found.get(name) != value.get(name))
            key, found, value = f"{key}.{wrong}", found.get(wrong), value.get(wrong)
        raise UserError(
            f"The codes in {where} were cached with {MEANINGS[key.partition('.')[0]]}: {key} is {found} there and "
            f"{value} here; cache them again under another name, or go back to what they were made with."
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_HEADER:
            raise ValueError("too long")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no mapping")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no header of codes ({error}): cache these codes again.") from None
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
