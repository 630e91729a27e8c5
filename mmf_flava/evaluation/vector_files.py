"""Files of vectors: Parquet, a row an item, or a folder of .npy arrays."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmf_flava.errors import UserError


class Writer(Protocol):
    def write(self, batch: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class ParquetFile:
    """A row an item, a row group a batch."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UserError("Parquet needs pyarrow (pip install pyarrow); an OUT without .parquet is .npy.") from error
        self.pyarrow, self.parquet, self.path = pyarrow, parquet, path
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
            self.file = self.parquet.ParquetWriter(self.path, table.schema)
        self.file.write_table(table)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class NumpyFolder:
    """One .npy a kind, and the ids, a line each, in the same order."""

    def __init__(self, path: Path) -> None:
        self.path, self.batches = path, []  # type: ignore[var-annotated]

    def write(self, batch: dict[str, Any]) -> None:
        self.batches.append(batch)

    def close(self) -> None:
        self.path.mkdir()
        for name in self.batches[0]:
            parts = [batch[name] for batch in self.batches]
            if isinstance(parts[0], np.ndarray):
                np.save(self.path / f"{name.removesuffix('_vector')}.npy", np.concatenate(parts))
            elif name == "id":
                text = "".join(f"{key}\n" for part in parts for key in part)
                (self.path / "ids.txt").write_text(text, encoding="utf-8", errors="surrogateescape")


def write(batches: Iterator[dict[str, Any]], out: Path, force: bool = False) -> int:
    """Writes batches beside ``out`` and renames them into place; returns how many items.

    Raises:
        UserError: it exists already, or cannot be written.
    """
    if out.exists() and not force:
        raise UserError(f"{out} exists already; name another place, or replace it with --force.")
    partial = out.with_name(f".{out.name}.writing")
    count = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        writer: Writer = ParquetFile(partial) if out.suffix == ".parquet" else NumpyFolder(partial)
        for batch in batches:
            writer.write(batch)
            count += len(batch["id"])
        writer.close()
        _remove(out)
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): make room, or name another place.") from error
    finally:
        _remove(partial)
    return count


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
