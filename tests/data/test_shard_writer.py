"""Shards are written as by tarfile, and their index is the one that a scan would give."""

import hashlib
import io
import random
import string
import tarfile

import pytest

from mmf_flava.data import shard_writer
from mmf_flava.data.shard_index import index_path, write_index
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader

RNG = random.Random(0)
PLAIN = ["000", "a b", "part/000", "x" * 90, "a#1", "0" * 99]
UNUSUAL = [".hidden", "1.jpg", "Größe", "line\nbreak", "a" * 300, "__MACOSX/x", "record-000000003", "a/", ""]
EXTENSIONS = ["jpg", "json", "txt", "seg.png", "a_b", "cls2"]


def random_records(names):
    """Return records with repeated keys, whose fields are up to two blocks long."""
    keys = [*names, *names[:3], *("".join(RNG.choices(string.printable, k=RNG.randint(1, 12))) for _ in names[:3])]
    return [
        (key, {name: RNG.randbytes(RNG.randint(0, 1100)) for name in RNG.sample(EXTENSIONS, RNG.randint(1, 3))})
        for key in keys
    ]


@pytest.mark.parametrize("names", [PLAIN, [*PLAIN, *UNUSUAL]])
@pytest.mark.parametrize("extensions", [{}, {"UP": b"1"}, {"a-b": b"1"}, {"": b"1"}])
def test_index_is_that_of_a_scan(tmp_path, names, extensions):
    path = tmp_path / "a.tar"
    with ShardWriter(path) as shard:
        for key, fields in random_records(names):
            shard.write(key, fields | extensions)
    written = index_path(path).read_bytes()
    write_index(path)
    assert index_path(path).read_bytes() == written
    assert len(ShardReader([path])) == shard.count


def test_plain_shards_are_not_scanned(tmp_path, monkeypatch):
    monkeypatch.setattr("mmf_flava.data.shard_index.scan_shard", None)
    with ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("a", {"txt": b"1", "jpg": b"2"})
    assert ShardReader([tmp_path / "a.tar"])[0].fields == {"jpg": b"2", "txt": b"1"}


@pytest.mark.parametrize("count", [0, 1, 9, 40])
def test_bytes_are_those_of_tarfile(tmp_path, count):
    """9 empty members and the end are one record of the tar, 10,240 bytes."""
    names = [f"{number:03d}" for number in range(count)]
    with ShardWriter(tmp_path / "a.tar") as shard:
        for number, name in enumerate(names):
            shard.write(name, {"bin": bytes(number)})
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(f"{name}.bin")
            member.size = number
            tar.addfile(member, io.BytesIO(bytes(number)))
    assert (tmp_path / "a.tar").read_bytes() == expected.getvalue()


def test_hash_is_that_of_the_file(tmp_path, monkeypatch):
    """The file is written in parts, some of which end within a record."""
    monkeypatch.setattr(shard_writer, "BUFFER", 4096)
    with ShardWriter(tmp_path / "a.tar") as shard:
        for key, fields in random_records([*PLAIN, *UNUSUAL]):
            shard.write(key, fields)
    assert shard.sha256 == hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()


def test_a_full_disk_at_the_end_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="No space"), ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("a", {"txt": b"1"})
        shard._file.close()
        shard._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "size"), [("a.jpg", 0), ("ü.jpg", 5), ("a" * 101, 5), ("a" * 100, 5), ("a", 8**11)])
def test_headers_are_those_of_tarfile(name, size):
    member = tarfile.TarInfo(name)
    member.size = size
    plain = shard_writer.plain_header(name, size)
    assert (plain or shard_writer.pax_header(name, size, {})) == member.tobuf(tarfile.PAX_FORMAT)
    assert (plain is None) == (name != "a.jpg" and name != "a" * 100)


def test_a_key_with_a_number_is_not_given_twice(tmp_path):
    with ShardWriter(tmp_path / "a.tar") as shard:
        for key in ("a#2", "a", "a", "record-000000004", ".x"):
            shard.write(key, {"txt": key.encode()})
    reader = ShardReader([tmp_path / "a.tar"])
    assert [reader[n].key for n in range(5)] == ["a#2", "a", "a#3", "record-000000004", ".x"]
    assert [reader[n].fields["txt"] for n in range(5)] == [b"a#2", b"a", b"a", b"record-000000004", b".x"]
