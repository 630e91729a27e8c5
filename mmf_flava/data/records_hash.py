"""Hash of a dataset's records. It is used to detect outdated caches, and other data in a resumed run."""

import hashlib
from collections.abc import Sequence

import numpy as np

from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Records, record_boundary
from mmf_flava.data.records import ConcatRecords
from mmf_flava.data.shards import ShardReader

SAMPLED = 64  # number of records whose content is hashed


def records_sha256(records: Records, extensions: Sequence[str] = IMAGE_EXTENSIONS) -> str:
    """Return a SHA-256 hash of a dataset's records and their order. Takes about a second for any number of records.

    The hash covers the number of records, the names and sizes of tar shards or the paths of image files, the entries of
    image lists if ``extensions`` contains json, and the content of 64 evenly spaced records. For tar shards, the
    checksums in the index replace the content, so the shards are not read, and remote copies of local shards have the
    same hash. A change to another record is not detected if all file sizes remain the same.

    Args:
        extensions: names of the record fields that are hashed.
    """
    digest = hashlib.sha256(f"{len(records)}\n".encode())
    for reader in getattr(records, "readers", [records]):
        for name, size in reader.shard_sizes() if isinstance(reader, ShardReader) else []:
            digest.update(f"{name} {size}\n".encode())
        for key in getattr(reader, "keys", []):
            digest.update(f"{key}\n".encode("utf-8", "surrogateescape"))
        digest.update(getattr(reader, "images_sha256", "").encode())
        if "json" in extensions:  # the captions and labels of an image list
            digest.update(getattr(reader, "lines_sha256", "").encode())
    for index in np.unique(np.linspace(0, len(records) - 1, SAMPLED).astype(np.int64)).tolist():
        reader, local_index = records.locate(index) if isinstance(records, ConcatRecords) else (records, index)
        try:
            with record_boundary(f"record {index}"):
                key, content = _content(reader, local_index, extensions)
        except BadRecord:
            digest.update(f"{index} unreadable\n".encode())
            continue
        digest.update(f"{index} {key}\n".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def _content(reader: Records, index: int, extensions: Sequence[str]) -> tuple[str, bytes]:
    """Return a record's key, and the bytes of its fields or, for tar shards, their checksums."""
    if isinstance(reader, ShardReader):
        key, checksums = reader.checksums(index, extensions)
        return key, str(sorted(checksums.items())).encode()
    record = reader.read(index, extensions)
    return record.key, b"".join(data for _, data in sorted(record.fields.items()))
