import multiprocessing
import os
import sys

import iopath.common.s3  # noqa: F401 (before a test makes boto3 missing)
import pytest

from mmf_flava.errors import UserError
from mmf_flava.files import cache as module
from mmf_flava.files.cache import FileCache
from mmf_flava.files.faults import NotThere, Unreachable


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(module, "WAITS", (0.01, 0.01))


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


def held(cache):
    return sorted(path.name for path in cache.folder.rglob("*.tar"))


def age(cache, url, seconds):
    time = cache.place(url).stat().st_mtime - seconds
    os.utime(cache.place(url), (time, time))


def test_a_file_is_fetched_when_first_opened(server, urls, tmp_path, capfd):
    cache = FileCache(tmp_path / "cache")
    assert [content(cache, url)[:1] for url in [*urls, *urls]] == [b"a", b"b", b"c", b"d"] * 2
    assert len(server.asked) == 4
    assert not capfd.readouterr().err, "bars of many files at once are of no use"


def test_the_longest_unused_makes_room(server, urls, tmp_path):
    cache = FileCache(tmp_path / "cache", 250)
    for seconds, url in zip((20, 10), urls, strict=False):
        content(cache, url)
        age(cache, url, seconds)
    content(cache, urls[0])  # used again
    content(cache, urls[2])
    assert held(cache) == ["a.tar", "c.tar"]


@pytest.mark.parametrize("size", [100, 0], ids=["size known", "size unknown"])
def test_a_file_that_is_open_stays(server, urls, tmp_path, size):
    cache = FileCache(tmp_path / "cache", 250)
    descriptor = cache.open(urls[0])
    age(cache, urls[0], 20)
    for url in urls[1:]:
        content(cache, url, size)
        age(cache, url, 10)
    assert held(cache) == ["a.tar", "d.tar"]
    os.close(descriptor)
    content(cache, urls[1], size)
    assert held(cache) == ["b.tar", "d.tar"]


@pytest.mark.parametrize("name", ["host/.a.tar.0.part", ".s3/bucket/s3_cache/a.tar.tmp"])
def test_half_a_download_counts_and_goes_when_nobody_goes_on_with_it(server, urls, tmp_path, name):
    cache = FileCache(tmp_path / "cache", 250)
    half = cache.folder / name
    half.parent.mkdir(parents=True)
    half.write_bytes(b"a" * 90)
    for url in urls[1:3]:
        content(cache, url)
        age(cache, url, 10)
    assert half.is_file() and held(cache) == ["c.tar"]
    time = half.stat().st_mtime - module.ABANDONED - 1
    os.utime(half, (time, time))
    content(cache, urls[3])
    assert not half.is_file() and held(cache) == ["c.tar", "d.tar"]


def test_a_damaged_copy_is_discarded_but_not_its_successor(server, urls, tmp_path):
    cache = FileCache(tmp_path / "cache")
    descriptor = cache.open(urls[0])
    cache.discard(urls[0], descriptor)
    assert held(cache) == []
    content(cache, urls[0])
    cache.discard(urls[0], descriptor)  # another process that found the same damage
    assert held(cache) == ["a.tar"]
    os.close(descriptor)


def test_a_busy_server_is_asked_again(server, urls, tmp_path):
    cache = FileCache(tmp_path / "cache")
    server.busy = 2
    assert content(cache, urls[0]) == b"a" * 100
    server.busy = 3
    with pytest.raises(Unreachable, match="503"):
        cache.open(urls[1])


def test_a_cut_download_goes_on(server, tmp_path):
    cache = FileCache(tmp_path / "cache", 5_000_000)
    server.files["/a.tar"], server.cut_after = bytes(range(256)) * 10_000, 1_500_000
    descriptor = cache.open(f"{server.url}/a.tar", 2_560_000)
    assert os.fstat(descriptor).st_size == 2_560_000
    os.close(descriptor)
    assert [asked for _, asked in server.asked] == [None, None, "bytes=1500000-"]


def test_what_is_not_there_is_not_asked_for_again(server, urls, tmp_path):
    cache = FileCache(tmp_path / "cache")
    with pytest.raises(NotThere, match="404"):
        cache.get(f"{server.url}/e.tar")
    server.shutdown()
    server.server_close()
    with pytest.raises(Unreachable, match="cannot be reached"):
        cache.open(urls[0])


def _content(cache, url, barrier, queue):
    barrier.wait()
    queue.put(content(cache, url))


def test_two_processes_at_once_fetch_once(server, urls, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    arguments = (FileCache(tmp_path / "cache", 150), urls[0], barrier, queue)
    processes = [context.Process(target=_content, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [b"a" * 100] * 2
    for process in processes:
        process.join()
    assert server.asked == [("/a.tar", None)]


def test_s3_needs_boto3(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "boto3.s3.transfer", None)
    with pytest.raises(UserError, match=r"s3://bucket/a\.tar cannot be read without boto3: `pip install boto3`"):
        FileCache(tmp_path / "cache").open("s3://bucket/a.tar")


def test_s3_objects_lie_in_the_same_cache(server, tmp_path, monkeypatch):
    pytest.importorskip("boto3")
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "name",
        "AWS_SECRET_ACCESS_KEY": "word",
        "AWS_DEFAULT_REGION": "nowhere",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    for bucket in ("one", "two"):
        server.files[f"/{bucket}/x/a.tar"] = bucket.encode() * 40
    cache = FileCache(tmp_path / "cache", 250)
    for _ in range(2):
        assert content(cache, "s3://one/x/a.tar", 120) == b"one" * 40
        assert content(cache, "s3://two/x/a.tar", 120) == b"two" * 40
    assert len(server.asked) == 2 and len(held(cache)) == 2
    with pytest.raises(NotThere, match=r"s3://one/b\.tar is not there"):
        cache.open("s3://one/b.tar")
    server.shutdown()
    server.server_close()
    with pytest.raises(Unreachable, match="s3://one/c"):
        cache.open("s3://one/c.tar")
