"""Objects in S3, through iopath and boto3, which nothing else needs."""

import functools
import os
from pathlib import Path
from urllib.parse import urlsplit

from iopath.common.file_io import PathManager

from mmf_flava.errors import UserError
from mmf_flava.files.faults import NotThere, Unreachable


def download_object(url: str, target: Path, folder: Path) -> None:
    """Downloads ``s3://bucket/key`` to ``target``, by way of ``folder`` on the same file system.

    Credentials, region and endpoint are boto3's own (``AWS_ENDPOINT_URL`` names another service than Amazon's).

    Raises:
        NotThere: there is no such object, or not for these credentials.
        Unreachable: the service does not answer, or broke off.
        UserError: boto3 is not installed.
    """
    try:
        manager = _manager(str(folder / ".s3" / urlsplit(url).netloc), os.getpid())
    except ImportError:
        raise UserError(f"{url} cannot be read without boto3: `pip install boto3`.") from None
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if not manager.isfile(url):
            raise NotThere(f"{url} is not there, or not for these credentials.")
        os.replace(manager.get_local_path(url), target)
    except (BotoCoreError, Boto3Error, ClientError, OSError) as error:
        raise Unreachable(f"{url} cannot be had now: {type(error).__name__}: {error}.") from None


@functools.lru_cache
def _manager(folder: str, process: int) -> PathManager:
    """One a bucket, since iopath's names leave it out, and one a process, since connections do not survive a fork."""
    from iopath.common.s3 import S3PathHandler

    manager = PathManager()
    manager.register_handler(S3PathHandler(cache_dir=folder, profile=None))
    return manager
