"""Downloads through iopath: cached, resumable and verified by checksum, with a progress bar."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from iopath.common.file_io import PathHandler, PathManager, file_lock

from mmf_flava.errors import UserError, hide_address
from mmf_flava.files.checksums import sha256 as compute_sha256
from mmf_flava.files.download_errors import DownloadError
from mmf_flava.files.http_download import checksum_error, download_http, write_error
from mmf_flava.files.s3 import download_object

MAX_NAME = 80  # characters of the names in the cache


def is_remote(path: object) -> bool:
    """Return whether ``path`` is a URL that ``download_file`` supports."""
    return str(path).startswith(("http://", "https://", "s3://"))


def default_cache_dir() -> Path:
    """Return the download folder: ``$MMF_CACHE_DIR/mmf_flava`` if MMF_CACHE_DIR is set, else ``~/.cache/mmf_flava``."""
    configured = os.environ.get("MMF_CACHE_DIR")
    return Path(configured).expanduser() / "mmf_flava" if configured else Path.home() / ".cache" / "mmf_flava"


def download_file(
    url: str,
    cache_dir: str | Path | None = None,
    sha256: str | None = None,
    progress: bool = True,
    target: Path | None = None,
) -> Path:
    """Return the path of a file's local copy; download the file if it is not in the cache.

    Args:
        url: http(s) or s3 URL.
        cache_dir: download folder; default: see ``default_cache_dir``.
        sha256: expected SHA-256 in hexadecimal; default: the checksum sent by the server, if any.
        progress: whether to show a progress bar.
        target: path of the local copy; default: see ``cache_path``.

    Raises:
        RemoteFileNotFoundError: the file does not exist on the server, or access to it is denied.
        DownloadError: the connection failed or was lost; the next call resumes the download.
        UserError: the checksum does not match, or the cache cannot be written to.
    """
    manager = PathManager()
    manager.register_handler(DownloadHandler(sha256, progress))
    return Path(manager.get_local_path(url, cache_dir=str(cache_dir or default_cache_dir()), target=target))


def cache_path(url: str, cache_dir: str | Path | None = None) -> Path:
    """Return the path of the local copy of a file; the copy may not exist yet.

    The path is ``<host>/<hash>/<file name>``. The hash is of the entire URL, so different URLs have different paths.
    Host and name are shortened and contain no credentials.
    """
    try:
        split = urlsplit(url)
    except ValueError:
        raise UserError(f"{hide_address(url)} is not a valid URL. Correct it.") from None
    host, name = split.netloc.rpartition("@")[2], unquote(split.path.rstrip("/").rpartition("/")[2])
    tag = hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()[:16]
    return Path(cache_dir or default_cache_dir(), _file_name(host), tag, _file_name(name))


def _file_name(text: str) -> str:
    """Return ``text`` as a file name: ASCII, not hidden, and short. The end is kept, because of the suffix."""
    return re.sub(r"[^A-Za-z0-9._=-]", "_", text)[-MAX_NAME:].lstrip(".") or "_"


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

    def _get_local_path(
        self,
        path: str,
        force: bool = False,
        cache_dir: str | None = None,
        target: Path | None = None,
        **kwargs: Any,
    ) -> str:
        target = target or cache_path(path, cache_dir)
        if force or not target.is_file():  # an existing file needs no lock, so the cache may be read-only
            with _lock(target):
                if force or not target.is_file():
                    if not path.startswith("s3://"):
                        download_http(path, target, self.sha256, self.progress)
                        return str(target)
                    download_object(path, target, Path(cache_dir or default_cache_dir()))
        if self.sha256 is not None and (actual := compute_sha256(target)) != self.sha256:
            raise UserError(checksum_error(f"{target}, the cached copy of {hide_address(path)},", actual, self.sha256))
        return str(target)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering)


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Context manager: hold the lock of a file in the cache, so that one process downloads it.

    Raises:
        DownloadError: another process has held the lock for an hour.
        UserError: the cache cannot be written to.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = file_lock(str(target))
        lock.acquire()
    except OSError as error:
        raise write_error(target, error) from None
    except Exception as error:  # portalocker's exceptions for locks of other processes
        raise DownloadError(
            f"{target}.lock is held by another process ({type(error).__name__}). Wait until it has downloaded the file."
        ) from None
    try:
        yield
    finally:
        lock.release()
