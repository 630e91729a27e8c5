"""Writers of embeddings: a Parquet file with one row per item, or a folder of .npy arrays.

Both store where the items and the weights are, for ``mmf_flava.search``; see ``evaluation.embedding_index``.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0

from mmf_flava.errors import UserError
from mmf_flava.files import atomic

ORIGIN = "mmf_flava"  # key of the Parquet file's metadata with the arguments of ``mmf_flava.embed`` as JSON
ORIGIN_FILE, ITEMS_FILE, IDS_FILE = "origin.json", "items.jsonl", "ids.txt"  # in a folder of .npy files


class EmbeddingWriter(Protocol):
    """Interface of embedding writers. A batch maps column names to lists of one value per item; ``id`` is required."""

    def write(self, batch: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class ParquetWriter:
    """Writer of a Parquet file with one row per item and one row group per batch."""

    def __init__(self, path: Path, origin: dict[str, Any]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UserError(
                "pyarrow is required to write Parquet. Run `pip install pyarrow`, or set --out to a folder."
            ) from error
        self.pyarrow, self.parquet, self.path = pyarrow, parquet, path
        self.metadata = {ORIGIN: json.dumps(origin)}
        self.file: Any = None

    def write(self, batch: dict[str, Any]) -> None:
        columns = {}
        for name, values in batch.items():
            if isinstance(values, np.ndarray):
                flat = self.pyarrow.array(values.reshape(-1))
                values = self.pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
            columns[name] = values
        table = self.pyarrow.table(columns)
        if self.file is None:
            self.file = self.parquet.ParquetWriter(self.path, table.schema.with_metadata(self.metadata))
        self.file.write_table(table)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class NumpyWriter:
    """Writer of a folder with one .npy file per kind of embedding.

    ``ids.txt`` has one ID per array row, ``items.jsonl`` the ID, the text and the record number of each row.
    """

    def __init__(self, path: Path, origin: dict[str, Any]) -> None:
        self.path, self.origin = path, origin
        self.arrays: dict[str, NpyFile] = {}
        self._stack = ExitStack()
        ids = open(path / IDS_FILE, "w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        items = open(path / ITEMS_FILE, "w", encoding="utf-8")  # noqa: SIM115
        self.ids, self.items = self._stack.enter_context(ids), self._stack.enter_context(items)

    def write(self, batch: dict[str, Any]) -> None:
        names = [name for name, values in batch.items() if not isinstance(values, np.ndarray)]
        for name in batch.keys() - names:
            if name not in self.arrays:
                file = self.path / f"{name.removesuffix('_vector')}.npy"
                self.arrays[name] = self._stack.enter_context(NpyFile(file))
            self.arrays[name].write(batch[name])
        for values in zip(*(batch[name] for name in names), strict=True):
            row = dict(zip(names, values, strict=True))
            self.ids.write(f"{row['id']}\n")
            self.items.write(f"{json.dumps(row)}\n")

    def close(self) -> None:
        self._stack.close()
        (self.path / ORIGIN_FILE).write_text(json.dumps(self.origin, indent=1), encoding="utf-8")


class NpyFile:
    """Context manager: a ``.npy`` file to which rows are appended. Its bytes are those of ``numpy.save``."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 (closed by __exit__)
        self.rows = 0
        self.header: dict[str, Any] = {}

    def write(self, rows: np.ndarray) -> None:
        if not self.header:
            self.header = header_data_from_array_1_0(rows)
            self._write_header()
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self.rows += len(rows)

    def _write_header(self) -> None:
        # numpy leaves room in the header for a larger number of rows
        shape = (self.rows, *self.header["shape"][1:])
        write_array_header_1_0(self._file, {**self.header, "shape": shape, "fortran_order": False})

    def __enter__(self) -> "NpyFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.seek(0)
            self._write_header()
        self._file.close()


def check_output(out: Path, force: bool) -> None:
    """Raise UserError if ``out`` exists and ``force`` is false."""
    if out.exists() and not force:
        raise UserError(f"{out} already exists. Set another --out, or replace it with --force.")


def write_embeddings(
    batches: Iterator[dict[str, Any]], out: Path, force: bool = False, origin: dict[str, Any] | None = None
) -> int:
    """Write batches of embeddings to a temporary path, rename it to ``out``, and return the number of items.

    Args:
        origin: where the items and the weights are, stored with the embeddings; see ``EmbeddingIndex.origin``.

    Raises:
        UserError: ``out`` exists and ``force`` is false, or writing fails.
    """
    check_output(out, force)
    count = 0
    is_parquet = out.suffix.lower() == ".parquet"
    replace = atomic.replace_file if is_parquet else atomic.replace_folder
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # the file or folder is created now, because an error after hours of computation would be too late
        with replace(out) as temporary:
            writer: EmbeddingWriter = (ParquetWriter if is_parquet else NumpyWriter)(temporary, origin or {})
            for batch in batches:
                writer.write(batch)
                count += len(batch["id"])
            writer.close()
            if out.is_dir() == is_parquet:  # a file replaces a folder, or a folder a file
                atomic.remove(out)
    except OSError as error:
        raise UserError(f"Failed to write {out} ({error.strerror}). Free disk space, or set another --out.") from error
    return count
