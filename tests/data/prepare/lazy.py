"""The annotations of a reader, whose rows are functions."""

from collections.abc import Iterator

from mmf_flava.data.prepare.annotations import Annotation, LazyAnnotation


def evaluated(rows: Iterator[LazyAnnotation]) -> list[Annotation]:
    return [row() for row in rows]
