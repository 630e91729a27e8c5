"""Remote tar shards (http, https, S3), read through a local cache."""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mmf_flava.data.braces import expand_braces
from mmf_flava.data.names import extension_of
from mmf_flava.data.shard_index import ShardIndex, ensure_index, index_path, load_index
from mmf_flava.data.tar_members import Entry
from mmf_flava.errors import UserError, hide_address
from mmf_flava.files.background import background_threads
from mmf_flava.files.cache import FileCache
from mmf_flava.files.download import default_cache_dir
from mmf_flava.files.download_errors import DownloadError, RangeRefusedError, RemoteFileNotFoundError
from mmf_flava.files.sparse_copy import SparseCopy

logger = logging.getLogger(__name__)

REFUSAL_DELAY = 1.0  # seconds until a server that has refused to send a part of a shard is asked again
REFUSED_SECONDS = 60.0  # for which a shard of another size is not downloaded again
_without_ranges: set[str] = set()  # URLs of shards of which this process cannot download parts
_refused: dict[
    str, tuple[float, str]
] = {}  # URL of a shard of another size -> when it is downloaded again, and the error


@dataclass(frozen=True)
class RemoteShard:
    """A tar shard at ``url``, read through a local copy. The cache may evict the copy, but not the shard's index.

    The copy has only the records that were read, unless the server does not send parts of a file.

    The remote file must not change while the cache has a copy or an index. If it has changed, delete the cache folder.
    """

    url: str
    cache: FileCache

    def __str__(self) -> str:
        return hide_address(self.url)

    @property
    def name(self) -> str:
        return self.local_path.name

    @property
    def local_path(self) -> Path:
        """Path of the local copy of the shard, which may not exist. The index is in the same folder."""
        return self.cache.path(self.url)

    @property
    def has_index(self) -> bool:
        """Whether the index of the shard is in the cache."""
        return index_path(self.local_path).is_file()

    def read_index(self) -> ShardIndex | None:
        """Load the shard's index; download ``<url>.index`` if it is not cached. Return None if the server has no index.

        Raises:
            UserError: the server cannot be reached.
        """
        index = load_index(self.local_path, None)
        if index is None:
            path, separator, query = self.url.partition("?")
            try:
                self.cache.get(f"{path}.index{separator}{query}", index_path(self.local_path))
            except RemoteFileNotFoundError:
                return None
            index = load_index(self.local_path, None)
        return index

    def build_index(self) -> ShardIndex:
        """Download the shard, scan it, and return its index.

        Raises:
            UserError: the server cannot be reached, the shard does not exist or it is not a tar file.
        """
        while True:
            descriptor = self.cache.open(self.url)
            try:
                return ensure_index(self.local_path, stale=False)
            except FileNotFoundError:  # another process has evicted the copy
                continue
            except UserError as error:
                self.cache.remove(self.url, descriptor)
                raise UserError(f"{self}: {error}") from None
            finally:
                os.close(descriptor)

    def open(self) -> int:
        """Return a file descriptor of the shard's local copy, which may be incomplete; -1 if there is no copy."""
        return self._copy.open()

    def fetch(self, pieces: Sequence[Entry], size: int, patient: bool = True) -> bool:
        """Download the pieces of the shard that are missing in its local copy.

        If the server does not send parts of the file, the shard is downloaded completely, if there is no complete copy.

        Args:
            size: size of the shard in bytes.
            patient: whether requests to a server that is not reachable are repeated.

        Returns:
            Whether the missing pieces were downloaded, not the shard.

        Raises:
            UserError: the download fails.
        """
        if self.url not in _without_ranges:
            try:
                self._copy.fetch(pieces, patient)
                return True
            except RangeRefusedError as error:
                if not patient:  # reading the record asks again
                    return False
                time.sleep(REFUSAL_DELAY)  # it may be the answer of a proxy
                with suppress(RangeRefusedError):
                    self._copy.fetch(pieces, patient)
                    return True
                _without_ranges.add(self.url)
                logger.warning("%s The complete shard is downloaded instead.", error)
        # a complete copy that is not open yet could be evicted before it is read
        if patient or self.cache.limit is None:
            self.download(size)
            self._copy.path.unlink(missing_ok=True)
        return False

    def download(self, size: int) -> None:
        """Download the shard completely, unless there is a complete copy.

        Raises:
            UserError: the download fails, or the file has another size. For a minute, the same error is raised again
                without a download.
        """
        until, message = _refused.get(self.url, (0.0, ""))
        if time.monotonic() < until:
            raise DownloadError(message)
        descriptor = self.cache.open(self.url, size)
        try:
            if (actual := os.fstat(descriptor).st_size) != size:
                self.cache.remove(self.url, descriptor)
                message = (
                    f"{self}: the server sends {actual:,} bytes, but the index is of a shard of {size:,} bytes. Check "
                    "the server. If the shard has changed, delete the cache folder."
                )
                _refused[self.url] = time.monotonic() + REFUSED_SECONDS, message
                raise DownloadError(message)
        finally:
            os.close(descriptor)

    def fetch_later(self, pieces: Sequence[Entry], size: int) -> None:
        """Let the background threads of this process ``fetch`` the pieces."""
        background_threads(self.cache.connections).submit(self.fetch, pieces, size, False)

    def is_complete(self, descriptor: int) -> bool:
        """Return whether ``descriptor`` refers to a complete local copy."""
        with suppress(OSError):
            return os.path.samestat(os.fstat(descriptor), self.local_path.stat())
        return False

    def discard(self, descriptor: int) -> None:
        """Remove the complete copy that ``descriptor`` refers to."""
        self.cache.remove(self.url, descriptor)

    @property
    def _copy(self) -> SparseCopy:
        return SparseCopy(self.url, self.cache)


def expand_remote_shards(url: str, cache: FileCache | None) -> Sequence[RemoteShard]:
    """Return the shards at a URL, with braces expanded.

    Args:
        cache: cache of the local copies; default: ``shards`` in the default cache folder, without a size limit.

    Raises:
        UserError: the URL does not end in .tar.
    """
    cache = cache or FileCache(default_cache_dir() / "shards")
    shards = [RemoteShard(expanded, cache) for expanded in expand_braces(url)]
    for shard in shards:
        if extension_of(urlsplit(shard.url).path) != "tar":
            raise UserError(
                f"{shard} is not a tar file, and remote folders are not supported. List the shards, for example as "
                "https://host/{00000..00099}.tar."
            )
    return shards
