"""A tar shard on a server or in S3, read through a local copy."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mmf_flava.data.braces import expand_braces
from mmf_flava.data.shard_index import ShardIndex, ensure_index, index_path, load_index
from mmf_flava.errors import UserError
from mmf_flava.files.cache import FileCache
from mmf_flava.files.download import default_cache, shown
from mmf_flava.files.faults import NotThere


@dataclass(frozen=True)
class RemoteShard:
    """A shard at ``url``, of which ``cache`` keeps a copy, and always its index.

    Neither may change while copies are kept: delete the cache's folder when they have.
    """

    url: str
    cache: FileCache

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def name(self) -> str:
        return self.local.name

    @property
    def local(self) -> Path:
        """Where the local copy lies, or will; its index lies beside it."""
        return self.cache.place(self.url)

    @property
    def has_index(self) -> bool:
        """Whether the index is in the cache."""
        return index_path(self.local).is_file()

    def read_index(self) -> ShardIndex | None:
        """The index, fetched from beside the shard (``<url>.index``) if need be; None where there is none.

        Raises:
            UserError: the server cannot be reached.
        """
        index = load_index(self.local, None)
        if index is None:
            path, question, query = self.url.partition("?")
            try:
                self.cache.get(f"{path}.index{question}{query}")
            except NotThere:
                return None
            index = load_index(self.local, None)
        return index

    def make_index(self) -> ShardIndex:
        """The index of a shard that has none beside it: the shard is fetched and scanned.

        Raises:
            UserError: the server cannot be reached, or has no such shard, or what it has is no tar file.
        """
        while True:
            descriptor = self.cache.open(self.url)
            try:
                return ensure_index(self.local)
            except FileNotFoundError:  # another process has made room meanwhile
                continue
            except UserError as error:
                self.cache.discard(self.url, descriptor)
                raise UserError(f"{self}: {error}") from None
            finally:
                os.close(descriptor)

    def open(self, size: int) -> int:
        """A descriptor of the local copy, which is fetched where it lacks; UserError where it cannot be had."""
        return self.cache.open(self.url, size)

    def discard(self, descriptor: int) -> None:
        """Removes the local copy that ``descriptor`` is of, so that ``open`` fetches another one."""
        self.cache.discard(self.url, descriptor)


def remote_shards(url: str, cache: FileCache | None) -> Sequence[RemoteShard]:
    """The shards that an address names, with braces expanded.

    Args:
        cache: by default one without limit, in the default cache's folder ``shards``.

    Raises:
        UserError: it names something else than tar files.
    """
    cache = cache or FileCache(default_cache() / "shards")
    found = [RemoteShard(expanded, cache) for expanded in expand_braces(url)]
    for shard in found:
        if not urlsplit(shard.url).path.endswith(".tar"):
            raise UserError(
                f"{shard} names no tar file, and servers do not list folders: name the shards, many at once in braces, "
                "as in https://host/{00000..00099}.tar."
            )
    return found
