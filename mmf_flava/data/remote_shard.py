"""Remote tar shards (http, https, S3), read through a local cache."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mmf_flava.data.braces import expand_braces
from mmf_flava.data.names import extension_of
from mmf_flava.data.shard_index import ShardIndex, ensure_index, index_path, load_index
from mmf_flava.errors import UserError, hide_address
from mmf_flava.files.cache import FileCache
from mmf_flava.files.download import default_cache_dir
from mmf_flava.files.download_errors import RemoteFileNotFoundError


@dataclass(frozen=True)
class RemoteShard:
    """A tar shard at ``url``, read through a local copy. The cache may evict the copy, but not the shard's index.

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
                return ensure_index(self.local_path)
            except FileNotFoundError:  # another process has evicted the copy
                continue
            except UserError as error:
                self.cache.remove(self.url, descriptor)
                raise UserError(f"{self}: {error}") from None
            finally:
                os.close(descriptor)

    def open(self, size: int) -> int:
        """Return a file descriptor of the shard's local copy. Download the shard if it is not cached.

        Raises:
            UserError: the download fails.
        """
        return self.cache.open(self.url, size)

    def discard(self, descriptor: int) -> None:
        """Remove the local copy that ``descriptor`` refers to, so that ``open`` downloads the shard again."""
        self.cache.remove(self.url, descriptor)


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
