"""Tables and texts beside images: CSV, compressed CSV, parquet with paths, and the files that img2dataset writes."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.image_list import ImageList
from tests.faults.file_format import COUNT, Delivered, Format, collect, write_image


def rows(folder: Path, seed: int) -> list[dict[str, Any]]:
    """Write images; return the rows of their table, one of which has a caption of two lines."""
    for number in range(COUNT):
        write_image(folder / f"{number}.png", number)
    captions = [f"{seed} {number}, Käfer" if number != 2 else f"{seed} two\nlines" for number in range(COUNT)]
    return [
        {"filepath": f"{number}.png", "title": caption, "label": number, "id": f"r{number}"}
        for number, caption in enumerate(captions)
    ]


class Csv(Format):
    """A CSV file. If its quotation marks and its first line are unchanged, every untouched line is delivered."""

    name, targets = "CSV", ("list.csv",)

    def text(self, folder: Path, seed: int) -> bytes:
        output = io.StringIO()
        writer = csv.DictWriter(output, ["filepath", "title", "label", "id"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows(folder, seed))
        return output.getvalue().encode()

    def make(self, folder: Path, seed: int) -> None:
        (folder / self.targets[0]).write_bytes(self.text(folder, seed))

    def read(self, folder: Path) -> Delivered:
        return collect(ImageList(folder / self.targets[0]), self.convert)

    def convert(self, record: Any) -> Any:
        image = next(data for name, data in record.fields.items() if name != "json")
        return record.key.partition("#")[0], parse_annotation(record), image

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        lines = after.split(b"\n")
        quoted = [line for line in before.split(b"\n") if b'"' in line]
        if lines[0] != before.split(b"\n")[0] or [line for line in lines if b'"' in line] != quoted:
            return
        originals = {content[0].encode(): content for content in valid.values()}
        for line in before.split(b"\n")[1:]:
            if line in lines and (record := originals.get(line.rpartition(b",")[2])) is not None:
                assert record in delivered.values(), f"{line!r} was lost"


class CompressedCsv(Csv):
    """A CSV file compressed with gzip, whose checksum finds every change of its content."""

    name, targets = "compressed CSV", ("list.csv.gz",)

    def make(self, folder: Path, seed: int) -> None:
        (folder / self.targets[0]).write_bytes(gzip.compress(self.text(folder, seed), mtime=0))

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        if gzip.decompress(after) == gzip.decompress(before):
            assert delivered == valid


class PathParquet(Csv):
    """A parquet file with the paths of images, read as pyarrow reads it."""

    name, targets = "parquet with paths", ("list.parquet",)

    def make(self, folder: Path, seed: int) -> None:
        from pyarrow import Table
        from pyarrow.parquet import write_table

        write_table(Table.from_pylist(rows(folder, seed)), folder / self.targets[0], write_page_checksum=True)

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        from pyarrow.parquet import read_table

        found = read_table(io.BytesIO(after), page_checksum_verification=True).to_pylist()
        if [*found[0]] == ["filepath", "title", "label", "id"]:
            assert len(delivered) == len(found), "rows were lost"


class CaptionFiles(Format):
    """Images with a text and a JSON file beside each. A changed file costs at most its own record."""

    name, targets = "texts beside images", ("images/0.txt", "images/0.json")

    def make(self, folder: Path, seed: int) -> None:
        (folder / "images").mkdir()
        for number, row in enumerate(rows(folder / "images", seed)):
            (folder / f"images/{number}.txt").write_text(row["title"])
            (folder / f"images/{number}.json").write_text(json.dumps({"caption": row["title"], "label": number}))

    def read(self, folder: Path) -> Delivered:
        return collect(ImageFolder(folder / "images"), lambda record: (record.key, parse_annotation(record)))

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        others = {name: content for name, content in valid.items() if name != 0}
        assert others == {name: content for name, content in delivered.items() if name != 0}
