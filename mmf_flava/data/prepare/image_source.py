"""Lookup of images by URL or file name, in img2dataset's tar shards or among image files.

Images are those of img2dataset (tar shards, or files with a .json beside each image), other tar shards, or image files.
The index is a file on disk, see ``image_index``, so that memory does not grow with the number of images.
"""

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from mmf_flava.data.names import display_name, extension_of
from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.prepare.image_index import ImageIndex, Place, merge_runs
from mmf_flava.data.prepare.image_runs import FileRuns, ShardRuns, run_path
from mmf_flava.data.prepare.tasks import Abandoned, IsDone, Result, TaskFolder
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, Reason
from mmf_flava.data.shards import find_shards
from mmf_flava.errors import UserError
from mmf_flava.files.open_files import OpenFiles, open_file
from mmf_flava.files.regular_file import read_regular_file

MAX_OPEN_SHARDS = 128
PROGRESS_DELAY = 2  # seconds until a progress bar is shown
SAMPLED, SAMPLE_BYTES = 1000, 1 << 16  # files, bytes of each end of a file


class ImageSource:
    """Images in ``folder``, found by URL or file name.

    The folder contains either ``*.tar`` shards (matched by the URL in each ``json``, as img2dataset writes it; records
    without a URL by their key) or image files at any depth (matched by file name, with or without extension, and by the
    URL in a .json file beside the image). If several images match, the first one is used.

    Args:
        work: folder of the index. If there is no index, it is built, together with other processes with this folder.
        progress: show a progress bar if this takes more than two seconds.

    Raises:
        UserError: the folder contains neither shards nor image files, or the index is damaged.
    """

    def __init__(self, folder: str | Path, work: Path, progress: bool = False):
        self.folder = Path(folder)
        self._shards = find_shards(self.folder)
        if not self._shards and not self.folder.is_dir():
            raise UserError(
                f"{folder}: no images found. Set --images to img2dataset's output or a folder of image files."
            )
        if not (work / "index").is_file():
            self._build(work, progress)
        self._index = ImageIndex(work / "index")
        self._open_shards: OpenFiles[_Shard] = OpenFiles(MAX_OPEN_SHARDS)
        if not self._index.count:
            raise UserError(
                f"{folder}: no images found. Expected *.tar shards with a url in their json files, or "
                f"{', '.join(IMAGE_EXTENSIONS)} files."
            )

    @property
    def examples(self) -> str:
        """The first URLs or file names, for messages."""
        names = ", ".join(map(display_name, self._index.examples))
        if self._shards:
            return f"{self.folder} has shards whose records are known as {names}"
        return f"{self.folder} has files such as {names}"

    def read(self, annotation: Annotation) -> tuple[str, bytes] | None:
        """Return (extension, original bytes) of an annotated image; None if it was not found or is empty.

        Raises:
            BadRecord: the image was found, but cannot be read.
        """
        bad = None
        stems = (name.rpartition(".")[0] for name in annotation.names)
        for key in (annotation.url, *annotation.names, *stems):
            place = self._index.find(key) if key else None
            try:
                if place is not None and (image := self._read(place)):
                    return image
            except BadRecord as error:
                bad = bad or error
        if bad is not None:
            raise bad
        return None

    def _read(self, place: Place) -> tuple[str, bytes] | None:
        if self._shards:
            return self._read_record(place)
        path = self._index.name(place)
        try:
            data = read_regular_file(self.folder / path)
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{self.folder / path} cannot be read: {error}", path) from error
        return (extension_of(path), data) if data else None

    def _read_record(self, place: Place) -> tuple[str, bytes] | None:
        path = self._shards[place.container]
        if not place.size:
            return None
        try:
            if (shard := self._open_shards.get(place.container)) is None:
                shard = _Shard(path)
                self._open_shards.add(place.container, shard)
            data = shard.read(place.offset, place.size)
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error}") from error
        if len(data) != place.size or zlib.crc32(data) != place.checksum:
            message = f"{path}: the image at byte {place.offset} does not match its checksum in the index"
            raise BadRecord(Reason.CHANGED, message)
        return IMAGE_EXTENSIONS[place.kind], data

    def _build(self, work: Path, progress: bool) -> None:
        """Write the runs and merge them. Each is a task, so that several processes share the work."""
        runs = TaskFolder(work, fingerprint(self._shards), len(self._shards) or None)
        write: ShardRuns | FileRuns = ShardRuns(self._shards, work) if self._shards else FileRuns(self.folder, work)
        options = {"unit": "task", "delay": PROGRESS_DELAY, "disable": not progress}
        with tqdm(desc="indexing images", total=runs.count, **options) as bar:

            def run(number: int, is_done: IsDone) -> Result:
                result = write(number)
                bar.update()
                return result

            count = len(runs.walk(run, lambda result: bar.update()))

        def merge(number: int, is_done: IsDone) -> Result:
            merge_runs([run_path(work, number) for number in range(count)], work / "index", lambda: _abandon(is_done))
            return {"last": True}

        TaskFolder(work / "merged", runs.input, 1).walk(merge)


def _abandon(is_done: IsDone) -> None:
    if is_done():
        raise Abandoned


class _Shard:
    """An open tar file."""

    def __init__(self, path: Path):
        self._descriptor = open_file(path)
        self._size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        # memory of the size is allocated before it is read, so the size is compared with the file first
        return os.pread(self._descriptor, size, offset) if offset + size <= self._size else b""

    def close(self) -> None:
        os.close(self._descriptor)


def fingerprint(paths: Iterable[Path]) -> str:
    """Return a hash of the names and sizes of files, to detect changed input when preparation is resumed."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode("utf-8", "replace"))
    return digest.hexdigest()


def sample_sha256(paths: Sequence[Path]) -> str:
    """Return a hash of the first and the last bytes of files, at most ``SAMPLED`` evenly spaced ones."""
    digest = hashlib.sha256()
    for path in paths[:: -(-len(paths) // SAMPLED) or 1]:
        with suppress(OSError), open(path, "rb") as file:  # an unreadable file is reported when it is needed
            digest.update(file.read(SAMPLE_BYTES))
            file.seek(max(0, file.seek(0, os.SEEK_END) - SAMPLE_BYTES))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
