"""Resumable downloads of files from HTTP servers, verified by length and checksum."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mmf_flava.errors import UserError, hide_address
from mmf_flava.files import atomic
from mmf_flava.files.checksums import sha256 as compute_sha256
from mmf_flava.files.download_errors import DownloadError
from mmf_flava.files.http_request import CONTENT_RANGE, Response, read_length, request

CHUNK = 1 << 20


@dataclass(frozen=True)
class Version:
    """What identifies one version of a remote file.

    etag, modified: the headers ETag and Last-Modified.
    length: size in bytes, or None if the server does not send it.
    checksum: expected SHA-256, or None if unknown.
    """

    etag: str | None
    modified: str | None
    length: int | None
    checksum: str | None

    @property
    def can_resume(self) -> bool:
        """Whether a changed file is noticed when a download resumes."""
        return any((self.etag, self.modified, self.checksum))

    @property
    def range_condition(self) -> dict[str, str]:
        """The header If-Range, with which a server sends the complete file if it has changed."""
        strong = None if (self.etag or "W/").startswith("W/") else self.etag
        value = strong or self.modified
        return {"If-Range": value} if value else {}

    def partial(self, target: Path) -> Path:
        """Return the path of the partial download of this version of ``target``."""
        tag = hashlib.sha256(repr(self).encode()).hexdigest()[:16]
        return target.with_name(f".{target.name}.{tag}.part")

    def is_continued_by(self, response: Response, offset: int) -> bool:
        """Return whether a response to a range request contains the rest of this version, from byte ``offset``."""
        match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if response.status != 206 or match is None:
            return False
        start, last, total = int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])
        sent = read_length(response)
        return (
            start == offset
            and (total is None or self.length is None or (total == self.length and last == total - 1))
            and (sent is None or sent == last - start + 1)
            and response.headers.get("ETag") in (None, self.etag)
            and response.headers.get("Last-Modified") in (None, self.modified)
        )


def download_http(url: str, target: Path, sha256: str | None, progress: bool, resume: bool = True) -> None:
    """Download a file to ``target``. A partial download of the same version of the file is resumed.

    Args:
        sha256: expected SHA-256 in hexadecimal; default: the checksum sent by the server, if any.
        progress: whether to show a progress bar.
        resume: whether a partial download is resumed.

    Raises:
        RemoteFileNotFoundError, DownloadError: see ``http_request.request``.
        UserError: the checksum does not match, or the disk is full.
    """
    name = hide_address(url)
    with request(url) as response:
        if response.status != 200 and not _is_whole(response):
            status = response.status
            raise DownloadError(f"{name}: the server sends only a part of the file (HTTP {status}). Check the URL.")
        version = _read_version(response, sha256)
        partial = version.partial(target)
        offset = partial.stat().st_size if resume and version.can_resume and partial.is_file() else 0
        if version.length is not None and offset > version.length:
            offset = 0
        if not offset:
            _save(response, partial, 0, version, progress)
    if offset and offset != version.length:
        headers = {"Range": f"bytes={offset}-", **version.range_condition}
        with request(url, headers) as response:
            continued = version.is_continued_by(response, offset)
            if continued:
                _save(response, partial, offset, version, progress)
        if not continued:
            # the file has changed, or the server does not support ranges
            download_http(url, target, sha256, progress, resume=False)
            return
    if version.checksum is not None and (actual := compute_sha256(partial)) != version.checksum:
        partial.unlink()
        if offset:  # the beginning may be of another version
            download_http(url, target, sha256, progress, resume=False)
            return
        raise UserError(checksum_error(name, actual, version.checksum))
    _move(partial, target)


def checksum_error(name: str, actual: str, expected: str) -> str:
    """Return the error message for a file whose checksum does not match."""
    return (
        f"{name} has sha256 {actual}, expected {expected}. Delete the local copy, if any, and download the file again, "
        "or correct the checksum."
    )


def write_error(target: Path, error: OSError) -> UserError:
    """Return the exception for a file in the cache that cannot be written."""
    return UserError(
        f"{target} cannot be written ({error.strerror}). Free disk space, or set MMF_CACHE_DIR to another folder."
    )


def _read_version(response: Response, sha256: str | None) -> Version:
    headers = response.headers
    length = read_length(response)
    return Version(headers.get("ETag"), headers.get("Last-Modified"), length, sha256 or response.checksum)


def _is_whole(response: Response) -> bool:
    """Return whether a response with status 206 to a request without a range contains the complete file."""
    match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    return match is not None and int(match[1]) == 0 and match[3] == str(int(match[2]) + 1)


def _save(response: Response, partial: Path, offset: int, version: Version, progress: bool) -> None:
    """Append the body of ``response`` to ``partial``, or replace ``partial`` if ``offset`` is 0."""
    size, total = offset, version.length
    name = partial.name[1:].rsplit(".", 2)[0]
    target = partial.with_name(name)
    again = "to resume the download" if version.can_resume else "to start the download again"
    free = shutil.disk_usage(partial.parent).free
    if total is not None and total - offset > free:
        raise UserError(
            f"{target} needs {total - offset:,} bytes, but the disk has {free:,} free bytes. Free disk space, or set "
            "MMF_CACHE_DIR to another folder."
        )
    try:
        with (
            open(partial, "ab" if offset else "wb") as file,
            tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=name, disable=not progress) as bar,
        ):
            try:
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    size += len(chunk)
                    bar.update(len(chunk))
            except DownloadError as error:
                raise DownloadError(f"{error} {size:,} bytes were received. Run the command again {again}.") from None
    except OSError as error:
        if total is None:  # it may be endless
            partial.unlink(missing_ok=True)
        raise write_error(target, error) from None
    if total is not None and size != total:
        raise DownloadError(
            f"{name}: the connection was closed after {size:,} of {total:,} bytes. Run the command again {again}."
        )


def _move(partial: Path, target: Path) -> None:
    """Rename a complete download to ``target``, and delete partial downloads of other versions."""
    try:
        atomic.fsync(partial)
        os.replace(partial, target)
        for other in target.parent.glob(f".{target.name}.*.part"):
            other.unlink(missing_ok=True)
        atomic.fsync(target.parent)
    except OSError as error:
        raise write_error(target, error) from None
