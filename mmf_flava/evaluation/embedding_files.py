"""Writers of embeddings: a Parquet file with one row per item, or a folder of .npy arrays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmf_flava.errors import UserError
from mmf_flava.files import atomic


class EmbeddingWriter(Protocol):
    """Interface of embedding writers. A batch maps column names to lists of one value per item; ``id`` is required."""

    def write(self, batch: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class ParquetWriter:
    """Writer of a Parquet file with one row per item and one row group per batch."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UserError(
                "pyarrow is required to write Parquet. Run `pip install pyarrow`, or set --out to a folder."
            ) from error
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


class NumpyWriter:
    """Writer of a folder with one .npy file per kind of embedding, and ``ids.txt`` with one ID per array row."""

    def __init__(self, path: Path) -> None:
        self.path, self.batches = path, []  # type: ignore[var-annotated]

    def write(self, batch: dict[str, Any]) -> None:
        self.batches.append(batch)

    def close(self) -> None:
        for name in self.batches[0]:
            columns = [batch[name] for batch in self.batches]
            if isinstance(columns[0], np.ndarray):
                np.save(self.path / f"{name.removesuffix('_vector')}.npy", np.concatenate(columns))
            elif name == "id":
                text = "".join(f"{key}\n" for column in columns for key in column)
                (self.path / "ids.txt").write_text(text, encoding="utf-8", errors="surrogateescape")


def write_embeddings(batches: Iterator[dict[str, Any]], out: Path, force: bool = False) -> int:
    """Write batches of embeddings to a temporary path, rename it to ``out``, and return the number of items.

    Raises:
        UserError: ``out`` exists and ``force`` is false, or writing fails.
    """
    if out.exists() and not force:
        raise UserError(f"{out} already exists. Set another --out, or replace it with --force.")
    count = 0
    is_parquet = out.suffix.lower() == ".parquet"
    replace = atomic.replace_file if is_parquet else atomic.replace_folder
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # the file or folder is created now, because an error after hours of computation would be too late
        with replace(out) as temporary:
            writer: EmbeddingWriter = (ParquetWriter if is_parquet else NumpyWriter)(temporary)
            for batch in batches:
                writer.write(batch)
                count += len(batch["id"])
            writer.close()
            if out.is_dir() == is_parquet:  # a file replaces a folder, or a folder a file
                atomic.remove(out)
    except OSError as error:
        raise UserError(f"Failed to write {out} ({error.strerror}). Free disk space, or set another --out.") from error
    return count
