import multiprocessing
import os
import threading
import time

import pytest

from mmf_flava.data import indexing, shard_index
from mmf_flava.data.indexing import open_indexes, read_indexes
from mmf_flava.data.shard_index import index_path
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader
from mmf_flava.errors import UserError


@pytest.fixture
def unindexed_shards(tmp_path):
    """Five shards with one to five records, without indexes."""
    shards = [tmp_path / f"{n}.tar" for n in range(5)]
    for n, shard in enumerate(shards):
        with ShardWriter(shard) as writer:
            for record in range(n + 1):
                writer.write(f"{n}{record}", {"txt": b"x"})
        index_path(shard).unlink()
    return shards


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Slow down and log scans. ``scans()`` returns [process id, shard] of each, also from forked processes."""
    log, scan = tmp_path / "log", shard_index.scan_shard
    log.touch()

    def slow_scan(path):
        with open(log, "a") as file:
            file.write(f"{os.getpid()} {path.name}\n")
        time.sleep(0.1)
        return scan(path)

    monkeypatch.setattr(shard_index, "scan_shard", slow_scan)
    return lambda: [line.split() for line in log.read_text().splitlines()]


def test_missing_indexes_are_built_by_other_processes(unindexed_shards, scans, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert [index.count for index in open_indexes(unindexed_shards)] == [1, 2, 3, 4, 5]
    assert sorted(name for _, name in scans()) == [shard.name for shard in unindexed_shards]
    processes = {process for process, _ in scans()}
    assert 1 < len(processes) <= 3 and str(os.getpid()) not in processes
    assert [index.count for index in read_indexes(unindexed_shards)] == [1, 2, 3, 4, 5]
    assert not list(unindexed_shards[0].parent.glob(".*")), "no locks or partial files are left"


def test_slow_disk_is_read_by_threads(unindexed_shards, monkeypatch):
    open_indexes(unindexed_shards)
    readers, read = [], indexing.read_index
    monkeypatch.setattr(indexing, "PROBE_COUNT", 2)
    monkeypatch.setattr(indexing, "SLOW_READ", 0.01)
    for seconds in (0, 0.05):
        readers.clear()
        monkeypatch.setattr(
            indexing,
            "read_index",
            lambda shard, seconds=seconds: (
                time.sleep(seconds) or readers.append(threading.current_thread().name) or read(shard)
            ),
        )
        assert [index.count for index in read_indexes(unindexed_shards)] == [1, 2, 3, 4, 5]
        assert readers[:2] == ["MainThread"] * 2
        assert ("MainThread" in readers[2:]) == (seconds == 0)


def _open(shards, barrier, queue):
    barrier.wait()
    queue.put(len(ShardReader(shards)))


def test_concurrent_processes_build_each_index_once(unindexed_shards, scans):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_open, args=(unindexed_shards, barrier, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=60) for _ in workers] == [15, 15, 15]
    for worker in workers:
        worker.join()
    assert sorted(name for _, name in scans()) == [shard.name for shard in unindexed_shards]


def test_daemon_process_builds_indexes_itself(unindexed_shards, scans):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(1), context.Queue()
    worker = context.Process(target=_open, args=(unindexed_shards, barrier, queue), daemon=True)
    worker.start()
    assert queue.get(timeout=60) == 15
    assert {process for process, _ in scans()} == {str(worker.pid)}
    worker.join()


def test_stale_lock_file_does_not_block(unindexed_shards):
    unindexed_shards[0].with_name(".0.tar.index.lock").touch()
    assert len(ShardReader(unindexed_shards)) == 15
    assert not list(unindexed_shards[0].parent.glob(".*"))


def test_read_only_folder_keeps_indexes_in_memory(unindexed_shards, caplog):
    index_path(unindexed_shards[1]).mkdir()  # acts like a read-only folder, also for root
    reader = ShardReader(unindexed_shards)
    assert [reader[n].key for n in range(3)] == ["00", "10", "11"]
    assert not list(unindexed_shards[0].parent.glob(".*"))


def test_slow_indexing_shows_progress_bar(unindexed_shards, scans, monkeypatch, capfd):
    monkeypatch.setattr(indexing, "PROGRESS_DELAY", 0)
    open_indexes(unindexed_shards)
    assert "indexing: 100%" in capfd.readouterr().err
    open_indexes(unindexed_shards)
    assert not capfd.readouterr().err


def test_invalid_shard_raises_also_from_other_processes(unindexed_shards, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    unindexed_shards[3].write_bytes(b"<html>not here</html>" * 100)
    with pytest.raises(UserError, match=r"3\.tar is not a readable tar"):
        open_indexes(unindexed_shards)
    unindexed_shards[2].unlink()
    with pytest.raises(UserError, match=r"2\.tar: the shard cannot be read \(No such file"):
        open_indexes(unindexed_shards)


def test_killed_process_is_an_error(unindexed_shards, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(shard_index, "scan_shard", lambda path: os._exit(1))
    with pytest.raises(UserError, match="A process that indexes shards was killed"):
        open_indexes(unindexed_shards)
