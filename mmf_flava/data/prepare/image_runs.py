"""The tasks that index images: each writes a run, the entries of one shard or of a part of the image files."""

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from mmf_flava.data.image_folder import find_images
from mmf_flava.data.names import display_name
from mmf_flava.data.open_shard import OpenShard
from mmf_flava.data.prepare.image_index import Place, Run
from mmf_flava.data.prepare.tasks import Result
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, record_boundary
from mmf_flava.data.shard_index import ensure_records
from mmf_flava.data.tar_members import Entry
from mmf_flava.files.json_data import parse_object
from mmf_flava.files.open_files import open_file
from mmf_flava.files.regular_file import read_regular_file

FILES = 20_000  # image files per task
MAX_SIZE = 2**32 - 1  # bytes of an image in the index; a larger one is an error of its record


def run_path(work: Path, number: int) -> Path:
    """Return the path of the run of a task."""
    return work / f"{number:05d}.run"


class ShardRuns:
    """Writes the entries of one shard."""

    def __init__(self, shards: list[Path], work: Path):
        self.shards, self.work = shards, work

    def __call__(self, number: int) -> Result:
        path, run = self.shards[number], Run()
        index, records = ensure_records(path)
        rows = None if records is None else list(records.items())
        shard = OpenShard(path, index, lambda: open_file(path))
        try:
            for record in range(index.count):
                # without a readable URL or key, no annotation can refer to the record
                with suppress(BadRecord), record_boundary(f"record {record}"):
                    key, entries = shard.read_row(record) if rows is None else rows[record]
                    for name in self._keys(shard, key, entries):
                        run.add(name, _place(number, entries))
        finally:
            shard.close()
        run.write(run_path(self.work, number))
        return {"last": number + 1 == len(self.shards)}

    @staticmethod
    def _keys(shard: OpenShard, key: str, entries: dict[str, Entry]) -> Iterator[str]:
        """Yield the URL of a record; without one, its key, unless img2dataset numbered the records."""
        content = {}
        if "json" in entries:
            offset, size, checksum = entries["json"]
            data = shard.read(offset, size)
            if data is None or len(data) != size or zlib.crc32(data) != checksum:
                return
            content = parse_object(data)
        if isinstance(content.get("url"), str):
            yield content["url"]
        elif "url" not in content:
            yield display_name(key).rpartition("/")[2]


def _place(container: int, entries: dict[str, Entry]) -> Place:
    """Return the place of the first image of a record that is not empty; its size is 0 if there is none."""
    for extension, (offset, size, checksum) in entries.items():
        if extension in IMAGE_EXTENSIONS and size:
            return Place(container, offset, min(size, MAX_SIZE), checksum, IMAGE_EXTENSIONS.index(extension))
    return Place(container, 0, 0)


class FileRuns:
    """Writes the entries of the image files from ``FILES * number`` on. Images before them are only listed."""

    def __init__(self, folder: Path, work: Path):
        self.folder, self.work = folder, work
        self._images: Iterator[str] = iter(())
        self._next = -1

    def __call__(self, number: int) -> Result:
        if not 0 <= self._next <= number * FILES:
            self._images, self._next = find_images(self.folder), 0
        skipped = number * FILES - self._next
        paths = list(islice(self._images, skipped, skipped + FILES))
        self._next = (number + 1) * FILES
        run = Run()
        for path in paths:
            place = run.add_name(path)
            for key in self._keys(path):
                run.add(key, place, example=path)
        run.write(run_path(self.work, number))
        return {"last": len(paths) < FILES}

    def _keys(self, path: str) -> Iterator[str]:
        """Yield the URL of an image in the .json file beside it, else its name with and without extension."""
        name = os.path.basename(path)
        stem = name.rpartition(".")[0]
        url = None
        # img2dataset's files are numbered, so that their names say nothing
        with suppress(OSError, ValueError):
            beside = self.folder / path[: len(path) - len(name)] / f"{stem}.json"
            url = parse_object(read_regular_file(beside)).get("url")
        if isinstance(url, str):
            yield url
        else:
            yield from (name, stem)
