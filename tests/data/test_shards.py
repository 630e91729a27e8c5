import io
import multiprocessing
import os
import pickle
import tarfile
import time

import pytest

from mmf_flava.data import shard_index, shards
from mmf_flava.data.record import BadRecord, Record
from mmf_flava.data.shard_index import read_index
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader, find_shards
from mmf_flava.data.tar_members import KEY_HEADER
from mmf_flava.errors import UserError


def write_shard(path, start, count):
    with ShardWriter(path) as shard:
        for n in range(start, start + count):
            shard.write(f"{n:03d}", {"png": bytes([n]) * n, "json": b"{}"})
    return path


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def two_shards(tmp_path):
    return [write_shard(tmp_path / "a.tar", 0, 3), write_shard(tmp_path / "b.tar", 3, 2)]


def test_reads_records_across_shards(two_shards):
    reader = ShardReader(two_shards)
    assert len(reader) == 5
    assert [reader[n].key for n in range(5)] == ["000", "001", "002", "003", "004"]
    assert reader[4] == Record("004", {"json": b"{}", "png": b"\x04\x04\x04\x04"})
    assert reader[0].fields["png"] == b""
    assert reader.read(4, only=("json",)).fields == {"json": b"{}"}
    with pytest.raises(IndexError):
        reader[5]


def test_reads_third_party_tar_with_uneven_records(tmp_path):
    path = tmp_path / "other.tar"
    members = {"x/1.jpg": b"J", "x/1.txt": b"one", "x/2.txt": b"two", "x/1.json": b"late"}
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("x"))
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    reader = ShardReader([path])
    found = {reader[n].key: reader[n].fields for n in range(len(reader))}
    assert found["x/1"] == {"jpg": b"J", "txt": b"one", "json": b"late"}
    assert found["x/2"] == {"txt": b"two"}


def test_opening_reads_only_headers_and_indexes_are_written_once(two_shards, monkeypatch):
    monkeypatch.setattr(shard_index, "scan_shard", lambda path: pytest.fail("the shard was scanned again"))
    reader = ShardReader(two_shards)
    assert len(reader._open_shards) == 0
    assert reader[0].key == "000"
    assert 0 in reader._open_shards and 1 not in reader._open_shards


def test_missing_or_stale_index_is_rebuilt(two_shards):
    index = two_shards[0].with_name("a.tar.index")
    index.unlink()
    assert len(ShardReader(two_shards)) == 5
    assert index.is_file()
    time.sleep(0.01)
    write_shard(two_shards[0], 10, 4)
    os.utime(index, ns=(0, 0))
    assert [ShardReader(two_shards)[n].key for n in range(4)] == ["010", "011", "012", "013"]
    index.write_bytes(index.read_bytes()[:-1])
    assert read_index(two_shards[0]) is None
    assert len(ShardReader(two_shards)) == 6


def test_index_stays_valid_after_copying(two_shards):
    later = time.time_ns()
    os.utime(two_shards[0], ns=(later, later))
    os.utime(two_shards[0].with_name("a.tar.index"), ns=(later + 10**9, later + 10**9))
    assert read_index(two_shards[0]) is not None
    os.utime(two_shards[0], ns=(later + 2 * 10**9, later + 2 * 10**9))
    assert read_index(two_shards[0]) is None


def test_changed_byte_raises_bad_record(two_shards):
    reader = ShardReader(two_shards)
    offset = reader._read_row(4)[2]["png"][0]
    with open(two_shards[1], "r+b") as file:
        file.seek(offset)
        file.write(b"!")
    with pytest.raises(BadRecord, match=r"004\.png"):
        reader[4]
    assert reader[3].key == "003"


def test_failed_writer_leaves_no_files(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("1", {"txt": b"x"})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_equal_records_give_equal_bytes(tmp_path):
    assert write_shard(tmp_path / "a.tar", 0, 3).read_bytes() == write_shard(tmp_path / "b.tar", 0, 3).read_bytes()


def test_missing_or_invalid_tar_raises(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<html>not here</html>" * 100)
    with pytest.raises(UserError, match=r"a\.tar"):
        ShardReader([tmp_path / "a.tar"])
    with pytest.raises(UserError, match=r"b\.tar: the shard cannot be read \(No such file"):
        ShardReader([tmp_path / "b.tar"])


def _read_keys(reader, queue):
    queue.put([reader[n].key for n in (4, 0, 3)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reader_works_in_other_processes(two_shards, method):
    reader = ShardReader(two_shards)
    reader[0]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_read_keys, args=(reader, queue))
    process.start()
    assert queue.get(timeout=30) == ["004", "000", "003"]
    process.join()
    assert reader[1].key == "001"


def test_pickle_contains_no_files(two_shards):
    reader = ShardReader(two_shards)
    reader[0]
    assert len(pickle.dumps(reader)) < 2000
    assert pickle.loads(pickle.dumps(reader))[0].key == "000"


def test_number_of_open_files_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_OPEN_SHARDS", 2)
    before = open_files()
    reader = ShardReader([write_shard(tmp_path / f"{n}.tar", n, 1) for n in range(5)])
    assert [reader[n].key for n in range(5)] == [f"{n:03d}" for n in range(5)]
    assert open_files() == before + 2 * 2, "the tar and the index of two shards"
    monkeypatch.setattr(shards, "SPARE_SHARDS", 1)
    assert reader.keep_open(3) == 4
    assert [reader[n].key for n in range(5)] == [f"{n:03d}" for n in range(5)]
    assert open_files() == before + 2 * 4
    reader.close()
    assert open_files() == before


def test_truncated_shard_keeps_complete_records(tmp_path, caplog):
    """Truncated in the image of the third of four records: two are complete, one is corrupt, the fourth is lost."""
    path = write_shard(tmp_path / "a.tar", 0, 4)
    offset = ShardReader([path])._read_row(2)[2]["png"][0]
    os.truncate(path, offset + 1)
    for _ in range(2):  # the second time the index exists
        caplog.clear()
        reader = ShardReader([path])
        assert "a.tar is truncated" in caplog.text and len(reader) == 3
        assert [reader[n].key for n in range(2)] == ["000", "001"]
        with pytest.raises(BadRecord, match=r"002\.png"):
            reader[2]


def test_first_of_duplicate_members_is_used(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("1.txt", b"first"), ("2.txt", b"other"), ("1.txt", b"again")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    reader = ShardReader([tmp_path / "a.tar"])
    assert [reader[n].fields["txt"] for n in range(len(reader))] == [b"first", b"other"]


def test_keys_may_be_any_text(tmp_path):
    keys = [
        "1.jpg",
        "a.b/c.d",
        ".hidden",
        "__MACOSX/x",
        "Größe 1,5",
        "line\nbreak",
        "a" * 300,
        "plain",
        "record-000000007",
    ]
    with ShardWriter(tmp_path / "a.tar") as shard:
        for number, key in enumerate([*keys, "plain", "1.jpg"]):
            shard.write(key, {"png": bytes([number]), "json": b"{}"})
    (tmp_path / "a.tar.index").unlink()
    reader = ShardReader([tmp_path / "a.tar"])
    shown = [key.replace("\n", "\\x0a") for key in keys]
    assert [reader[n].key for n in range(len(reader))] == [*shown, "plain#9", "1.jpg#10"]
    assert [reader[n].fields["png"][0] for n in range(11)] == [*range(11)]


def test_a_key_in_a_header_that_another_record_has_is_not_used(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, key in (("a.png", "b"), ("b.png", "c"), ("d.png", "c"), ("e.png", "x\0y")):
            member = tarfile.TarInfo(name)
            member.pax_headers = {KEY_HEADER: key}
            tar.addfile(member)
    reader = ShardReader([tmp_path / "a.tar"])
    assert [reader[n].key for n in range(4)] == ["a", "c", "d", "e"]


@pytest.mark.parametrize("lost", ["a.tar", "a.tar.index"])
def test_deleted_file_only_affects_its_own_records(two_shards, lost):
    reader = ShardReader(two_shards)
    two_shards[0].with_name(lost).unlink()
    with pytest.raises(BadRecord, match=r"cannot be (opened|read)"):
        reader[0]
    assert reader[4].key == "004"


def test_system_reads_the_records_of_open_shards_in_advance(tmp_path, monkeypatch):
    for shard in range(2):
        with ShardWriter(tmp_path / f"{shard:05d}.tar") as writer:
            for number in range(2):
                writer.write(f"{shard}{number}", {"jpg": b"image", "json": b"{}"})
    reader, hints = ShardReader(find_shards(tmp_path)), []
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, *hint: hints.append(hint))
    reader.read_ahead(1)
    reader.read(0)
    for index in (1, 2):
        reader.read_ahead(index)
    entries = reader._read_row(1)[2]
    assert hints == [(offset, size, os.POSIX_FADV_WILLNEED) for offset, size, _ in entries.values()]
    (tmp_path / "00000.tar.index").write_bytes(b"")
    reader.read_ahead(1)
    assert len(reader._open_shards) == 1
