"""Reading of the embeddings that ``mmf_flava.embed`` wrote, in blocks, so that they may be larger than the memory."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmf_flava.errors import UserError
from mmf_flava.evaluation.embedding_files import IDS_FILE, ITEMS_FILE, ORIGIN, ORIGIN_FILE
from mmf_flava.evaluation.embedding_items import KINDS

BLOCK_ROWS = 16_384  # rows that are read at a time
AGAIN = "Write it again with `python -m mmf_flava.embed`."


class IndexedItem(NamedTuple):
    """An item of an index: its ID, its text, and its number in the source. Unknown values are None."""

    id: str
    text: str | None = None
    record: int | None = None


class EmbeddingIndex(Protocol):
    """Interface of the readers.

    Attributes:
        origin: where items and weights are, see ``describe_origin``; empty if the index was written by another program.
        kinds: the kinds of embeddings that the index has.
    """

    origin: dict[str, Any]
    kinds: tuple[str, ...]

    def __len__(self) -> int: ...

    def blocks(self, kind: str) -> Iterator[np.ndarray]:
        """Yield the embeddings of a kind in order, as float32 arrays of shape (rows, width)."""
        ...

    def items(self, rows: Sequence[int]) -> list[IndexedItem]:
        """Return the items of some rows, in the order of ``rows``."""
        ...


class ParquetIndex:
    """An index in a Parquet file, with the columns ``id``, ``KIND_vector`` and, if known, ``text`` and ``record``."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self.file = parquet.ParquetFile(path)
        schema = self.file.schema_arrow
        self.names = [name for name in IndexedItem._fields if name in schema.names]
        self.kinds = tuple(kind for kind in KINDS if f"{kind}_vector" in schema.names)
        if "id" not in self.names:
            raise ValueError("it has no column id")
        self.origin = _parse_origin((schema.metadata or {}).get(ORIGIN.encode(), b"{}"))

    def __len__(self) -> int:
        return int(self.file.metadata.num_rows)

    def blocks(self, kind: str) -> Iterator[np.ndarray]:
        for batch in self.file.iter_batches(BLOCK_ROWS, columns=[f"{kind}_vector"]):
            values = batch.column(0).flatten().to_numpy(zero_copy_only=False)
            if len(batch):
                yield np.array(values, np.float32).reshape(len(batch), -1)

    def items(self, rows: Sequence[int]) -> list[IndexedItem]:
        sizes = (self.file.metadata.row_group(number).num_rows for number in range(self.file.num_row_groups))
        found: dict[int, IndexedItem] = {}
        for group, (first, end) in enumerate(pairwise(accumulate(sizes, initial=0))):
            if wanted := [row for row in {*rows} if first <= row < end]:
                columns = self.file.read_row_group(group, self.names).to_pydict()
                found |= {row: IndexedItem(**{n: columns[n][row - first] for n in self.names}) for row in wanted}
        return [found[row] for row in rows]


class NumpyIndex:
    """An index in a folder of .npy files, which are not read into memory as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrays = {kind: np.load(path / f"{kind}.npy", "r") for kind in KINDS if (path / f"{kind}.npy").is_file()}
        self.kinds = tuple(self.arrays)
        has_items = (path / ITEMS_FILE).is_file()
        self.parse: Callable[[str], IndexedItem] = _parse_item if has_items else IndexedItem
        self.items_file = path / (ITEMS_FILE if has_items else IDS_FILE)
        origin = path / ORIGIN_FILE
        self.origin = _parse_origin(origin.read_bytes()) if origin.is_file() else {}
        self.size = sum(1 for _ in self._lines())
        for kind, array in self.arrays.items():
            if array.ndim != 2 or len(array) != self.size or array.dtype.kind != "f":
                raise ValueError(f"{kind}.npy is not an array of {self.size} rows of floats, as {self.items_file.name}")

    def __len__(self) -> int:
        return self.size

    def blocks(self, kind: str) -> Iterator[np.ndarray]:
        array = self.arrays[kind]
        for first in range(0, len(array), BLOCK_ROWS):
            yield np.array(array[first : first + BLOCK_ROWS], np.float32)

    def items(self, rows: Sequence[int]) -> list[IndexedItem]:
        wanted = {*rows}
        found = {row: self.parse(line.rstrip("\n")) for row, line in enumerate(self._lines()) if row in wanted}
        return [found[row] for row in rows]

    def _lines(self) -> Iterator[str]:
        with open(self.items_file, encoding="utf-8", errors="replace", newline="\n") as file:
            yield from file


def open_index(path: Path) -> EmbeddingIndex:
    """Open a Parquet file or a folder of .npy files that ``mmf_flava.embed`` wrote.

    Raises:
        UserError: the index was not found or is damaged, or pyarrow is not installed.
    """
    if not path.exists():
        raise UserError(
            f"{path} does not exist. Correct the path, or create it with `python -m mmf_flava.embed PHOTOS --weights "
            f"WEIGHTS --out {path}`."
        )
    try:
        index: EmbeddingIndex = NumpyIndex(path) if path.is_dir() else ParquetIndex(path)
    except ImportError as error:
        raise UserError("pyarrow is required to read Parquet. Run `pip install pyarrow`.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:  # pyarrow's errors are of these classes
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path}: not an index of embeddings ({reason}). {AGAIN}") from error
    if not index.kinds or not len(index):
        lacks = "no embeddings" if not index.kinds else "no items"
        raise UserError(f"{path}: not an index of embeddings ({lacks}). {AGAIN}")
    return index


def _parse_item(line: str) -> IndexedItem:
    values = json.loads(line)
    return IndexedItem(**{name: values.get(name) for name in IndexedItem._fields})


def _parse_origin(text: bytes) -> dict[str, Any]:
    origin = json.loads(text)
    return origin if isinstance(origin, dict) else {}
