"""Remote shards on a loopback server: downloads, caching and errors."""

import json
import multiprocessing
import os
import pickle
import threading

import pytest

from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.records import open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.remote_shard import RemoteShard
from mmf_flava.data.shard_index import encode_index, load_index
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.errors import UserError
from mmf_flava.files import cache as cache_module
from mmf_flava.files.cache import FileCache

SHARDS, RECORDS_PER_SHARD = 3, 4


@pytest.fixture(autouse=True)
def short_retry_waits(monkeypatch):
    monkeypatch.setattr(cache_module, "RETRY_DELAYS", (0.01, 0.01))


@pytest.fixture
def local(tmp_path):
    """Three local shards of four records; the server has the same shards."""
    folder = tmp_path / "local"
    for shard in range(SHARDS):
        with ShardWriter(folder / f"{shard:05d}.tar") as writer:
            for record in range(RECORDS_PER_SHARD):
                number = shard * RECORDS_PER_SHARD + record
                writer.write(f"{number:03d}", {"jpg": bytes([number]) * 500, "json": b'{"caption": "a"}'})
    return folder


@pytest.fixture
def url(server, local):
    server.ranges = False
    for path in local.iterdir():
        server.files[f"/x/{path.name}"] = path.read_bytes()
    return f"{server.url}/x/{{00000..{SHARDS - 1:05d}}}.tar"


@pytest.fixture
def cache(tmp_path):
    return FileCache(tmp_path / "cache")


def keys(records):
    return [records.read(n).key for n in range(len(records))]


def requested_shards(server):
    """Return the paths of the shards that were requested completely, or their rest."""
    wanted = [(path, bytes_range or "-") for path, bytes_range in server.requests if path.endswith(".tar")]
    return [path for path, bytes_range in wanted if bytes_range.endswith("-")]


def cached_shards(cache):
    return sorted(path.name for path in cache.folder.rglob("*.tar"))


def test_opening_downloads_indexes_and_reading_downloads_one_shard(server, url, cache):
    records = open_records(url, cache)
    assert len(records) == SHARDS * RECORDS_PER_SHARD and records.sequential
    assert requested_shards(server) == [] and cached_shards(cache) == []
    assert records.read(5).fields["jpg"] == bytes([5]) * 500
    assert records.read(6, only=("json",)).fields == {"json": b'{"caption": "a"}'}
    assert requested_shards(server) == ["/x/00001.tar"]
    server.requests.clear()
    again = open_records(url, cache)
    assert again.read(4).key == "004" and server.requests == []


def test_missing_indexes_are_downloaded_by_threads(server, url, local, cache, monkeypatch):
    readers, read = [], RemoteShard.read_index
    monkeypatch.setattr(
        RemoteShard, "read_index", lambda shard: readers.append(threading.current_thread().name) or read(shard)
    )
    monkeypatch.setattr("mmf_flava.data.indexing.PROBE_COUNT", 3)
    monkeypatch.setattr("mmf_flava.data.indexing.SLOW_READ", 60)  # the first three shards are local and fast
    for threaded in (True, False):
        readers.clear()
        assert len(open_records([local, url], cache)) == 2 * SHARDS * RECORDS_PER_SHARD
        assert len(readers) == SHARDS and ("MainThread" not in readers) == threaded


def test_shards_without_indexes_are_downloaded_and_scanned_once(server, url, local, cache):
    for name in ("/x/00001.tar.index", "/x/00002.tar.index"):
        del server.files[name]
    assert keys(open_records(url, cache)) == keys(open_records(local))
    assert sorted(requested_shards(server)) == ["/x/00000.tar", "/x/00001.tar", "/x/00002.tar"]
    server.requests.clear()
    assert len(open_records(url, cache)) == SHARDS * RECORDS_PER_SHARD and server.requests == []


def test_index_of_a_cached_shard_is_not_built_again_after_the_shard_was_used(server, url, cache):
    """Another process may have opened the first index already."""
    del server.files["/x/00001.tar.index"]
    records = open_records(url, cache)
    tar = next(cache.folder.rglob("00001.tar"))
    os.utime(tar, (tar.stat().st_mtime + 100,) * 2)
    shard = RemoteShard(f"{server.url}/x/00001.tar", cache)
    assert shard.build_index() == shard.build_index() and records.read(4).key == "004"


def test_invalid_remote_index_is_ignored(server, url, cache):
    server.files["/x/00001.tar.index"] = b"<html>log in</html>"
    assert keys(open_records(url, cache)) == [f"{n:03d}" for n in range(SHARDS * RECORDS_PER_SHARD)]


OLD_INDEX = {"version": 1, "count": 4, "tar_bytes": 1, "tar_mtime_ns": 0, "data_start": 4096, "dtype": [["key", "|O"]]}


@pytest.mark.parametrize(
    "index", [b"", b"[" * 100_000, json.dumps(OLD_INDEX).encode().ljust(4095) + b"\n" + b"A" * 32], ids=len
)
def test_hostile_remote_index_is_built_from_the_tar(server, url, local, cache, index):
    server.files["/x/00001.tar.index"] = index
    assert keys(open_records(url, cache)) == keys(open_records(local))
    assert load_index(next(cache.folder.rglob("00001.tar")), None) is not None


def test_remote_index_of_another_shard_costs_its_records(server, url, local, cache):
    """Also if it states a size of the tar that no disk has."""
    index = encode_index({"000": {"jpg": (512, 500, 0)}, "001": {"jpg": (512, 1 << 60, 0)}}, False, 1 << 61, 0)
    server.files["/x/00001.tar.index"] = index
    records = open_records(url, cache)
    assert len(records) == 2 * RECORDS_PER_SHARD + 2
    for number in (RECORDS_PER_SHARD, RECORDS_PER_SHARD + 1):
        with pytest.raises(BadRecord, match="the index is of a shard of 2,305,843,009,213,693,952 bytes") as caught:
            records.read(number)
        assert caught.value.reason is Reason.VANISHED
    assert records.read(RECORDS_PER_SHARD + 2).key == "008"
    with pytest.raises(UserError, match="more than the cache limit"):
        open_records(url, FileCache(cache.folder, 1 << 40))


def test_local_and_remote_records_can_be_mixed(server, url, local, cache):
    both = open_records([local / "00000.tar", url, local], cache)
    assert keys(both) == [f"{n:03d}" for n in [*range(RECORDS_PER_SHARD), *range(12), *range(12)]]


def test_local_shard_names_expand_braces(local):
    assert len(open_records(local / "{00000..00002}.tar")) == SHARDS * RECORDS_PER_SHARD
    with pytest.raises(UserError, match=r"2 shards were not found, for example .*00003\.tar"):
        open_records(local / "{00000..00004}.tar")


def test_hash_equals_local_hash_without_downloading_shards(server, url, local, cache):
    assert records_sha256(open_records(url, cache)) == records_sha256(open_records(local))
    assert requested_shards(server) == []


def test_least_recently_used_shard_is_evicted(server, url, local, cache, monkeypatch):
    monkeypatch.setattr("mmf_flava.data.shards.MAX_OPEN_REMOTE_SHARDS", 1)
    shard = (local / "00000.tar").stat().st_size
    records = open_records(url, FileCache(cache.folder, 2 * shard))
    for number in (0, 4, 8):
        records.read(number)
        for path in cache.folder.rglob("*.tar"):
            os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    assert cached_shards(cache) == ["00001.tar", "00002.tar"]
    assert keys(records) == [f"{n:03d}" for n in range(SHARDS * RECORDS_PER_SHARD)]
    with pytest.raises(UserError, match=r"00000\.tar: .* more than the cache limit of 10 bytes\. Increase cache_bytes"):
        open_records(url, FileCache(cache.folder, 10))


def damage(path):
    """Change a byte of the first image."""
    data = bytearray(path.read_bytes())
    data[512] ^= 1
    path.write_bytes(data)


def test_corrupt_copy_is_downloaded_again(server, url, cache):
    open_records(url, cache).read(0)
    damage(next(cache.folder.rglob("00000.tar")))
    assert open_records(url, cache).read(0).fields["jpg"] == bytes(500)
    assert requested_shards(server) == ["/x/00000.tar"] * 2


def test_corrupt_remote_shard_is_downloaded_again_only_once(server, url, local, cache):
    damage(local / "00000.tar")
    server.files["/x/00000.tar"] = (local / "00000.tar").read_bytes()
    records = open_records(url, cache)
    for _ in range(3):
        with pytest.raises(BadRecord, match=r"00000\.tar: 000\.jpg does not match its checksum") as caught:
            records.read(0)
        assert caught.value.reason is Reason.CHANGED and caught.value.key == "000"
    assert records.read(1).key == "001"
    assert requested_shards(server) == ["/x/00000.tar"] * 2


def test_unreachable_server_only_affects_shards_that_are_not_cached(server, url, cache):
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


def test_temporary_server_errors_are_retried(server, url, cache):
    records = open_records(url, cache)
    server.busy = 2
    assert records.read(0).key == "000"
    server.cut_after = 1000
    assert records.read(4).key == "004"
    assert server.requests[-1] == ("/x/00001.tar", "bytes=1000-")


def test_errors_name_the_url_without_secrets(server, url, cache):
    with pytest.raises(UserError, match=r"9\.tar\?\*\*\* was not found") as caught:
        open_records(f"{server.url}/9.tar?token=secret", cache)
    assert "secret" not in str(caught.value)
    with pytest.raises(UserError, match=r"is not a tar file.*\{00000\.\.00099\}\.tar"):
        open_records(f"{server.url}/x/", cache)
    server.files["/9.tar"] = b"<html>log in</html>" * 100
    with pytest.raises(UserError, match=r"9\.tar: .* is not a readable tar"):
        open_records(f"{server.url}/9.tar", cache)
    assert cached_shards(cache) == [], "files that are not shards are not cached"


def _read(url, cache, barrier, queue):
    barrier.wait()
    queue.put(keys(open_records(url, cache)))


def test_concurrent_processes_download_each_shard_once(server, url, cache):
    del server.files["/x/00002.tar.index"]
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_read, args=(url, cache, barrier, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=60) for _ in workers] == [[f"{n:03d}" for n in range(SHARDS * RECORDS_PER_SHARD)]] * 2
    for worker in workers:
        worker.join()
    assert sorted(requested_shards(server)) == ["/x/00000.tar", "/x/00001.tar", "/x/00002.tar"]


def test_pickled_reader_can_read(server, url, cache):
    records = open_records(url, cache)
    records.read(0)
    assert pickle.loads(pickle.dumps(records)).read(4).key == "004"


@pytest.fixture
def remote_pairs(server, demo, config):
    """Config whose training pairs are the demo's shards on the server."""
    paths = sorted((demo / "pairs" / "train").glob("0*"))
    for path in paths:
        server.files[f"/{path.name}"] = path.read_bytes()
    last = max(int(path.name[:5]) for path in paths)
    config.dataset_config.pmd.splits.train = [f"{server.url}/{{00000..{last:05d}}}.tar"]
    return config.dataset_config.pmd


def test_pmd_recipe_reads_remote_shards(server, demo, downloads, remote_pairs, config, load):
    remote_pairs.cache_bytes = 10**9
    dataset = load("pmd")
    assert requested_shards(server) == []
    remote_pairs.splits.train = ["pairs/train"]
    local = load("pmd")
    assert [dataset[n]["sample_id"] for n in range(3)] == [local[n]["sample_id"] for n in range(3)]
    requested = {path[1:] for path in requested_shards(server)}
    assert cached_shards(FileCache(downloads / "mmf_flava/shards/pmd")) == sorted(requested)


def test_cache_limit_of_zero_raises(server, downloads, remote_pairs, load):
    remote_pairs.cache_bytes = 0
    with pytest.raises(UserError, match=r"dataset_config\.pmd\.cache_bytes: must be at least 1, got 0"):
        load("pmd")


def test_remote_text_corpus_raises(config, load):
    config.dataset_config.ccnews_bookcorpus.splits.train = ["https://host/text"]
    message = r"https://host/text: remote folders of tokenized text are not supported\. Download the"
    with pytest.raises(UserError, match=message):
        load("ccnews_bookcorpus")
