"""Downloads of S3 objects through iopath and boto3, an optional dependency."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from iopath.common.file_io import PathManager

from mmf_flava.errors import FULL_DISK, NOT_WRITABLE, UserError, hide_address, hide_secrets
from mmf_flava.files import atomic
from mmf_flava.files.download_errors import DownloadError, RangeRefusedError, RemoteFileNotFoundError
from mmf_flava.files.http_download import write_error

CHUNK = 1 << 20
MAX_CONNECTIONS = 64  # of a process; the config key ``connections`` is at most this


def download_object(url: str, target: Path, folder: Path) -> None:
    """Download ``s3://bucket/key`` to ``target``.

    Credentials, region and endpoint are configured as for boto3 (``AWS_ENDPOINT_URL`` for S3-compatible services).

    Args:
        folder: folder for temporary files, on the same file system as ``target``.

    Raises:
        RemoteFileNotFoundError: the object does not exist, or the credentials do not give access to it.
        DownloadError: the service is not reachable or closed the connection.
        UserError: boto3 is not installed.
    """
    name = hide_address(url)
    try:
        manager = _manager(str(folder / ".s3" / urlsplit(url).netloc), os.getpid())
    except ImportError:
        raise _missing(name) from None
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if not manager.isfile(url):
            raise _not_found(name)
        downloaded = Path(manager.get_local_path(url))
        atomic.fsync(downloaded)
        os.replace(downloaded, target)
    except (BotoCoreError, Boto3Error, ClientError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK | NOT_WRITABLE:
            raise write_error(target, error) from None
        raise _unavailable(name, error) from None


def read_object(url: str, start: int, size: int) -> Iterator[bytes]:
    """Yield the bytes ``start`` to ``start + size`` of an object, in parts; fewer bytes if the object ends before.

    Raises:
        RangeRefusedError: the service does not send this range.
        RemoteFileNotFoundError, DownloadError, UserError: see ``download_object``.
    """
    name, address = hide_address(url), urlsplit(url)
    try:
        client = _client(os.getpid())
    except ImportError:
        raise _missing(name) from None
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        part = f"bytes={start}-{start + size - 1}"
        response = client.get_object(Bucket=address.netloc, Key=address.path.lstrip("/"), Range=part)
        if not response.get("ContentRange", "").startswith(f"bytes {start}-") or response["ContentLength"] > size:
            response["Body"].close()
            raise RangeRefusedError(f"{name}: the service does not send the requested range. Check the URL.")
        yield from response["Body"].iter_chunks(CHUNK)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == 416:
            raise RangeRefusedError(f"{name}: the object has no such range. Check the URL.") from None
        raise (_not_found(name) if status in (401, 403, 404) else _unavailable(name, error)) from None
    except (BotoCoreError, OSError) as error:
        raise _unavailable(name, error) from None


def _missing(name: str) -> UserError:
    return UserError(f"{name}: reading from S3 requires boto3. Install it with `pip install boto3`.")


def _not_found(name: str) -> UserError:
    return RemoteFileNotFoundError(
        f"{name} was not found, or access to it is denied. Check the URL and the AWS credentials."
    )


def _unavailable(name: str, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {hide_secrets(error)}"
    return DownloadError(f"{name} is not available ({reason}). Try again later.")


@functools.lru_cache
def _client(process: int) -> Any:
    """Return the client of one process, created on first use. Threads share it."""
    from boto3.session import Session
    from botocore.config import Config

    return Session().client("s3", config=Config(max_pool_connections=MAX_CONNECTIONS))


@functools.lru_cache
def _manager(folder: str, process: int) -> PathManager:
    """Return the ``PathManager`` of one bucket and one process, created on first use.

    Buckets have separate folders, because iopath's file names do not contain the bucket. Processes have separate
    managers, because connections cannot be used after a fork.
    """
    from iopath.common.s3 import S3PathHandler

    manager = PathManager()
    manager.register_handler(S3PathHandler(cache_dir=folder, profile=None))
    return manager
