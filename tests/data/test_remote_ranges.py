"""Remote shards whose records are downloaded as byte ranges into sparse copies."""

import errno
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections import Counter

import pytest

from mmf_flava.data import remote_shard
from mmf_flava.data.record import BadRecord, Reason, record_boundary
from mmf_flava.data.records import open_records, read_ahead
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.errors import UserError
from mmf_flava.files import cache as cache_module
from mmf_flava.files import sparse_copy
from mmf_flava.files.cache import FileCache
from mmf_flava.files.download_errors import RangeRefusedError
from mmf_flava.files.sparse_copy import SparseCopy, is_present

SHARDS, PER_SHARD = 3, 4
COUNT = SHARDS * PER_SHARD


@pytest.fixture(autouse=True)
def short_retry_waits(monkeypatch):
    monkeypatch.setattr(cache_module, "RETRY_DELAYS", (0.01, 0.01))
    monkeypatch.setattr(remote_shard, "REFUSAL_DELAY", 0.01)


def image(number):
    return bytes([number]) * 5000


@pytest.fixture
def url(server, tmp_path):
    """Three shards of four records."""
    server.keep_alive = True
    for shard in range(SHARDS):
        path = tmp_path / "local" / f"{shard:05d}.tar"
        with ShardWriter(path) as writer:
            for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
                writer.write(f"{number:03d}", {"jpg": image(number), "json": b'{"caption": "a"}', "txt": b""})
        server.files[f"/{path.name}"] = path.read_bytes()
        server.files[f"/{path.name}.index"] = path.with_name(f"{path.name}.index").read_bytes()
    return f"{server.url}/{{00000..{SHARDS - 1:05d}}}.tar"


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "cache")


def ranges(server):
    """Return the requested (path, start, end) of parts of shards."""
    found = [(path, re.fullmatch(r"bytes=(\d+)-(\d+)", part or "")) for path, part in server.requests]
    return [(path, int(match[1]), int(match[2]) + 1) for path, match in found if match]


def whole(server):
    return [path for path, part in server.requests if path.endswith(".tar") and part is None]


def images(records, numbers=range(COUNT)):
    return [records.read(number).fields["jpg"] for number in numbers]


def copy_of(cache, shard=0):
    return next(cache.folder.rglob(f"{shard:05d}.tar.ranges"))


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_record_is_downloaded_once_with_one_request(server, url, cache, tmp_path):
    records, local = open_records(url, cache), open_records(tmp_path / "local")
    assert records.read(5, only=("json",)).fields == {"json": b'{"caption": "a"}'}
    ((_, start, end),) = ranges(server)
    assert end - start == len(b'{"caption": "a"}')
    server.requests.clear()
    for _ in range(2):
        assert [records.read(n) for n in range(COUNT)] == [local.read(n) for n in range(COUNT)]
    assert len(ranges(server)) == COUNT and not whole(server)
    assert sum(end - start for _, start, end in ranges(server)) < COUNT * 7000
    server.requests.clear()
    assert images(open_records(url, cache)) == images(local) and not server.requests


def test_complete_copies_are_used(server, url, cache):
    os.close(cache.open(f"{server.url}/00000.tar"))
    server.requests.clear()
    assert images(open_records(url, cache), range(PER_SHARD)) == [image(n) for n in range(PER_SHARD)]
    assert not ranges(server) and not whole(server)


def test_another_file_instead_of_a_shard_is_not_used(server, url, cache, monkeypatch):
    shard, server.ranges = server.files["/00000.tar"], False
    server.files["/00000.tar"] = b"<html>please log in</html>"
    records = open_records(url, cache)
    for number in range(2):  # the page is downloaded once, and not for each record
        with pytest.raises(BadRecord, match=r"the server sends 26 bytes, but the index is of a shard of") as error:
            records.read(number)
        assert error.value.reason == Reason.VANISHED
    assert whole(server) == ["/00000.tar"]
    server.files["/00000.tar"] = shard
    monkeypatch.setattr(remote_shard, "_refused", {})  # a minute later
    assert images(records, range(PER_SHARD)) == [image(n) for n in range(PER_SHARD)]


def test_one_refusal_is_the_answer_of_a_proxy(server, url, cache, monkeypatch):
    records = open_records(url, cache)
    server.ranges = False
    monkeypatch.setattr(remote_shard.time, "sleep", lambda _: setattr(server, "ranges", True))
    assert images(records, range(PER_SHARD)) == [image(n) for n in range(PER_SHARD)]
    assert not whole(server)


@pytest.mark.parametrize("limit", [None, 10**6])
def test_server_without_ranges_sends_each_shard_once(server, url, cache, limit):
    server.ranges = False
    records = open_records(url, FileCache(cache.folder, limit))
    read_ahead(records, range(COUNT))
    assert images(records) == [image(n) for n in range(COUNT)]
    assert sorted(whole(server)) == [f"/{n:05d}.tar" for n in range(SHARDS)]
    assert images(open_records(url, cache)) == [image(n) for n in range(COUNT)]
    assert len(whole(server)) == SHARDS


def test_shard_is_downloaded_again_after_its_copy_was_evicted(server, url, cache):
    server.ranges = False
    records = open_records(f"{server.url}/00000.tar", cache)
    records.read(0)
    cache.path(f"{server.url}/00000.tar").unlink()
    records.close()
    assert records.read(1).key == "001" and len(whole(server)) == 2


def test_lost_connections_and_busy_servers_are_retried(server, url, cache):
    records = open_records(url, cache)
    server.cut_after = 1000
    assert records.read(0).key == "000"
    assert len(ranges(server)) == 2
    server.busy = 2
    assert records.read(1).key == "001"


def test_unreachable_server_costs_the_records_that_are_missing(server, url, cache):
    server.keep_alive = False
    records = open_records(url, cache)
    records.read(0)
    server.shutdown()
    server.server_close()
    assert records.read(0).key == "000"
    with pytest.raises(BadRecord, match=r"00002\.tar cannot be read: .*cannot be reached") as caught:
        records.read(8)
    assert caught.value.reason is Reason.VANISHED


OTHER_BYTES = Reason.CHANGED, r"000\.\w+ does not match its checksum"
OTHER_SIZE = Reason.VANISHED, "but the index is of a shard of"


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda data: bytes(len(data)), *OTHER_BYTES),
        (lambda data: data[:3000], *OTHER_BYTES),
        (lambda data: data[:512], *OTHER_SIZE),
    ],
)
def test_another_version_of_a_shard_costs_its_records(server, url, cache, change, reason, words):
    """The shard has other bytes, or is shorter, so that the server does not send the range."""
    records = open_records(url, cache)
    server.files["/00000.tar"] = change(server.files["/00000.tar"])
    read_ahead(records, range(PER_SHARD))
    for _ in range(2):
        with pytest.raises(BadRecord, match=words) as caught:
            records.read(0)
        assert caught.value.reason is reason
    assert records.read(4).key == "004" and len(whole(server)) <= 2


def test_bytes_that_were_written_in_part_are_downloaded_again(server, url, cache):
    records = open_records(url, cache)
    images(records)
    with open(copy_of(cache), "r+b") as file:
        file.seek(3000)
        file.write(b"x" * 8000)
    server.requests.clear()
    assert images(open_records(url, cache)) == [image(n) for n in range(COUNT)]
    assert len(ranges(server)) == 2 and not whole(server)


def test_corrupt_complete_copy_is_repaired(server, url, cache):
    records = open_records(f"{server.url}/00000.tar", cache)
    os.close(cache.open(f"{server.url}/00000.tar"))
    with open(cache.path(f"{server.url}/00000.tar"), "r+b") as file:
        file.seek(1000)
        file.write(b"x")
    assert images(records, range(PER_SHARD)) == [image(n) for n in range(PER_SHARD)]
    assert len(ranges(server)) == 1 and cache.path(f"{server.url}/00000.tar").read_bytes() == server.files["/00000.tar"]


def _read(url, cache, ahead, barrier, queue):
    records = open_records(url, cache)
    barrier.wait()
    if ahead:
        read_ahead(records, range(COUNT))
    queue.put(images(records) == [image(n) for n in range(COUNT)])


@pytest.mark.parametrize("ahead", [False, True])
def test_processes_and_threads_of_a_machine_download_each_byte_once(server, url, cache, ahead):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_read, args=(url, cache, ahead, barrier, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=60) for _ in workers] == [True] * 3
    for worker in workers:
        worker.join()
    assert set(Counter(ranges(server)).values()) == {1} and len(ranges(server)) == COUNT


def test_a_killed_process_leaves_no_lock(server, url, cache, monkeypatch):
    context = multiprocessing.get_context("fork")
    locked = context.Event()

    def hang(*_):
        locked.set()
        time.sleep(60)
        yield b""

    monkeypatch.setattr(sparse_copy, "read_range", hang)
    records = open_records(url, cache)
    process = context.Process(target=records.read, args=(0,))
    process.start()
    assert locked.wait(60)
    monkeypatch.undo()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert records.read(0).fields["jpg"] == image(0)


def test_a_process_that_was_forked_during_a_download_does_not_keep_its_lock(server, url, cache, monkeypatch):
    context = multiprocessing.get_context("fork")
    read_range, children = sparse_copy.read_range, []

    def fork(*arguments):
        children.append(context.Process(target=time.sleep, args=(60,)))
        children[0].start()
        monkeypatch.undo()
        return read_range(*arguments)

    monkeypatch.setattr(sparse_copy, "read_range", fork)
    records = open_records(url, cache)
    records.read(0, only=("jpg",))
    copy_of(cache).write_bytes(b"")
    assert records.read(0).fields["jpg"] == image(0)
    children[0].kill()
    children[0].join()


def test_file_systems_without_locks(server, url, cache, monkeypatch):
    def unsupported(*_):
        raise OSError("no locks")

    monkeypatch.setattr("fcntl.fcntl", unsupported)
    assert images(open_records(url, cache)) == [image(n) for n in range(COUNT)]


def test_records_are_downloaded_in_the_background(server, url, cache, monkeypatch):
    records = open_records(url, cache)
    read_ahead(records, [0, 5, 9, 5])
    wait_until(lambda: len(ranges(server)) == 3)
    wait_until(lambda: all(copy_of(cache, n).stat().st_size > 5000 for n in range(SHARDS)))
    monkeypatch.setattr(SparseCopy, "fetch", None)
    assert images(records, [0, 5, 9]) == [image(n) for n in (0, 5, 9)]


def test_records_that_are_read_in_order_are_downloaded_in_advance(server, url, cache):
    records = open_records(url, cache)
    records.read(1)
    records.read(0)
    assert len(ranges(server)) == 2
    records.read(1)
    wait_until(lambda: len(ranges(server)) == PER_SHARD)
    images(records)
    assert len(ranges(server)) == COUNT, "only of the same shard, because a reader of few records needs no other one"


def test_only_the_fields_that_are_read_in_order_are_downloaded_in_advance(server, url, cache):
    records = open_records(url, cache)
    for number in range(COUNT):
        assert [*records.read(number, only=("json",)).fields] == ["json"]
    wait_until(lambda: len(ranges(server)) == COUNT)
    assert sum(end - start for _, start, end in ranges(server)) == COUNT * len(b'{"caption": "a"}')


def test_cache_folder_that_is_deleted_while_a_shard_is_open(server, url, cache):
    records = open_records(url, cache)
    records.read(0)
    shutil.rmtree(cache.folder)
    assert records.read(1).fields["jpg"] == image(1) and records.read(0).key == "000"


def test_full_disk_ends_the_run(server, url, cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    records = open_records(url, cache)
    monkeypatch.setattr(os, "pwrite", full)
    message = r"cannot be written \(No space left on device\)\. Free disk space"
    with pytest.raises(UserError, match=message), record_boundary("record 0"):
        records.read(0)
    monkeypatch.undo()
    assert records.read(0).key == "000"


def test_errors_in_the_background_are_ignored(server, url, cache, tmp_path):
    records = open_records([url, tmp_path / "local"], cache)
    server.files["/00000.tar"] = b""
    del server.files["/00001.tar"]
    (tmp_path / "local" / "00001.tar.index").write_bytes(b"")
    (tmp_path / "local" / "00002.tar").unlink()
    for _ in range(2):
        read_ahead(records, range(2 * COUNT))
    assert records.read(8).key == "008" and records.read(COUNT).key == "000"
    with pytest.raises(BadRecord, match="was not found"):
        records.read(4)


def test_cache_limit_holds_while_sparse_copies_grow(server, url, cache, monkeypatch):
    shard = len(server.files["/00000.tar"])
    limited = FileCache(cache.folder, shard)
    records = open_records(url, limited)
    monkeypatch.setattr(records._open_shards, "capacity", 1)
    for number in (*range(COUNT), *range(COUNT)):
        assert records.read(number).fields["jpg"] == image(number)
        used = sum(path.stat().st_blocks * 512 for path in cache.folder.rglob("*.ranges"))
        assert used <= limited.limit + 2 * 8192, "a record, and incomplete blocks"
        for path in cache.folder.rglob("*.ranges"):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    assert [path.name for path in cache.folder.rglob("*.ranges")] == ["00002.tar.ranges"]


def test_size_that_no_memory_has(server, url, cache):
    copy = SparseCopy(f"{server.url}/00000.tar", cache)
    copy.fetch([(512, 1 << 50, 0)])
    assert not is_present(copy.open(), (512, 1 << 50, 0))
    server.files["/00000.tar"] += bytes(10)
    with pytest.raises(RangeRefusedError, match="does not send the requested range"):
        copy.fetch([(1 << 59, 5, 0)])
