"""Downloads through iopath: cached, resumable and verified by checksum, with a progress bar."""

import errno
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from iopath.common.file_io import PathHandler, PathManager, file_lock
from tqdm import tqdm

from mmf_flava.errors import UserError
from mmf_flava.files.download_errors import DownloadError, RemoteFileNotFoundError
from mmf_flava.files.s3 import download_object

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w.-]+)?")
SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK = 1 << 20
TIMEOUT = 60


def is_remote(path: object) -> bool:
    """Return whether ``path`` is a URL that ``download_file`` supports."""
    return str(path).startswith(("http://", "https://", "s3://"))


def default_cache_dir() -> Path:
    """Return the download folder: ``$MMF_CACHE_DIR/mmf_flava`` if MMF_CACHE_DIR is set, else ``~/.cache/mmf_flava``."""
    configured = os.environ.get("MMF_CACHE_DIR")
    return Path(configured).expanduser() / "mmf_flava" if configured else Path.home() / ".cache" / "mmf_flava"


def hub_url(name: str, file: str) -> str:
    """Return the URL of a file in a Hugging Face repository. The environment variable HF_ENDPOINT sets another server.

    Args:
        name: model ID ``owner/name``, which may be followed by ``@revision``.
    """
    repository, _, revision = name.partition("@")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{endpoint.rstrip('/')}/{repository}/resolve/{quote(revision or 'main', safe='')}/{quote(file)}"


def download_file(
    url: str, cache_dir: str | Path | None = None, sha256: str | None = None, progress: bool = True
) -> Path:
    """Return the path of a file's local copy; download the file if it is not in the cache.

    Args:
        url: http(s) or s3 URL.
        cache_dir: download folder; default: see ``default_cache_dir``.
        sha256: expected SHA-256 in hexadecimal; default: the checksum sent by the server, if any.
        progress: whether to show a progress bar.

    Raises:
        RemoteFileNotFoundError: the file does not exist on the server, or access to it is denied.
        DownloadError: the connection failed or was lost; the next call resumes the download.
        UserError: the checksum does not match, or the disk is full.
    """
    manager = PathManager()
    manager.register_handler(DownloadHandler(sha256, progress))
    return Path(manager.get_local_path(url, cache_dir=str(cache_dir or default_cache_dir())))


def find_cached(url: str, cache_dir: str | Path | None = None) -> Path | None:
    """Return the path of a file's local copy, or None if it is not in the cache; does not access the network."""
    path = cache_path(url, cache_dir)
    return path if path.is_file() else None


def cache_path(url: str, cache_dir: str | Path | None = None) -> Path:
    """Return the path of the local copy of a file; the copy may not exist yet."""
    split = urlsplit(url)
    names = [re.sub(r"[^\w.@=-]", "_", name) for name in [split.netloc, *split.path.split("/")] if name]
    if split.query:  # the query may select the file; it is hashed because it may contain a secret
        names.insert(-1, hashlib.sha256(split.query.encode()).hexdigest()[:16])
    return Path(cache_dir or default_cache_dir(), *("_" if name in (".", "..") else name for name in names))


class DownloadHandler(PathHandler):
    """iopath's ``PathHandler`` for http, https and s3 URLs.

    Unlike iopath's HTTP handler, it resumes interrupted downloads and verifies checksums. S3 downloads are delegated to
    iopath's S3 handler, and their files are stored in the same cache.
    """

    def __init__(self, sha256: str | None = None, progress: bool = True) -> None:
        super().__init__()
        self.sha256 = sha256.lower() if sha256 else None
        self.progress = progress

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://", "s3://"]

    def _get_local_path(self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any) -> str:
        target = cache_path(path, cache_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(target)):
            if force or not target.is_file():
                if path.startswith("s3://"):
                    download_object(path, target, Path(cache_dir or default_cache_dir()))
                else:
                    _download_http(path, target, self.sha256, self.progress)
            elif self.sha256 is not None:
                _verify(target, self.sha256, f"{target}, the cached copy of {strip_query(path)},")
        return str(target)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirect handler that stores the checksum that the Hugging Face Hub sends.

    Only the redirect response contains this checksum; the storage server sends a different ETag.
    """

    checksum: str | None = None

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.checksum = self.checksum or _checksum(headers, "X-Linked-Etag")
        if not newurl.startswith(("http://", "https://")):
            scheme = newurl.split(":")[0]
            raise UserError(
                f"{strip_query(req.full_url)} redirects to a {scheme}: URL; only http and https are supported."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download_http(url: str, target: Path, sha256: str | None, progress: bool) -> None:
    response, redirects = _send_request(url)
    with response:
        expected = sha256 or redirects.checksum or _checksum(response.headers, "X-Linked-Etag", "ETag")
        # the name of the partial file contains a hash of the version, so that two versions of a file are not mixed
        tag = expected or response.headers.get("ETag") or response.headers.get("Content-Length") or ""
        partial = target.with_name(f".{target.name}.{hashlib.sha256(tag.encode()).hexdigest()[:16]}.part")
        offset = partial.stat().st_size if partial.is_file() else 0
        if not offset:
            _save(response, partial, 0, progress)
    if offset:
        response, _ = _send_request(url, offset)
        with response:
            _save(response, partial, offset if response.status == 206 else 0, progress)
    if expected is not None:
        try:
            _verify(partial, expected, strip_query(url))
        except UserError:
            partial.unlink()
            raise
    os.replace(partial, target)


def _send_request(url: str, start: int = 0) -> tuple[Any, _Redirects]:
    redirects = _Redirects()
    headers = {"User-Agent": "mmf_flava", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT), redirects
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # the partial file is complete already
            return _send_request(url)
        if error.code in (401, 403, 404, 410):
            raise RemoteFileNotFoundError(
                f"{strip_query(url)} was not found, or access to it is denied (HTTP {error.code}). Check the URL."
            ) from None
        raise DownloadError(
            f"{strip_query(url)} is not available (HTTP {error.code} {error.reason}). Try again later."
        ) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DownloadError(
            f"{strip_query(url)} cannot be reached ({reason}). Check the network, or set the path of a local copy."
        ) from None


def _save(response: Any, partial: Path, offset: int, progress: bool) -> None:
    """Append the body of ``response`` to ``partial``, or replace ``partial`` if ``offset`` is 0."""
    length = response.headers.get("Content-Length")
    total = offset + int(length) if length else None
    name = partial.name[1:].rsplit(".", 2)[0]
    try:
        with (
            open(partial, "ab" if offset else "wb") as file,
            tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=name, disable=not progress) as bar,
        ):
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            target = partial.with_name(name)
            raise UserError(
                f"{target} cannot be written ({error.strerror}). Free disk space, or set MMF_CACHE_DIR to another "
                "folder."
            ) from None
        raise DownloadError(
            f"{name}: the connection was lost after {partial.stat().st_size:,} bytes ({error}). Run the command again "
            "to resume the download."
        ) from None
    if total is not None and partial.stat().st_size < total:
        size = partial.stat().st_size
        raise DownloadError(
            f"{name}: the connection was closed after {size:,} of {total:,} bytes. Run the command again to resume the "
            "download."
        )


def _checksum(headers: Message, *names: str) -> str | None:
    values: Iterable[str] = ((headers.get(name) or "").removeprefix("W/").strip('"').lower() for name in names)
    return next((value for value in values if SHA256.fullmatch(value)), None)


def _verify(file: Path, sha256: str, what: str) -> None:
    with open(file, "rb") as handle:
        actual = hashlib.file_digest(handle, "sha256").hexdigest()
    if actual != sha256:
        raise UserError(
            f"{what} has sha256 {actual}, expected {sha256}. Delete the local copy, if any, and download the file "
            "again, or correct the checksum."
        )


def strip_query(url: str) -> str:
    """Return the URL without its query, which may contain a secret."""
    return url.partition("?")[0]
