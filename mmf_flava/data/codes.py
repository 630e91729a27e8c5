"""Cached image codes: files with the output of the image codebook for every record of a dataset split.

Each path of a split is a part with a file of its own, so that another path does not invalidate the codes of the others.
A codes folder (``<data_dir>/codes/<name>``, or any path) contains for each part:
    pmd-train-<hash of its records>.codes    (records, views, P) raw little-endian uint16
    pmd-train-<hash of its records>.json     header: counts, codebook, sizes and crop parameters of the views, hash of
                                             the records, numbers of bad records; written last
See ``code_writer`` for the files of an interrupted computation. Codes of several paths in one file,
``pmd-train.codes``, as earlier versions wrote them, are read as a single part.

A view is a crop of an image. Codes depend on the crop, so cached views use fixed crop boxes, which are determined by
the index of the record in its part and the index of the view.

Shapes: R = number of records, V = views per record, P = patches per view.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from mmf_flava.config.paths import resolve_path
from mmf_flava.data.order import sample_generator
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import read_object
from mmf_flava.files.random_access import RandomAccessFile

OPENED_CODES = "flava_codes"  # key in MMF's registry; the value maps "pmd train" to the header of its codes, or None
VERSION = 1
DTYPE = np.dtype("<u2")
COMMAND = "python -m mmf_flava.cache_codes"
RECOMPUTE = f"Delete the codes file and its JSON header, and run {COMMAND} again."
NO_CODE = 0xFFFF  # stored instead of codes if the image could not be decoded
MAX_HEADER = 2**20  # bytes
HASH_LENGTH = 16  # characters of the hash of a part's records in the names of its files
_VIEW_STREAM = crc32(b"views")


class CodePart(NamedTuple):
    """A part of a dataset split, whose codes have a file of their own.

    stem: name of the files without ending. place: the part's path, for messages.
    """

    stem: str
    place: str
    records: int
    sha256: str  # of the records, see ``records_sha256``


def view_generator(record: int, view: int) -> np.random.Generator:
    """Return the random generator for crop ``view`` of a record's image. It does not depend on the run's seed.

    Args:
        record: index of the record in its part.
    """
    return sample_generator(0, record, _VIEW_STREAM + view)


def resolve_codes_folder(codes: str, data_dir: str | Path) -> Path:
    """Return the folder that ``dataset_config.NAME.codes`` refers to: a path, or a folder in data_dir/codes."""
    path = resolve_path(codes)
    return path if path.is_absolute() or len(path.parts) > 1 else resolve_path("codes", data_dir) / codes


class CodeFile:
    """Reader of the cached codes of one part. It can be used after a fork, and pickled.

    Args:
        folder: the codes folder.
        stem: name of the files without ending.
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


class DatasetCodes:
    """Reader of the cached codes of all parts of a dataset split. It can be used after a fork, and pickled.

    Args:
        folder: the codes folder.
        parts: the parts, in order.
        expected: header key -> expected value for all parts, see ``build_header``.

    Attributes:
        header: header of the first part. The codebook and the number of views are the same for all parts.

    Raises:
        UserError: the codes of a part are missing, or do not match ``expected`` or the codes of the first part.
    """

    def __init__(self, folder: Path, parts: Sequence[CodePart], expected: Mapping[str, Any]):
        self.files: list[CodeFile] = []
        for part in parts:
            if not (folder / f"{part.stem}.json").is_file():
                raise UserError(
                    f"{folder}: no completed codes of {part.place} were found, or its records or their order have "
                    "changed since."
                )
            own = {"records": part.records, "records_sha256": part.sha256}
            self.files.append(CodeFile(folder, part.stem, {**expected, **own}))
            header = self.files[0].header
            expected = {**expected, "views": header["views"], "codebook": header["codebook"]}
        self.header, self.folder = self.files[0].header, folder
        self.views, self.vocab_size = self.files[0].views, self.files[0].vocab_size
        self._starts = [0, *accumulate(part.records for part in parts)]

    def read(self, record: int, view: int) -> np.ndarray:
        """Return the codes of crop ``view`` of a record of the split; see ``CodeFile.read``."""
        part = bisect_right(self._starts, record) - 1
        return self.files[part].read(record - self._starts[part], view)


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


def bad_records(header: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of bad records by reason from the header of a codes file; earlier versions stored none."""
    bad = header.get("bad")
    return {key: count for key, count in bad.items() if type(count) is int} if isinstance(bad, dict) else {}


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
