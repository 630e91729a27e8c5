"""The rows of annotation files from any row on, as results of a preparation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmf_flava.data.prepare.annotation_converter import AnnotationConverter
from mmf_flava.data.prepare.annotations import Annotation, AnnotationReader
from mmf_flava.data.prepare.row_tasks import RowResult
from mmf_flava.data.prepare.rows import BadRow, convert_row, file_boundary, refuse_other_format
from mmf_flava.errors import UserError


@dataclass
class AnnotationRows:
    """The annotations of several files. Rows before the first one are read, but neither parsed nor converted.

    Args:
        other_format: function that creates the error of a file from its path and the problem.
    """

    files: list[Path]
    reader: AnnotationReader
    other_format: Callable[[Path, str], UserError]
    _first: int = field(default=0, init=False)
    _next: int = field(default=0, init=False)
    _rows: Iterator[Annotation] | None = field(default=None, init=False)

    def read(self, first: int) -> Iterator[Annotation]:
        """Return the annotations from row ``first`` on. An iterator that was returned before must not be used again.

        Raises:
            UserError: a file is not in the format of the reader, or is truncated.
        """
        if self._rows is None or first < self._next:
            self._rows = self._read()
        self._first = first
        return self._rows

    def _read(self) -> Iterator[Annotation]:
        self._next = 0
        for path in self.files:
            other_format = partial(self.other_format, path)
            with file_boundary(other_format):
                # the first rows of each file are converted to check the format
                for annotation in refuse_other_format(self.reader(path), lambda row: row().bad, other_format):
                    self._next += 1
                    if self._next > self._first:
                        yield annotation()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_first": 0, "_next": 0, "_rows": None}


@dataclass
class PairRows:
    """Results of the rows of annotation files, see ``ShardPreparation``."""

    annotations: AnnotationRows
    converter: AnnotationConverter

    def __call__(self, work: Path, first: int) -> Iterator[RowResult]:
        images = work / "images"
        for annotation in self.annotations.read(first):
            if annotation.image is None and not annotation.dropped:
                self.converter.open_images(images)  # outside of the boundary of a row
            result = convert_row(annotation, self.converter.convert)
            yield RowResult(bad=result) if isinstance(result, BadRow) else result
