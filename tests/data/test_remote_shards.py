"""Shards on a server of the loopback device: when they are asked for, what is kept, and what goes wrong."""

import multiprocessing
import os
import pickle
import threading

import pytest

from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.records import open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.remote_shard import RemoteShard
from mmf_flava.data.shards import ShardWriter
from mmf_flava.errors import UserError
from mmf_flava.files import cache as cache_module
from mmf_flava.files.cache import FileCache

SHARDS, EACH = 3, 4


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(cache_module, "WAITS", (0.01, 0.01))


@pytest.fixture
def local(tmp_path):
    """Three shards of four records on disk, which the server has too."""
    folder = tmp_path / "local"
    for shard in range(SHARDS):
        with ShardWriter(folder / f"{shard:05d}.tar") as writer:
            for record in range(EACH):
                number = shard * EACH + record
                writer.write(f"{number:03d}", {"jpg": bytes([number]) * 500, "json": b'{"caption": "a"}'})
    return folder


@pytest.fixture
def url(server, local):
    for path in local.iterdir():
        server.files[f"/x/{path.name}"] = path.read_bytes()
    return f"{server.url}/x/{{00000..{SHARDS - 1:05d}}}.tar"


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "cache")


def keys(records):
    return [records.read(n).key for n in range(len(records))]


def shards_asked(server):
    return [path for path, _ in server.asked if path.endswith(".tar")]


def held(cache):
    return sorted(path.name for path in cache.folder.rglob("*.tar"))


def test_opening_fetches_indexes_and_reading_one_shard(server, url, cache):
    records = open_records(url, cache)
    assert len(records) == SHARDS * EACH and records.sequential
    assert shards_asked(server) == [] and held(cache) == []
    assert records.read(5).parts["jpg"] == bytes([5]) * 500
    assert records.read(6, only=("json",)).parts == {"json": b'{"caption": "a"}'}
    assert shards_asked(server) == ["/x/00001.tar"]
    server.asked.clear()
    again = open_records(url, cache)
    assert again.read(4).key == "004" and server.asked == []


def test_indexes_that_are_not_here_are_fetched_side_by_side(server, url, local, cache, monkeypatch):
    readers, read = [], RemoteShard.read_index
    monkeypatch.setattr(
        RemoteShard, "read_index", lambda shard: readers.append(threading.current_thread().name) or read(shard)
    )
    monkeypatch.setattr("mmf_flava.data.indexing.PROBED", 3)
    monkeypatch.setattr("mmf_flava.data.indexing.SLOW", 60)  # the local shards come first and are fast
    for side_by_side in (True, False):
        readers.clear()
        assert len(open_records([local, url], cache)) == 2 * SHARDS * EACH
        assert len(readers) == SHARDS and ("MainThread" not in readers) == side_by_side


def test_shards_without_indexes_are_fetched_and_scanned_once(server, url, local, cache):
    for name in ("/x/00001.tar.index", "/x/00002.tar.index"):
        del server.files[name]
    assert keys(open_records(url, cache)) == keys(open_records(local))
    assert sorted(shards_asked(server)) == ["/x/00000.tar", "/x/00001.tar", "/x/00002.tar"]
    server.asked.clear()
    assert len(open_records(url, cache)) == SHARDS * EACH and server.asked == []


def test_a_page_where_an_index_should_be_is_not_believed(server, url, cache):
    server.files["/x/00001.tar.index"] = b"<html>log in</html>"
    assert keys(open_records(url, cache)) == [f"{n:03d}" for n in range(SHARDS * EACH)]


def test_local_and_remote_records_side_by_side(server, url, local, cache):
    both = open_records([local / "00000.tar", url, local], cache)
    assert keys(both) == [f"{n:03d}" for n in [*range(EACH), *range(12), *range(12)]]


def test_local_shards_by_braces(local):
    assert len(open_records(local / "{00000..00002}.tar")) == SHARDS * EACH
    with pytest.raises(UserError, match=r"no shard at .*00003\.tar, one of 2 missing"):
        open_records(local / "{00000..00004}.tar")


def test_the_hash_is_that_of_local_records_and_fetches_no_shard(server, url, local, cache):
    assert records_sha256(open_records(url, cache)) == records_sha256(open_records(local))
    assert shards_asked(server) == []


def test_the_longest_unused_shard_makes_room(server, url, local, cache, monkeypatch):
    monkeypatch.setattr("mmf_flava.data.shards.MAX_OPEN_COPIES", 1)
    shard = (local / "00000.tar").stat().st_size
    records = open_records(url, FileCache(cache.folder, 2 * shard))
    for number in (0, 4, 8):
        records.read(number)
        for path in cache.folder.rglob("*.tar"):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    assert held(cache) == ["00001.tar", "00002.tar"]
    assert keys(records) == [f"{n:03d}" for n in range(SHARDS * EACH)]
    with pytest.raises(UserError, match=r"10 bytes cannot hold .*00000\.tar of [\d,]+ bytes: raise cache_bytes"):
        open_records(url, FileCache(cache.folder, 10))


def damage(path):
    """Changes a byte of the first image."""
    data = bytearray(path.read_bytes())
    data[512] ^= 1
    path.write_bytes(data)


def test_a_damaged_copy_is_fetched_anew(server, url, cache):
    open_records(url, cache).read(0)
    damage(next(cache.folder.rglob("00000.tar")))
    assert open_records(url, cache).read(0).parts["jpg"] == bytes(500)
    assert shards_asked(server) == ["/x/00000.tar"] * 2


def test_what_is_damaged_on_the_server_is_fetched_anew_once(server, url, local, cache):
    damage(local / "00000.tar")
    server.files["/x/00000.tar"] = (local / "00000.tar").read_bytes()
    records = open_records(url, cache)
    for _ in range(3):
        with pytest.raises(BadRecord, match=r"00000\.tar: bytes of 000\.jpg differ") as caught:
            records.read(0)
        assert caught.value.reason is Reason.CHANGED and caught.value.key == "000"
    assert records.read(1).key == "001"
    assert shards_asked(server) == ["/x/00000.tar"] * 2


def test_a_server_that_is_gone_costs_the_shards_that_are_not_here(server, url, cache):
    records = open_records(url, cache)
    records.read(0)
    server.shutdown()
    server.server_close()
    assert records.read(1).key == "001"
    with pytest.raises(BadRecord, match=r"00001\.tar cannot be read: .*cannot be reached") as caught:
        records.read(4)
    assert caught.value.reason is Reason.VANISHED
    with pytest.raises(UserError, match="cannot be reached"):
        open_records(url, FileCache(cache.folder / "other"))


def test_a_server_that_comes_back_costs_nothing(server, url, cache):
    records = open_records(url, cache)
    server.busy = 2
    assert records.read(0).key == "000"
    server.cut_after = 1000
    assert records.read(4).key == "004"
    assert server.asked[-1] == ("/x/00001.tar", "bytes=1000-")


def test_what_is_not_there_is_named_without_its_secrets(server, url, cache):
    with pytest.raises(UserError, match=r"9\.tar is not there") as caught:
        open_records(f"{server.url}/9.tar?token=secret", cache)
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match=r"names no tar file.*\{00000\.\.00099\}\.tar"):
        open_records(f"{server.url}/x/", cache)
    server.files["/9.tar"] = b"<html>log in</html>" * 100
    with pytest.raises(UserError, match=r"9\.tar: .* is not a readable tar"):
        open_records(f"{server.url}/9.tar", cache)
    assert held(cache) == [], "what is no shard is not kept"


def _read(url, cache, barrier, queue):
    barrier.wait()
    queue.put(keys(open_records(url, cache)))


def test_two_processes_at_once_share_what_is_fetched(server, url, cache):
    del server.files["/x/00002.tar.index"]
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    ranks = [context.Process(target=_read, args=(url, cache, barrier, queue)) for _ in range(2)]
    for rank in ranks:
        rank.start()
    assert [queue.get(timeout=60) for _ in ranks] == [[f"{n:03d}" for n in range(SHARDS * EACH)]] * 2
    for rank in ranks:
        rank.join()
    assert sorted(shards_asked(server)) == ["/x/00000.tar", "/x/00001.tar", "/x/00002.tar"]


def test_a_reader_works_in_another_process(server, url, cache):
    records = open_records(url, cache)
    records.read(0)
    assert pickle.loads(pickle.dumps(records)).read(4).key == "004"


@pytest.fixture
def remote_pairs(server, demo, config):
    """The demo's training pairs on the server, listed so in the recipe."""
    paths = sorted((demo / "pairs" / "train").iterdir())
    for path in paths:
        server.files[f"/{path.name}"] = path.read_bytes()
    last = max(int(path.name[:5]) for path in paths)
    config.dataset_config.pmd.splits.train = [f"{server.url}/{{00000..{last:05d}}}.tar"]
    return config.dataset_config.pmd


def test_pairs_of_a_recipe_may_be_remote(server, demo, downloads, remote_pairs, config, load):
    remote_pairs.cache_bytes = 10**9
    dataset = load("pmd")
    assert shards_asked(server) == []
    remote_pairs.splits.train = ["pairs/train"]
    local = load("pmd")
    assert [dataset[n]["sample_id"] for n in range(3)] == [local[n]["sample_id"] for n in range(3)]
    assert held(FileCache(downloads / "mmf_flava/shards/pmd")) == sorted({p[1:] for p in shards_asked(server)})


def test_other_captions_come_from_the_same_block(server, downloads, remote_pairs, load):
    remote_pairs.mismatch_probability = 0.9
    remote_pairs.shuffle_block = 16
    dataset = load("pmd")
    first = dataset.order.index(0) // 16 * 16
    asked = []
    read = dataset.records.read
    dataset.records.read = lambda index, only=None: asked.append(index) or read(index, only)
    for n in range(16):
        dataset[n]
    assert len(asked) > 20
    assert set(asked) <= set(range(first, first + 16))


def test_a_limit_that_is_none_is_refused(server, downloads, remote_pairs, load):
    remote_pairs.cache_bytes = 0
    with pytest.raises(UserError, match=r"dataset_config\.pmd\.cache_bytes is 0"):
        load("pmd")


def test_text_is_not_read_from_a_server(config, load):
    config.dataset_config.ccnews_bookcorpus.splits.train = ["https://host/text"]
    with pytest.raises(UserError, match=r"https://host/text is remote.*download it"):
        load("ccnews_bookcorpus")
