"""Splits of records by a hash of their content, for data without splits.

The split of a record depends on the bytes of its image, or on its text if it has no image, and on nothing else. Equal
images are therefore in one split, and neither the order of the files nor other records change the split of a record.
"""

import zlib
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Records, record_boundary
from mmf_flava.data.records import split_readers
from mmf_flava.data.shards import ShardReader


def content_positions(records: Records) -> np.ndarray:
    """Return for each record a number in [0, 1) that is determined by its content: float64, (N,).

    The images of files are read once; for tar shards, the checksums in the index replace the images. A record that
    cannot be read has a number that is determined by its key.
    """
    return np.array([_position(reader, index) for reader in split_readers(records) for index in range(len(reader))])


def select(positions: np.ndarray, start: float, share: float) -> np.ndarray:
    """Return the indices of the records whose numbers are in [start, start + share), in file order."""
    return np.flatnonzero((positions >= start) & (positions < start + share))


def _position(reader: Records, index: int) -> float:
    size, checksum = _content(reader, index)
    digest = blake2b(f"{size} {checksum}".encode(), digest_size=7).digest()
    return int.from_bytes(digest) / 2**56


def _content(reader: Records, index: int) -> tuple[int, int]:
    """Return the size and the CRC-32 of a record's image or, if it has none, of its text or else its key."""
    try:
        with record_boundary(f"record {index}"):
            if isinstance(reader, ShardReader):
                _, checksums = reader.checksums(index, IMAGE_EXTENSIONS)
                if found := _first_image(list(checksums)):
                    return checksums[found]
            fields = reader.read(index, IMAGE_EXTENSIONS).fields
            if found := _first_image(list(fields)):
                return len(fields[found]), zlib.crc32(fields[found])
            captions, _ = parse_annotation(reader.read(index, ("json", "txt")))
            return _checksum("\n".join(" ".join(caption.split()) for caption in captions))
    except BadRecord as error:
        return _checksum(error.key or f"record {index}")


def _first_image(names: Sequence[str]) -> str | None:
    return next((name for name in IMAGE_EXTENSIONS if name in names), None)


def _checksum(text: str) -> tuple[int, int]:
    data = text.encode("utf-8", "surrogatepass")
    return len(data), zlib.crc32(data)
