"""Shards, their indexes and the JSON of their records."""

import io
import json
import os
import tarfile
from pathlib import Path

from mmf_flava.data.annotations import clean_text, parse_annotation
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader
from tests.faults.file_format import COUNT, Delivered, Format, collect, write_image


class Shard(Format):
    """A tar shard with an index that stays valid: checksums find every changed field, and only those."""

    name, targets = "shard", ("a.tar",)

    def make(self, folder: Path, seed: int) -> None:
        with ShardWriter(folder / "a.tar") as writer:
            for number in range(COUNT):
                image = write_image(folder / "image.png", 10 * seed + number)
                text = json.dumps({"captions": [f"caption {seed} {number}"]}).encode()
                writer.write(f"{number:03d}", {"png": image, "json": text})
        os.utime(folder / "a.tar", ns=(0, 0))
        ShardReader([folder / "a.tar"])

    def after_change(self, folder: Path) -> None:
        os.utime(folder / "a.tar", ns=(0, 0))

    def read(self, folder: Path) -> Delivered:
        return collect(ShardReader([folder / "a.tar"]), lambda record: (record.key, record.fields))

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        if len(after) != len(before):  # the index is built again
            return check_scanned(before, after, valid, delivered)
        super().check(target, before, after, valid, delivered)
        with tarfile.open(fileobj=io.BytesIO(before)) as tar:
            for member in tar:
                data = slice(member.offset_data, member.offset_data + member.size)
                number = int(member.name.partition(".")[0])
                assert before[data] == after[data] or number not in delivered, f"record {number} was delivered"
                if before[data] != after[data]:
                    valid = {name: content for name, content in valid.items() if name != number}
        assert valid.keys() == delivered.keys(), "an untouched record was lost"
        return None


def check_scanned(before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
    """Compare with tarfile: members in front of the first change, except the last record, must be delivered."""
    first = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(map(len, (before, after)))
    )
    contents = list(delivered.values())
    for number, content in valid.items():
        if (number + 2) * len(before) // (COUNT + 1) < first - 4096:
            assert content in contents, f"record {number} was lost"


class ScannedShard(Shard):
    """A tar shard without an index."""

    name = "shard without index"

    def after_change(self, folder: Path) -> None:
        (folder / "a.tar.index").unlink(missing_ok=True)

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        check_scanned(before, after, valid, delivered)


class Index(Shard):
    """The index of an untouched shard: wrong rows are bad records, a wrong header builds the index again."""

    name, targets = "index", ("a.tar.index",)

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        Format.check(self, target, before, after, valid, delivered)
        if len(before) != len(after):
            assert delivered == valid, "the index was not built again"


class JsonRecord(Shard):
    """The JSON of one record of a shard with valid checksums."""

    name, targets = "JSON record", ("record.json",)
    VALID = {"captions": ["a cat", "ein Käfer"], "label": 3, "id": "x", "size": [1, 2.5]}  # noqa: RUF012

    def make(self, folder: Path, seed: int) -> None:
        (folder / "record.json").write_text(json.dumps(self.VALID | {"seed": seed}))
        self.after_change(folder)

    def after_change(self, folder: Path) -> None:
        with ShardWriter(folder / "a.tar") as writer:
            for number, text in enumerate(
                (b'{"caption": "a"}', (folder / "record.json").read_bytes(), b'{"text": "b"}')
            ):
                writer.write(f"{number}", {"json": text})

    def read(self, folder: Path) -> Delivered:
        return collect(ShardReader([folder / "a.tar"]), parse_annotation)

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        assert (delivered.get(0), delivered.get(2)) == ((["a"], -1), (["b"], -1)), "another record was changed"
        if 1 not in delivered:
            return
        data = json.loads(after)  # raises an error if the record should have been refused
        if isinstance(data.get("captions"), list):
            expected = [clean_text(text) for text in data["captions"] if isinstance(text, str)]
            assert delivered[1][0] == [text for text in expected if text] or not any(expected)
        if type(label := data.get("label")) is int and 0 <= label < 2**31:
            assert delivered[1][1] == label
