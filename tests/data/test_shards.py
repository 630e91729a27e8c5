import io
import multiprocessing
import os
import pickle
import tarfile
import time

import numpy as np
import pytest

from mmf_flava.data import shard_index, shards
from mmf_flava.data.record import BadRecord, Record
from mmf_flava.data.shard_index import read_index, split_member_name
from mmf_flava.data.shards import ShardReader, ShardWriter
from mmf_flava.errors import UserError


def write(path, start, count):
    with ShardWriter(path) as shard:
        for n in range(start, start + count):
            shard.write(f"{n:03d}", {"png": bytes([n]) * n, "json": b"{}"})
    return path


@pytest.fixture
def two(tmp_path):
    return [write(tmp_path / "a.tar", 0, 3), write(tmp_path / "b.tar", 3, 2)]


def test_records_come_back_across_shards(two):
    reader = ShardReader(two)
    assert len(reader) == 5
    assert [reader[n].key for n in range(5)] == ["000", "001", "002", "003", "004"]
    assert reader[4] == Record("004", {"json": b"{}", "png": b"\x04\x04\x04\x04"})
    assert reader[0].parts["png"] == b""
    assert reader.read(4, only=("json",)).parts == {"json": b"{}"}
    with pytest.raises(IndexError):
        reader[5]


def test_member_names_follow_webdataset():
    assert split_member_name("some.dir/000123.seg.PNG") == ("some.dir/000123", "seg.png")
    assert split_member_name("000123.jpg") == ("000123", "jpg")


def test_a_foreign_tar_with_uneven_records_is_read(tmp_path):
    path = tmp_path / "foreign.tar"
    members = {"x/1.jpg": b"J", "x/1.txt": b"one", "x/2.txt": b"two", "x/1.json": b"late"}
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("x"))
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    reader = ShardReader([path])
    found = {reader[n].key: reader[n].parts for n in range(len(reader))}
    assert found["x/1"] == {"jpg": b"J", "txt": b"one", "json": b"late"}
    assert found["x/2"] == {"txt": b"two"}


def test_the_index_is_mapped_and_written_once(two, monkeypatch):
    monkeypatch.setattr(shard_index, "scan_shard", lambda path: pytest.fail("the shard was scanned again"))
    reader = ShardReader(two)
    assert not reader._rows, "opening reads headers only"
    assert reader[0].key == "000"
    assert isinstance(reader._rows[0].base, np.memmap)


def test_a_missing_or_stale_index_is_made_anew(two):
    index = two[0].with_name("a.tar.index")
    index.unlink()
    assert len(ShardReader(two)) == 5
    assert index.is_file()
    time.sleep(0.01)
    write(two[0], 10, 4)
    os.utime(index, ns=(0, 0))
    assert [ShardReader(two)[n].key for n in range(4)] == ["010", "011", "012", "013"]
    index.write_bytes(index.read_bytes()[:-1])
    assert read_index(two[0]) is None
    assert len(ShardReader(two)) == 6


def test_a_copy_with_other_times_keeps_its_index(two):
    later = time.time_ns()
    os.utime(two[0], ns=(later, later))
    os.utime(two[0].with_name("a.tar.index"), ns=(later + 10**9, later + 10**9))
    assert read_index(two[0]) is not None
    os.utime(two[0], ns=(later + 2 * 10**9, later + 2 * 10**9))
    assert read_index(two[0]) is None


def test_a_changed_byte_is_noticed(two):
    reader = ShardReader(two)
    offset = int(reader._shard_rows(1)[1]["png"]["offset"])
    with open(two[1], "r+b") as file:
        file.seek(offset)
        file.write(b"!")
    with pytest.raises(BadRecord, match=r"004\.png"):
        reader[4]
    assert reader[3].key == "003"


def test_a_failed_writer_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("1", {"txt": b"x"})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_same_records_give_the_same_bytes(tmp_path):
    assert write(tmp_path / "a.tar", 0, 3).read_bytes() == write(tmp_path / "b.tar", 0, 3).read_bytes()


def test_what_is_no_tar_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<html>not here</html>" * 100)
    with pytest.raises(UserError, match=r"a\.tar"):
        ShardReader([tmp_path / "a.tar"])
    with pytest.raises(UserError, match="does not exist"):
        ShardReader([tmp_path / "b.tar"])


def _keys(reader, queue):
    queue.put([reader[n].key for n in (4, 0, 3)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_work_in_other_processes(two, method):
    reader = ShardReader(two)
    reader[0]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_keys, args=(reader, queue))
    process.start()
    assert queue.get(timeout=30) == ["004", "000", "003"]
    process.join()
    assert reader[1].key == "001"


def test_pickling_keeps_neither_files_nor_maps(two):
    reader = ShardReader(two)
    reader[0]
    assert len(pickle.dumps(reader)) < 2000
    assert pickle.loads(pickle.dumps(reader))[0].key == "000"


def test_open_files_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_OPEN_FILES", 2)
    reader = ShardReader([write(tmp_path / f"{n}.tar", n, 1) for n in range(5)])
    assert [reader[n].key for n in range(5)] == [f"{n:03d}" for n in range(5)]
    assert len(reader._files) == 2


def test_a_shard_cut_short_keeps_what_is_whole(tmp_path, caplog):
    """Cut inside the picture of the third of four records: two are whole, one is bad, of the rest nobody knows."""
    path = write(tmp_path / "a.tar", 0, 4)
    offset = int(ShardReader([path])._shard_rows(0)[2]["png"]["offset"])
    os.truncate(path, offset + 1)
    for _ in range(2):  # the second time its index is there already
        caplog.clear()
        reader = ShardReader([path])
        assert "a.tar is cut short" in caplog.text and len(reader) == 3
        assert [reader[n].key for n in range(2)] == ["000", "001"]
        with pytest.raises(BadRecord, match=r"002\.png"):
            reader[2]


def test_a_member_that_comes_twice_counts_once(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("1.txt", b"first"), ("2.txt", b"other"), ("1.txt", b"again")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    reader = ShardReader([tmp_path / "a.tar"])
    assert [reader[n].parts["txt"] for n in range(len(reader))] == [b"first", b"other"]


@pytest.mark.parametrize("lost", ["a.tar", "a.tar.index"])
def test_what_vanishes_while_a_run_goes_on_costs_its_records_only(two, lost):
    reader = ShardReader(two)
    two[0].with_name(lost).unlink()
    with pytest.raises(BadRecord, match=r"cannot be (opened|read)"):
        reader[0]
    assert reader[4].key == "004"
