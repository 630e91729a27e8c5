"""Files from the network, through iopath: a progress bar, a checksum, a cache, no half files."""

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
from mmf_flava.files.faults import NotThere, Unreachable
from mmf_flava.files.s3 import download_object

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w.-]+)?")
SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK = 1 << 20
TIMEOUT = 60


def is_remote(path: object) -> bool:
    """Whether this is an address that ``fetch`` understands, and not a local path."""
    return str(path).startswith(("http://", "https://", "s3://"))


def default_cache() -> Path:
    """Where downloads stay: MMF's cache where one is named, else ~/.cache/mmf_flava."""
    named = os.environ.get("MMF_CACHE_DIR")
    return Path(named).expanduser() / "mmf_flava" if named else Path.home() / ".cache" / "mmf_flava"


def hub_url(name: str, file: str) -> str:
    """Address of a repository's file on the hub that HF_ENDPOINT names; ``name@revision`` is understood."""
    repository, _, revision = name.partition("@")
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{endpoint.rstrip('/')}/{repository}/resolve/{quote(revision or 'main', safe='')}/{quote(file)}"


def fetch(url: str, cache_dir: str | Path | None = None, sha256: str | None = None, progress: bool = True) -> Path:
    """The local copy of a file; it is downloaded where the cache lacks it.

    Args:
        url: http(s) or s3.
        sha256: what the file must hash to, in hexadecimal; by default what the server itself promises.
        progress: show a bar.

    Raises:
        NotThere: the server has no such file.
        Unreachable: no connection, or one that broke; the next call goes on where it did.
        UserError: the file is not the one that the checksum names, or there is no space for it.
    """
    manager = PathManager()
    manager.register_handler(DownloadHandler(sha256, progress))
    return Path(manager.get_local_path(url, cache_dir=str(cache_dir or default_cache())))


def cached(url: str, cache_dir: str | Path | None = None) -> Path | None:
    """The local copy of a file if it is in the cache; never asks the network."""
    place = local_place(url, cache_dir)
    return place if place.is_file() else None


def local_place(url: str, cache_dir: str | Path | None = None) -> Path:
    """Where the local copy of a file lies, or will."""
    parts = urlsplit(url)
    names = [re.sub(r"[^\w.@=-]", "_", name) for name in [parts.netloc, *parts.path.split("/")] if name]
    if parts.query:  # another query may be another file; its text may be a secret
        names.insert(-1, hashlib.sha256(parts.query.encode()).hexdigest()[:16])
    return Path(cache_dir or default_cache(), *("_" if name in (".", "..") else name for name in names))


class DownloadHandler(PathHandler):
    """iopath's handler for http and https; unlike iopath's own it goes on where it was cut off, and checks sums.

    What it fetches through iopath's own handler for s3 lies in the same cache.
    """

    def __init__(self, sha256: str | None = None, progress: bool = True) -> None:
        super().__init__()
        self.sha256 = sha256.lower() if sha256 else None
        self.progress = progress

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://", "s3://"]

    def _get_local_path(self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any) -> str:
        target = local_place(path, cache_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(target)):
            if force or not target.is_file():
                if path.startswith("s3://"):
                    download_object(path, target, Path(cache_dir or default_cache()))
                else:
                    _download(path, target, self.sha256, self.progress)
            elif self.sha256 is not None:
                _verify(target, self.sha256, f"{target}, the cached copy of {shown(path)},")
        return str(target)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the hub's checksum, which stands in the first answer only; the storage that it points to has another."""

    checksum: str | None = None

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.checksum = self.checksum or _checksum(headers, "X-Linked-Etag")
        if not newurl.startswith(("http://", "https://")):
            raise UserError(f"{shown(req.full_url)} points to {newurl.split(':')[0]}:, which is not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, target: Path, sha256: str | None, progress: bool) -> None:
    response, redirects = _ask(url)
    with response:
        promised = sha256 or redirects.checksum or _checksum(response.headers, "X-Linked-Etag", "ETag")
        # a part belongs to one content: the name of another one differs
        tag = promised or response.headers.get("ETag") or response.headers.get("Content-Length") or ""
        part = target.with_name(f".{target.name}.{hashlib.sha256(tag.encode()).hexdigest()[:16]}.part")
        have = part.stat().st_size if part.is_file() else 0
        if not have:
            _receive(response, part, 0, progress)
    if have:
        response, _ = _ask(url, have)
        with response:
            _receive(response, part, have if response.status == 206 else 0, progress)
    if promised is not None:
        try:
            _verify(part, promised, shown(url))
        except UserError:
            part.unlink()
            raise
    os.replace(part, target)


def _ask(url: str, start: int = 0) -> tuple[Any, _Redirects]:
    redirects = _Redirects()
    headers = {"User-Agent": "mmf_flava", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT), redirects
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # the part is whole already
            return _ask(url)
        if error.code in (401, 403, 404, 410):
            raise NotThere(f"{shown(url)} is not there, or not for everyone (HTTP {error.code}).") from None
        raise Unreachable(f"{shown(url)} cannot be had now: HTTP {error.code} {error.reason}.") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(
            f"{shown(url)} cannot be reached ({reason}); where there is no network, give the path of a local copy."
        ) from None


def _receive(response: Any, part: Path, have: int, progress: bool) -> None:
    length = response.headers.get("Content-Length")
    total = have + int(length) if length else None
    name = part.name[1:].rsplit(".", 2)[0]
    try:
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, disable=not progress) as bar,
        ):
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            place = part.with_name(name)
            raise UserError(
                f"{place} cannot be written ({error.strerror}): make room, or name another folder with MMF_CACHE_DIR."
            ) from None
        raise Unreachable(
            f"The connection broke after {part.stat().st_size:,} bytes ({error}); the next call goes on there."
        ) from None
    if total is not None and part.stat().st_size < total:
        raise Unreachable(
            f"The connection ended after {part.stat().st_size:,} of {total:,} bytes; the next call goes on."
        )


def _checksum(headers: Message, *names: str) -> str | None:
    values: Iterable[str] = ((headers.get(name) or "").removeprefix("W/").strip('"').lower() for name in names)
    return next((value for value in values if SHA256.fullmatch(value)), None)


def _verify(file: Path, sha256: str, what: str) -> None:
    with open(file, "rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != sha256:
        raise UserError(f"{what} hashes to sha256 {found}, not to {sha256}: it is damaged or another file.")


def shown(url: str) -> str:
    """An address without its query, which may hold a secret."""
    return url.partition("?")[0]
