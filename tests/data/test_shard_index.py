"""Size and damage of shard indexes."""

import io
import json
import os
import shutil
import struct
import tarfile
import zlib

import numpy as np
import pytest

from mmf_flava.data import open_shard, shard_index
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.shard_index import encode_index, index_path, load_index, read_index
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader

KEYS = [f"{n:03d}" for n in range(8)]


def write_tar(path, names, kind=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=kind) as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    return path


@pytest.fixture
def shard(tmp_path):
    with ShardWriter(tmp_path / "a.tar") as writer:
        for number, key in enumerate(KEYS):
            writer.write(key, {"jpg": bytes([number]) * 50, "json": b"{}"})
    return tmp_path / "a.tar"


@pytest.mark.parametrize(
    "names",
    [
        [f"a{n}.{n}.jpg" for n in range(1000)],  # an extension for each member
        [f"{n}.jpg" for n in range(300)] + ["n" * 100_000 + ".jpg", "1." + "e" * 100_000],
        [f"{folder}{n}.{part}" for n in range(300) for folder in ("", "._") for part in ("jpg", "txt")],
        [f"1.{n}" for n in range(1000)],
        [f"{'d/' * 50}{n}.jpg" for n in range(500)],
    ],
    ids=["extensions", "long names", "AppleDouble", "one record", "folders"],
)
def test_index_is_smaller_than_its_tar(tmp_path, names):
    path = write_tar(tmp_path / "a.tar", names)
    reader = ShardReader([path])
    read = {
        f"{record.key}.{extension}" for record in map(reader.read, range(len(reader))) for extension in record.fields
    }
    assert read == {name for name in names if not name.startswith("._")}
    # a member has at least 1,024 bytes in the tar, and 28 bytes and its name in the index
    assert index_path(path).stat().st_size < path.stat().st_size / 2


def old_index(dtype, count=8, start=4096):
    """Return an index in the format of older versions, which stated a dtype."""
    header = {"version": 1, "count": count, "tar_bytes": 1, "tar_mtime_ns": 0, "data_start": start, "dtype": dtype}
    return json.dumps(header).encode().ljust(start - 1) + b"\n" + b"A" * 8 * count


def with_checksum(header):
    return header + struct.pack("<I", zlib.crc32(header))


def header(count=8, rows=0, magic=shard_index.MAGIC, version=shard_index.INDEX_VERSION):
    return with_checksum(shard_index.HEADER.pack(magic, version, 0, count, 10240, 0, rows))


INVALID = {
    "empty": b"",
    "pointers": old_index([["key", "|O"]]),
    "nested header": b"[" * 200_000,
    "long header": b'{"version": 1' + b" " * 3_000_000,
    "page of a server": b"<html>log in</html>",
    "count of 2^64": header(count=2**64 - 1) + bytes(100),
    "size of 2^64": header(rows=2**64 - 1) + bytes(100),
    "sum of 2^64": header(count=2**61 - 1, rows=2**64 - 72) + bytes(100),  # overflows to the size of the file
    "other version": header(version=3) + bytes(72),
    "cut header": header()[:-1],
    "cut starts": header() + bytes(71),
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_index_is_built_again(shard, kind):
    index_path(shard).write_bytes(INVALID[kind])
    assert read_index(shard) is None and load_index(shard, None) is None
    reader = ShardReader([shard])
    assert [reader.read(n).key for n in range(len(reader))] == KEYS
    assert read_index(shard) is not None


def test_indexes_of_unusual_files_are_missing(shard):
    index_path(shard).unlink()
    index_path(shard).symlink_to(index_path(shard))
    assert read_index(shard) is None
    index_path(shard).unlink()
    index_path(shard).mkdir()
    assert read_index(shard) is None


def mutate(data, rng):
    """Change, remove, insert or repeat a few bytes."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at, size = int(rng.integers(len(data))), int(rng.integers(1, 9))
        new = rng.bytes(size) if rng.random() < 0.5 else bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])]) * size
        kind = rng.integers(4)
        if kind == 0:
            data[at : at + size] = new[: len(data) - at]
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = new
        else:
            data[at : at + size] = data[: len(data[at : at + size])]
    return bytes(data)


def test_mutated_index_delivers_only_unchanged_records(shard):
    original, rng = index_path(shard).read_bytes(), np.random.default_rng(0)
    reader = ShardReader([shard])
    records = [reader.read(n) for n in range(len(reader))]
    rejected, bad, good = 0, 0, 0
    for _ in range(400):
        index_path(shard).write_bytes(mutate(original, rng))
        if read_index(shard) is None:
            rejected += 1
            continue
        reader = ShardReader([shard])
        assert len(reader) == len(records)
        for number, record in enumerate(records):
            try:
                assert reader.read(number) == record
                good += 1
            except BadRecord as error:
                assert error.reason is Reason.CHANGED
                bad += 1
    assert rejected > 100 and bad > 100 and good > 100


@pytest.mark.parametrize(
    ("offset", "size"), [(512, 1 << 45), (1 << 63, 1 << 63), (2**64 - 1, 1), (512, 2**64 - 512), (1 << 20, 1)]
)
def test_byte_ranges_outside_the_tar_cost_one_record(shard, offset, size):
    """Also in an index whose checksums are correct."""
    records = {"000": {"jpg": (offset, size, 0)}, "001": {"jpg": (512, 50, zlib.crc32(bytes(50)))}}
    stat = shard.stat()
    index_path(shard).write_bytes(encode_index(records, False, stat.st_size, stat.st_mtime_ns))
    reader = ShardReader([shard])
    with pytest.raises(BadRecord, match=r"000\.jpg does not match its checksum") as caught:
        reader.read(0)
    assert caught.value.reason is Reason.CHANGED and reader.read(1).fields == {"jpg": bytes(50)}


def test_number_of_fields_beyond_the_row_costs_one_record(shard):
    content = bytearray(index_path(shard).read_bytes())
    index = read_index(shard)
    (end,) = struct.unpack_from("<Q", content, shard_index.STARTS_OFFSET + 8)
    row = content[index.rows_offset : index.rows_offset + end]
    row[4:8] = b"\xff" * 4
    row[:4] = struct.pack("<I", zlib.crc32(row[4:], 0))
    content[index.rows_offset : index.rows_offset + end] = row
    index_path(shard).write_bytes(content)
    reader = ShardReader([shard])
    with pytest.raises(BadRecord, match=r"a\.tar\.index: record 0 is damaged\. Delete the file, so that it is built"):
        reader.read(0)
    assert reader.read(1).key == "001"


def test_index_that_changes_after_opening_costs_its_records(shard):
    reader = ShardReader([shard])
    assert reader.read(0).key == "000"
    os.truncate(index_path(shard), 400)
    with pytest.raises(BadRecord, match=r"is damaged|truncated"):
        reader.read(7)
    reader.close()
    os.truncate(index_path(shard), 0)
    with pytest.raises(BadRecord, match="the index was replaced after it had been opened"):
        reader.read(0)


@pytest.mark.parametrize("damage", ["none", "starts", "truncated"])
def test_starts_in_memory_deliver_the_same_records(shard, damage, monkeypatch):
    content = bytearray(index_path(shard).read_bytes())
    if damage == "starts":
        content[shard_index.STARTS_OFFSET + 3 * 8 + 4] = 1  # adds 2^32
        index_path(shard).write_bytes(content)
    results = []
    for reads_before in (10**9, 0):
        monkeypatch.setattr(open_shard, "READS_BEFORE_STARTS", reads_before)
        reader = ShardReader([shard])
        reader.read(0)
        if damage == "truncated":
            os.truncate(index_path(shard), len(content) - 10)
        results.append([])
        for number in range(len(KEYS)):
            try:
                results[-1].append(reader.read(number))
            except BadRecord as error:
                results[-1].append(str(error))
        if damage == "truncated":
            index_path(shard).write_bytes(content)
    assert results[0] == results[1]
    bad = [number for number, result in enumerate(results[0]) if isinstance(result, str)]
    assert bad == {"none": [], "starts": [2, 3], "truncated": [7]}[damage]


def test_index_in_memory_equals_the_file(shard, caplog):
    expected = ShardReader([shard]).read(3)
    index_path(shard).unlink()
    index_path(shard).mkdir()
    reader = ShardReader([shard])
    assert reader.read(3) == expected and "the index cannot be written" in caplog.text


def test_folder_deleted_while_the_index_is_written(tmp_path, shard, monkeypatch):
    def deleted(path, content):
        shutil.rmtree(tmp_path)
        raise FileNotFoundError(path)

    monkeypatch.setattr(shard_index.atomic, "write_bytes", deleted)
    with pytest.raises(FileNotFoundError):
        shard_index.write_index(shard, {})
