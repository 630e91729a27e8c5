"""Repositories of the Hugging Face Hub: cache, offline, revisions, errors."""

import errno
import os
import time

import pytest
from huggingface_hub import constants, file_download

from mmf_flava.errors import UserError
from mmf_flava.files.hub import download_from_hub, open_repository

FILES = {"config.json": b"{}", "a.bin": b"one"}


def stop(hub):
    hub.shutdown()
    hub.server_close()
    open_repository.cache_clear()


def test_files_are_stored_in_the_cache_of_huggingface_hub(hub):
    commit = hub.upload("me/model", FILES)
    config, weights = download_from_hub("me/model", "config.json", "missing.json", "a.bin")
    assert weights.read_bytes() == b"one"
    assert config.parent == weights.parent == hub.cache / "models--me--model" / "snapshots" / commit


def test_cached_files_are_used_without_the_hub(hub, monkeypatch):
    hub.upload("me/model", FILES)
    download_from_hub("me/model", *FILES)
    stop(hub)
    start = time.monotonic()
    assert [path.read_bytes() for path in download_from_hub("me/model", "x", *FILES)] == [b"{}", b"one"]
    assert time.monotonic() - start < 5
    open_repository.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [path.read_bytes() for path in download_from_hub("me/model", "x", *FILES)] == [b"{}", b"one"]
    with pytest.raises(UserError, match=r"me/other is not in the Hugging Face cache .*HF_HUB_OFFLINE is set"):
        download_from_hub("me/other", *FILES)


def test_new_commit_is_downloaded_but_one_process_uses_one_commit(hub):
    hub.upload("me/model", FILES)
    download_from_hub("me/model", "config.json")
    hub.upload("me/model", {**FILES, "a.bin": b"two"})
    assert download_from_hub("me/model", "a.bin")[0].read_bytes() == b"one"
    open_repository.cache_clear()
    assert download_from_hub("me/model", "a.bin")[0].read_bytes() == b"two"


def test_pinned_files_are_found_without_requests(hub):
    hub.upload("me/model", FILES)
    download_from_hub("me/model", *FILES, "missing.json")
    open_repository.cache_clear()
    hub.requests.clear()
    download_from_hub("me/model", *FILES, "missing.json")
    assert len(hub.requests) <= 2  # the commit of the branch


def test_read_only_cache_is_used_and_cannot_be_extended(hub, monkeypatch):
    hub.upload("me/model", FILES)
    download_from_hub("me/model", "config.json")
    open_repository.cache_clear()

    def refuse(path, *args, **options):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    monkeypatch.setattr(file_download, "WeakFileLock", refuse)
    assert download_from_hub("me/model", "config.json")[0].read_bytes() == b"{}"
    with pytest.raises(UserError, match=r"cannot be written \(Read-only file system\).*HF_HUB_CACHE"):
        download_from_hub("me/model", "a.bin")


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("me/gated", (403, "GatedRepo"), "access to this Hugging Face repository is restricted.*HF_TOKEN"),
        ("me/none", None, "me/none was not found on the Hugging Face Hub, or it is private"),
        ("me/model@none", None, "me/model@none: the Hugging Face repository has no such revision"),
        ("me/--", None, "me/-- is not a valid Hugging Face model ID"),
        ("me/busy", (503, None), r"me/busy: the Hugging Face Hub cannot be reached \(HTTP 503\)"),
        ("me/limited", (429, None), r"cannot be reached \(HTTP 429\)"),
    ],
)
def test_errors_of_the_hub_are_one_sentence(hub, name, answer, message):
    hub.upload("me/model", FILES)
    if answer:
        hub.hub_errors[name] = answer
    start = time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        download_from_hub(name, *FILES)
    assert time.monotonic() - start < 5 and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_unreachable_hub_is_reported_at_once(hub):
    stop(hub)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached \(ConnectError\).*set the path of a local copy"):
        download_from_hub("me/model", *FILES)
    assert time.monotonic() - start < 5


def test_full_disk_is_a_user_error(hub, monkeypatch):
    hub.upload("me/model", FILES)

    def http_get(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device", "file")

    monkeypatch.setattr(file_download, "http_get", http_get)
    with pytest.raises(UserError, match="No space left on device"):
        download_from_hub("me/model", "a.bin")
