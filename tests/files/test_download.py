import builtins
import errno
import hashlib
from pathlib import Path

import portalocker
import pytest
from iopath.common.file_io import file_lock

from mmf_flava.errors import UserError
from mmf_flava.files import download, http_download
from mmf_flava.files.download import cache_path, download_file
from mmf_flava.files.download_errors import DownloadError


def test_checksum_is_verified(server, downloads):
    server.files["/a.bin"] = b"content"
    good, bad = hashlib.sha256(b"content").hexdigest(), hashlib.sha256(b"else").hexdigest()
    with pytest.raises(UserError, match=r"has sha256 .*, expected"):
        download_file(f"{server.url}/a.bin", sha256=bad)
    assert not [file for file in downloads.rglob("a.bin*") if file.suffix != ".lock"]
    assert download_file(f"{server.url}/a.bin", sha256=good.upper()).read_bytes() == b"content"
    with pytest.raises(UserError, match="cached copy"):
        download_file(f"{server.url}/a.bin", sha256=bad)


def test_checksum_sent_by_the_hub_is_verified(server, downloads):
    server.files["/a.bin"] = b"content"
    server.etag["/a.bin"] = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(UserError, match=r"has sha256 .*, expected"):
        download_file(f"{server.url}/a.bin")
    server.etag["/a.bin"] = hashlib.sha256(b"content").hexdigest()
    assert download_file(f"{server.url}/a.bin").read_bytes() == b"content"


def test_interrupted_download_is_resumed(server, downloads):
    content = bytes(range(256)) * 10_000
    server.files["/big.bin"], server.cut_after = content, 1_500_000
    with pytest.raises(UserError, match="to resume the download"):
        download_file(f"{server.url}/big.bin")
    assert not [file for file in downloads.rglob("big.bin")]  # a partial file never has the final name
    assert download_file(f"{server.url}/big.bin").read_bytes() == content
    assert ("/big.bin", "bytes=1500000-") in server.requests


def test_unreachable_server_raises_an_error_with_a_remedy(server, downloads):
    with pytest.raises(UserError, match=r"cannot be reached.*local copy"):
        download_file("http://127.0.0.1:9/x.pt")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("size", [10, 2_000_000], ids=["detected on close", "detected on write"])
def test_full_disk_is_not_reported_as_a_lost_connection(server, downloads, monkeypatch, size):
    server.files["/a.bin"] = bytes(size)
    monkeypatch.setattr(http_download, "open", lambda _, mode: builtins.open("/dev/full", mode), raising=False)  # noqa: SIM115
    with pytest.raises(UserError, match=r"a\.bin cannot be written \(No space left") as caught:
        download_file(f"{server.url}/a.bin")
    assert not isinstance(caught.value, DownloadError), "retrying does not help"


URLS = [
    "https://host/a+b.bin",
    "https://host/a_b.bin",
    "https://host/a%2Bb.bin",
    "https://host/a b.bin",
    "https://host/A_b.bin",
    "https://HOST/a_b.bin",
    "http://host/a_b.bin",
    "https://host:444/a_b.bin",
    "https://host/x/a_b.bin",
    "https://host/x//a_b.bin",
    "https://host/x/../a_b.bin",
    "https://host/a_b.bin/",
    "https://host/a_b.bin?x=1",
    "https://host/a_b.bin?x=2",
    "https://host/a_b.bin#x",
    "https://user:word@host/a_b.bin",
    "https://user:other@host/a_b.bin",
    "s3://host/a_b.bin",
    "https://host/" + "n" * 300 + ".bin",
    "https://host/" + "m" * 300 + ".bin",
    "https://host",
    "https://host/..",
    "https://host/.hidden",
    "https://host/\u00e4\u0000\ud800.bin",
]


def test_urls_never_share_a_path_of_the_cache(tmp_path):
    paths = [cache_path(url, tmp_path) for url in URLS]
    assert len({str(path).lower() for path in paths}) == len(URLS)
    for path in paths:
        names = path.relative_to(tmp_path).parts
        assert len(names) == 3 and all(name.isascii() and len(name) <= 80 and name[0] != "." for name in names)
        assert not any(word in str(path.relative_to(tmp_path)) for word in ("user", "word", "other", "x="))
    assert paths[0].name == "a_b.bin" and paths[18].suffix == ".bin"


@pytest.mark.parametrize("url", ["http://[::1/a", "https://user:secret@host:port/a", "http:///a", "http://h/a\nb"])
def test_invalid_url_raises_an_error_without_its_credentials(downloads, url):
    with pytest.raises(UserError, match="is not a valid URL") as caught:
        download_file(url)
    assert "secret" not in str(caught.value)


def test_cached_file_is_read_from_a_read_only_cache(server, downloads, monkeypatch):
    server.files["/a.bin"] = server.files["/b.bin"] = b"content"
    download_file(f"{server.url}/a.bin")

    def refuse(path, *args, **options):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(download, "file_lock", refuse)
    monkeypatch.setattr("os.mkdir", refuse)
    assert download_file(f"{server.url}/a.bin").read_bytes() == b"content"
    with pytest.raises(UserError, match=r"b\.bin cannot be written \(Read-only file system\).*MMF_CACHE_DIR"):
        download_file(f"{server.url}/b.bin")


def test_lock_of_another_process_is_a_sentence(server, downloads, monkeypatch):
    server.files["/a.bin"] = b"content"
    path = cache_path(f"{server.url}/a.bin")
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(download, "file_lock", lambda path: portalocker.Lock(f"{path}.lock", timeout=0.1))
    with file_lock(str(path)), pytest.raises(DownloadError, match=r"a\.bin\.lock is held by another process"):
        download_file(f"{server.url}/a.bin")


def test_partial_downloads_of_other_versions_are_deleted(server, downloads):
    server.files["/a.bin"] = b"content"
    path = cache_path(f"{server.url}/a.bin")
    path.parent.mkdir(parents=True)
    (path.parent / ".a.bin.0123456789abcdef.part").write_bytes(b"other")
    download_file(f"{server.url}/a.bin")
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.bin", "a.bin.lock"]
