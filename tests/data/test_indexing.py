import multiprocessing
import os
import threading
import time

import pytest

from mmf_flava.data import indexing, shard_index
from mmf_flava.data.indexing import open_indexes, read_indexes
from mmf_flava.data.shard_index import index_path
from mmf_flava.data.shards import ShardReader, ShardWriter
from mmf_flava.errors import UserError


@pytest.fixture
def bare(tmp_path):
    """Five shards of one to five records, without indexes."""
    shards = [tmp_path / f"{n}.tar" for n in range(5)]
    for n, shard in enumerate(shards):
        with ShardWriter(shard) as writer:
            for record in range(n + 1):
                writer.write(f"{n}{record}", {"txt": b"x"})
        index_path(shard).unlink()
    return shards


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """A slow scan that notes (process, shard); ``scans()`` is what was noted, by this process and by forked ones."""
    log, scan = tmp_path / "log", shard_index.scan_shard
    log.touch()

    def slow(path):
        with open(log, "a") as file:
            file.write(f"{os.getpid()} {path.name}\n")
        time.sleep(0.1)
        return scan(path)

    monkeypatch.setattr(shard_index, "scan_shard", slow)
    return lambda: [line.split() for line in log.read_text().splitlines()]


def test_missing_indexes_are_made_by_other_processes(bare, scans, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert [index.count for index in open_indexes(bare)] == [1, 2, 3, 4, 5]
    assert sorted(name for _, name in scans()) == [shard.name for shard in bare]
    processes = {process for process, _ in scans()}
    assert 1 < len(processes) <= 3 and str(os.getpid()) not in processes
    assert [index.count for index in read_indexes(bare)] == [1, 2, 3, 4, 5]
    assert not list(bare[0].parent.glob(".*")), "neither locks nor half files are left"


def test_a_slow_disk_is_read_by_threads(bare, monkeypatch):
    open_indexes(bare)
    readers, read = [], indexing.read_index
    monkeypatch.setattr(indexing, "PROBED", 2)
    monkeypatch.setattr(indexing, "SLOW", 0.01)
    for seconds in (0, 0.05):
        readers.clear()
        monkeypatch.setattr(
            indexing,
            "read_index",
            lambda shard, seconds=seconds: (
                time.sleep(seconds) or readers.append(threading.current_thread().name) or read(shard)
            ),
        )
        assert [index.count for index in read_indexes(bare)] == [1, 2, 3, 4, 5]
        assert readers[:2] == ["MainThread"] * 2
        assert ("MainThread" in readers[2:]) == (seconds == 0)


def _open(shards, barrier, queue):
    barrier.wait()
    queue.put(len(ShardReader(shards)))


def test_each_index_is_made_once_when_several_processes_start_together(bare, scans):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(3), context.Queue()
    ranks = [context.Process(target=_open, args=(bare, barrier, queue)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    assert [queue.get(timeout=60) for _ in ranks] == [15, 15, 15]
    for rank in ranks:
        rank.join()
    assert sorted(name for _, name in scans()) == [shard.name for shard in bare]


def test_a_daemon_which_may_have_no_children_scans_by_itself(bare, scans):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(1), context.Queue()
    worker = context.Process(target=_open, args=(bare, barrier, queue), daemon=True)
    worker.start()
    assert queue.get(timeout=60) == 15
    assert {process for process, _ in scans()} == {str(worker.pid)}
    worker.join()


def test_a_lock_that_was_left_holds_nobody_up(bare):
    bare[0].with_name(".0.tar.index.lock").touch()
    assert len(ShardReader(bare)) == 15
    assert not list(bare[0].parent.glob(".*"))


def test_a_folder_that_cannot_be_written_to_costs_only_time(bare, caplog):
    index_path(bare[1]).mkdir()  # as good as a read-only folder, also for root
    reader = ShardReader(bare)
    assert [reader[n].key for n in range(3)] == ["00", "10", "11"]
    assert not list(bare[0].parent.glob(".*"))


def test_a_long_indexing_shows_a_bar(bare, scans, monkeypatch, capfd):
    monkeypatch.setattr(indexing, "PATIENCE", 0)
    open_indexes(bare)
    assert "indexing: 100%" in capfd.readouterr().err
    open_indexes(bare)
    assert not capfd.readouterr().err


def test_what_is_no_shard_is_named_also_by_another_process(bare, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    bare[3].write_bytes(b"<html>not here</html>" * 100)
    with pytest.raises(UserError, match=r"3\.tar is not a readable tar"):
        open_indexes(bare)
    bare[2].unlink()
    with pytest.raises(UserError, match=r"2\.tar does not exist"):
        open_indexes(bare)
