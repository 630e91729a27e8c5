import multiprocessing
import os
import sys
import zlib

import iopath.common.s3  # noqa: F401 (before a test hides boto3)
import pytest

from mmf_flava.errors import UserError
from mmf_flava.files import cache as cache_module
from mmf_flava.files import s3 as s3_module
from mmf_flava.files.cache import FileCache
from mmf_flava.files.download_errors import DownloadError, RangeRefusedError, RemoteFileNotFoundError
from mmf_flava.files.sparse_copy import SparseCopy, is_present


@pytest.fixture(autouse=True)
def short_delays(monkeypatch):
    monkeypatch.setattr(cache_module, "RETRY_DELAYS", (0.01, 0.01))


@pytest.fixture
def urls(server):
    """Four files of 100 bytes."""
    for name in "abcd":
        server.files[f"/{name}.tar"] = name.encode() * 100
    return [f"{server.url}/{name}.tar" for name in "abcd"]


def content(cache, url, size=100):
    descriptor = cache.open(url, size)
    try:
        return os.pread(descriptor, 1000, 0)
    finally:
        os.close(descriptor)


def cached_files(cache):
    return sorted(path.name for path in cache.folder.rglob("*.tar"))


def age(cache, url, seconds):
    time = cache.path(url).stat().st_mtime - seconds
    os.utime(cache.path(url), (time, time))


def test_file_is_downloaded_on_first_open_only(server, urls, tmp_path, capfd):
    cache = FileCache(tmp_path / "cache")
    assert [content(cache, url)[:1] for url in [*urls, *urls]] == [b"a", b"b", b"c", b"d"] * 2
    assert len(server.requests) == 4
    assert not capfd.readouterr().err, "no progress bars"


def test_least_recently_used_file_is_evicted(server, urls, tmp_path):
    cache = FileCache(tmp_path / "cache", 250)
    for seconds, url in zip((20, 10), urls, strict=False):
        content(cache, url)
        age(cache, url, seconds)
    content(cache, urls[0])  # used again
    content(cache, urls[2])
    assert cached_files(cache) == ["a.tar", "c.tar"]


@pytest.mark.parametrize("size", [100, 0], ids=["size known", "size unknown"])
def test_open_file_is_not_evicted(server, urls, tmp_path, size):
    cache = FileCache(tmp_path / "cache", 250)
    descriptor = cache.open(urls[0])
    age(cache, urls[0], 20)
    for url in urls[1:]:
        content(cache, url, size)
        age(cache, url, 10)
    assert cached_files(cache) == ["a.tar", "d.tar"]
    os.close(descriptor)
    content(cache, urls[1], size)
    assert cached_files(cache) == ["b.tar", "d.tar"]


def test_file_that_another_process_has_opened_is_not_evicted(server, urls, tmp_path):
    cache, context = FileCache(tmp_path / "cache", 250), multiprocessing.get_context("fork")
    opened, done = context.Event(), context.Event()
    process = context.Process(target=lambda: (cache.open(urls[0]), opened.set(), done.wait(60)))
    process.start()
    assert opened.wait(60)
    for seconds, url in enumerate(urls):
        content(cache, url)
        age(cache, url, 100 - seconds)
    assert cached_files(cache) == ["a.tar", "d.tar"], "a was used before the others, but it is open"
    done.set()
    process.join()
    content(cache, urls[1])
    assert cached_files(cache) == ["b.tar", "d.tar"]


@pytest.mark.parametrize("name", ["host/.a.tar.0.part", ".s3/bucket/s3_cache/a.tar.tmp"])
def test_partial_download_counts_and_is_evicted_only_when_abandoned(server, urls, tmp_path, name):
    cache = FileCache(tmp_path / "cache", 250)
    partial = cache.folder / name
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"a" * 90)
    for url in urls[1:3]:
        content(cache, url)
        age(cache, url, 10)
    assert partial.is_file() and cached_files(cache) == ["c.tar"]
    time = partial.stat().st_mtime - cache_module.ABANDONED_SECONDS - 1
    os.utime(partial, (time, time))
    content(cache, urls[3])
    assert not partial.is_file() and cached_files(cache) == ["c.tar", "d.tar"]


def test_corrupt_copy_is_removed_but_not_its_replacement(server, urls, tmp_path):
    cache = FileCache(tmp_path / "cache")
    descriptor = cache.open(urls[0])
    cache.remove(urls[0], descriptor)
    assert cached_files(cache) == []
    content(cache, urls[0])
    cache.remove(urls[0], descriptor)  # another process that found the same corruption
    assert cached_files(cache) == ["a.tar"]
    os.close(descriptor)


def test_busy_server_is_retried(server, urls, tmp_path):
    cache = FileCache(tmp_path / "cache")
    server.busy = 2
    assert content(cache, urls[0]) == b"a" * 100
    server.busy = 3
    with pytest.raises(DownloadError, match="503"):
        cache.open(urls[1])


def test_interrupted_download_is_resumed(server, tmp_path):
    cache = FileCache(tmp_path / "cache", 5_000_000)
    server.files["/a.tar"], server.cut_after = bytes(range(256)) * 10_000, 1_500_000
    descriptor = cache.open(f"{server.url}/a.tar", 2_560_000)
    assert os.fstat(descriptor).st_size == 2_560_000
    os.close(descriptor)
    assert [requested_range for _, requested_range in server.requests] == [None, None, "bytes=1500000-"]


def test_missing_file_and_unreachable_server_raise_different_errors(server, urls, tmp_path):
    cache = FileCache(tmp_path / "cache")
    with pytest.raises(RemoteFileNotFoundError, match="404"):
        cache.get(f"{server.url}/e.tar")
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="cannot be reached"):
        cache.open(urls[0])


def _content(cache, url, barrier, queue):
    barrier.wait()
    queue.put(content(cache, url))


def test_two_concurrent_processes_download_once(server, urls, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    arguments = (FileCache(tmp_path / "cache", 150), urls[0], barrier, queue)
    processes = [context.Process(target=_content, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [b"a" * 100] * 2
    for process in processes:
        process.join()
    assert server.requests == [("/a.tar", None)]


def test_s3_needs_boto3(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "boto3.s3.transfer", None)
    with pytest.raises(UserError, match=r"s3://bucket/a\.tar: reading from S3 requires boto3.*`pip install boto3`"):
        FileCache(tmp_path / "cache").open("s3://bucket/a.tar")


@pytest.fixture
def s3(server, monkeypatch):
    """Configure boto3 for the loopback server."""
    pytest.importorskip("boto3")
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "name",
        "AWS_SECRET_ACCESS_KEY": "word",
        "AWS_DEFAULT_REGION": "nowhere",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    s3_module._client.cache_clear()


def test_s3_objects_are_stored_in_the_same_cache(server, s3, tmp_path):
    for bucket in ("one", "two"):
        server.files[f"/{bucket}/x/a.tar"] = bucket.encode() * 40
    cache = FileCache(tmp_path / "cache", 250)
    for _ in range(2):
        assert content(cache, "s3://one/x/a.tar", 120) == b"one" * 40
        assert content(cache, "s3://two/x/a.tar", 120) == b"two" * 40
    assert len(server.requests) == 2 and len(cached_files(cache)) == 2
    with pytest.raises(RemoteFileNotFoundError, match=r"s3://one/b\.tar was not found"):
        cache.open("s3://one/b.tar")
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="s3://one/c"):
        cache.open("s3://one/c.tar")


def test_parts_of_s3_objects_are_downloaded(server, s3, tmp_path):
    server.files["/one/x/a.tar"] = bytes(range(200))
    copy = SparseCopy("s3://one/x/a.tar", FileCache(tmp_path / "cache"))
    piece = (10, 20, zlib.crc32(bytes(range(10, 30))))
    for _ in range(2):
        copy.fetch([piece])
    assert is_present(copy.open(), piece) and server.requests == [("/one/x/a.tar", "bytes=10-29")]
    server.ranges = False
    with pytest.raises(RangeRefusedError, match=r"s3://one/x/a\.tar: the service does not send"):
        copy.fetch([(50, 20, 0)])
    with pytest.raises(RemoteFileNotFoundError, match=r"s3://one/b\.tar was not found"):
        SparseCopy("s3://one/b.tar", copy.cache).fetch([piece])
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="s3://one/x/a"):
        copy.fetch([(50, 20, 0)])


def test_parts_of_s3_objects_need_boto3(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(UserError, match=r"s3://bucket/a\.tar: reading from S3 requires boto3.*`pip install boto3`"):
        SparseCopy("s3://bucket/a.tar", FileCache(tmp_path / "cache")).fetch([(0, 10, 1)])
