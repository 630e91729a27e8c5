"""Downloads of S3 objects through iopath and boto3, an optional dependency."""

import functools
import os
from pathlib import Path
from urllib.parse import urlsplit

from iopath.common.file_io import PathManager

from mmf_flava.errors import FULL_DISK, NOT_WRITABLE, UserError, hide_address, hide_secrets
from mmf_flava.files import atomic
from mmf_flava.files.download_errors import DownloadError, RemoteFileNotFoundError
from mmf_flava.files.http_download import write_error


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
        raise UserError(f"{name}: reading from S3 requires boto3. Install it with `pip install boto3`.") from None
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if not manager.isfile(url):
            raise RemoteFileNotFoundError(
                f"{name} was not found, or access to it is denied. Check the URL and the AWS credentials."
            )
        downloaded = Path(manager.get_local_path(url))
        atomic.fsync(downloaded)
        os.replace(downloaded, target)
    except (BotoCoreError, Boto3Error, ClientError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL_DISK | NOT_WRITABLE:
            raise write_error(target, error) from None
        reason = f"{type(error).__name__}: {hide_secrets(error)}"
        raise DownloadError(f"{name} is not available ({reason}). Try again later.") from None


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
