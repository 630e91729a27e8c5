"""Files that contain images and are written as shards into the cache: parquet, Arrow files and archives."""

import io
import os
import tarfile
import zlib
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmf_flava.data.formats.embedded import embedded_shards
from mmf_flava.data.records import open_records
from mmf_flava.data.shards import ShardReader
from tests.faults.file_format import COUNT, Delivered, Format, collect, write_image

GROUP = 2  # rows of a row group
OPTIONS = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}


class Embedded(Format):
    """A file that is written as shards. Each reading writes them anew."""

    def read(self, folder: Path) -> Delivered:
        with TemporaryDirectory() as cache, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            os.environ["MMF_CACHE_DIR"] = cache
            shards = embedded_shards(folder / self.targets[0], open_records=open_records)
            found = collect(ShardReader(shards), lambda record: (record.key, record.fields))
            return {key: fields for key, fields in found.values()}

    def content(self, data: bytes) -> bytes:
        """Return the content of a file, uncompressed, up to its damage."""
        return data

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        assert delivered, "a file without records was accepted"
        content = self.content(after)
        for key, fields in delivered.items():
            images = [data for name, data in fields.items() if name not in ("json", "cls")]
            assert images and all(image in content for image in images), f"record {key} has bytes of no image"


class EmbeddedParquet(Embedded):
    """A parquet file with image bytes: checksums find every changed page, and only its row group is lost."""

    name, targets = "parquet with images", ("a.parquet",)

    def make(self, folder: Path, seed: int) -> None:
        from pyarrow.parquet import write_table

        write_table(_table(folder, seed), folder / self.targets[0], row_group_size=GROUP, **OPTIONS)

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        from pyarrow.parquet import read_metadata

        super().check(target, before, after, valid, delivered)
        metadata = read_metadata(io.BytesIO(before))
        starts = [metadata.row_group(n).column(0).data_page_offset for n in range(metadata.num_row_groups)]
        ends = [*starts[1:], len(before) - metadata.serialized_size - 8]
        if len(before) != len(after) or before[ends[-1] :] != after[ends[-1] :]:
            return
        for group, (start, end) in enumerate(zip(starts, ends, strict=True)):
            for number in range(group * GROUP, (group + 1) * GROUP):
                same = before[start:end] == after[start:end]
                assert not same or delivered.get(f"{number}") == valid[f"{number}"], f"record {number} was lost"


class SavedDataset(Embedded):
    """An Arrow file in the stream format, which has no checksums."""

    name, targets = "Arrow file", ("a.arrow",)

    def make(self, folder: Path, seed: int) -> None:
        from pyarrow import ipc

        table = _table(folder, seed)
        with ipc.new_stream(folder / self.targets[0], table.schema) as writer:
            writer.write_table(table, 2)


class ClassArchive(Embedded):
    """A compressed tar file of class folders. gzip's checksum finds changes at its end."""

    name, targets = "archive", ("a.tar.gz",)

    def content(self, data: bytes) -> bytes:
        content, decompressor = b"", zlib.decompressobj(31)
        with suppress(zlib.error):
            for start in range(len(data)):  # one byte at a time, so that nothing before the damage is lost
                content += decompressor.decompress(data[start : start + 1])
        return content

    def make(self, folder: Path, seed: int) -> None:
        with tarfile.open(folder / self.targets[0], "w:gz", compresslevel=1) as tar:
            for number in range(COUNT):
                data = write_image(folder / "image.png", 10 * seed + number)
                member = tarfile.TarInfo(f"pets/{'cat' if number % 2 else 'dog'}/{number}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _table(folder: Path, seed: int) -> Any:
    from pyarrow import Table

    images = [write_image(folder / "image.png", 10 * seed + number) for number in range(COUNT)]
    rows = [
        {"id": f"{n}", "image": {"bytes": image, "path": f"{n}.png"}, "caption": f"{seed} {n}", "label": n % 2}
        for n, image in enumerate(images)
    ]
    return Table.from_pylist(rows)
