import builtins
import hashlib
from pathlib import Path

import pytest

from mmf_flava.errors import UserError
from mmf_flava.files import http_download
from mmf_flava.files.download import download_file
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
