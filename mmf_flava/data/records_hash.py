"""The hash by which cached codes know the records that they were made of."""

import hashlib
from collections.abc import Sequence

import numpy as np

from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Records
from mmf_flava.data.records import Concatenated
from mmf_flava.data.shards import ShardReader

SAMPLED = 64  # records whose content goes into the hash


def records_sha256(records: Records, parts: Sequence[str] = IMAGE_EXTENSIONS) -> str:
    """A hash that tells another set of records, or another order, from this one in about a second at any size.

    It covers the number of records, the names and sizes of tar shards or the paths of image files, and the images of
    64 records spread evenly: their bytes, or their checksums in the index of a shard, which itself is not read, so that
    remote shards have the hash of local ones. An image elsewhere that was replaced by one of the same size goes
    unnoticed.

    Args:
        parts: of a record what counts as its content, by extension.
    """
    digest = hashlib.sha256(f"{len(records)}\n".encode())
    for reader in getattr(records, "readers", [records]):
        for name, size in reader.shard_sizes() if isinstance(reader, ShardReader) else []:
            digest.update(f"{name} {size}\n".encode())
        for key in getattr(reader, "keys", []):
            digest.update(f"{key}\n".encode("utf-8", "surrogateescape"))
        digest.update(getattr(reader, "images_sha256", "").encode())
    for index in np.unique(np.linspace(0, len(records) - 1, SAMPLED).astype(np.int64)).tolist():
        reader, inside = records.locate(index) if isinstance(records, Concatenated) else (records, index)
        try:
            key, content = _content(reader, inside, parts)
        except BadRecord:
            digest.update(f"{index} unreadable\n".encode())
            continue
        digest.update(f"{index} {key}\n".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def _content(reader: Records, index: int, parts: Sequence[str]) -> tuple[str, bytes]:
    """A record's key, and the bytes of these parts or their checksums."""
    if isinstance(reader, ShardReader):
        key, checksums = reader.checksums(index, parts)
        return key, str(sorted(checksums.items())).encode()
    record = reader.read(index, parts)
    return record.key, b"".join(data for _, data in sorted(record.parts.items()))
