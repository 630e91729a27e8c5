import builtins
import hashlib
from pathlib import Path

import pytest

from mmf_flava.errors import UserError
from mmf_flava.files import download
from mmf_flava.files.download import fetch
from mmf_flava.files.faults import Unreachable


def test_a_checksum_is_checked(server, downloads):
    server.files["/a.bin"] = b"content"
    good, bad = hashlib.sha256(b"content").hexdigest(), hashlib.sha256(b"else").hexdigest()
    with pytest.raises(UserError, match="hashes to sha256"):
        fetch(f"{server.url}/a.bin", sha256=bad)
    assert not [file for file in downloads.rglob("a.bin*") if file.suffix != ".lock"]
    assert fetch(f"{server.url}/a.bin", sha256=good.upper()).read_bytes() == b"content"
    with pytest.raises(UserError, match="cached copy"):
        fetch(f"{server.url}/a.bin", sha256=bad)


def test_the_hubs_own_checksum_is_checked(server, downloads):
    server.files["/a.bin"] = b"content"
    server.etag["/a.bin"] = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(UserError, match="hashes to sha256"):
        fetch(f"{server.url}/a.bin")
    server.etag["/a.bin"] = hashlib.sha256(b"content").hexdigest()
    assert fetch(f"{server.url}/a.bin").read_bytes() == b"content"


def test_a_download_goes_on_where_it_was_cut_off(server, downloads):
    content = bytes(range(256)) * 10_000
    server.files["/big.bin"], server.cut_after = content, 1_500_000
    with pytest.raises(UserError, match="goes on"):
        fetch(f"{server.url}/big.bin")
    assert not [file for file in downloads.rglob("big.bin")]  # never a half file under the whole name
    assert fetch(f"{server.url}/big.bin").read_bytes() == content
    assert ("/big.bin", "bytes=1500000-") in server.asked


def test_no_network_is_a_sentence(server, downloads):
    with pytest.raises(UserError, match=r"cannot be reached.*local copy"):
        fetch("http://127.0.0.1:9/x.pt")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of this system")
@pytest.mark.parametrize("size", [10, 2_000_000], ids=["noticed at the end", "noticed at once"])
def test_a_full_disk_is_no_broken_connection(server, downloads, monkeypatch, size):
    server.files["/a.bin"] = bytes(size)
    monkeypatch.setattr(download, "open", lambda _, mode: builtins.open("/dev/full", mode), raising=False)  # noqa: SIM115
    with pytest.raises(UserError, match=r"a\.bin cannot be written \(No space left") as caught:
        fetch(f"{server.url}/a.bin")
    assert not isinstance(caught.value, Unreachable), "waiting does not mend it"
