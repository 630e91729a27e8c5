"""Annotation files: image lists, MMF's imdb, Karpathy's split files, GLUE and parquet."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from mmf_flava.data.annotations import clean_text, parse_annotation
from mmf_flava.data.glue_files import read_glue
from mmf_flava.data.glue_tasks import TASKS
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.karpathy import KarpathyRecords
from mmf_flava.data.prepare.pmd_records import read_pmd_records
from mmf_flava.errors import UserError
from mmf_flava.files.damaged_file import damaged_file
from tests.faults.file_format import COUNT, Delivered, Format, collect, write_image


class JsonLines(Format):
    """An image list; every line is compared with json."""

    name, targets = "list", ("list.jsonl",)

    def entries(self, folder: Path, seed: int) -> list[dict[str, Any]]:
        for number in range(COUNT):
            write_image(folder / f"{number}.png", number)
        return [
            {"image": f"{number}.png", "captions": [f"{seed} {number}", "Käfer"], "label": number, "id": f"r{number}"}
            for number in range(COUNT)
        ]

    def make(self, folder: Path, seed: int) -> None:
        lines = map(json.dumps, self.entries(folder, seed))
        (folder / "list.jsonl").write_text("".join(f"{line}\n" for line in lines))

    def read(self, folder: Path) -> Delivered:
        return collect(ImageList(folder / self.targets[0]), self.convert)

    def convert(self, record: Any) -> Any:
        image = next(data for name, data in record.fields.items() if name != "json")
        return record.key, parse_annotation(record), image

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        original = dict(zip(before.splitlines(), valid.values(), strict=True))
        # a line number is appended to keys that occur twice
        found = [(key.partition("#")[0], *content) for key, *content in delivered.values()]
        for line in after.split(b"\n"):
            assert line not in original or original[line] in found, f"{line!r} was changed"


class JsonList(JsonLines):
    """An image list that is one JSON array."""

    name, targets = "JSON list", ("list.json",)

    def make(self, folder: Path, seed: int) -> None:
        (folder / "list.json").write_text(json.dumps({"data": self.entries(folder, seed)}))

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        data = json.loads(after)
        entries = data["data"] if isinstance(data, dict) else data
        original = json.loads(before)["data"]
        for number, entry in enumerate(entries):
            if entry in original:
                expected = valid[original.index(entry)]
                assert any(content[1:] == expected[1:] for content in delivered.values()), f"entry {number} was changed"


class Imdb(JsonLines):
    """MMF's imdb: a pickle that is read without execution."""

    name, targets = "MMF imdb", ("list.npy",)

    def make(self, folder: Path, seed: int) -> None:
        entries = [{"dataset_name": "toy"}]
        for entry in self.entries(folder, seed):
            entries.append(
                {"image_id": entry["image"], "caption_str": entry["captions"][0], "boxes": np.ones(3) * seed}
            )
        np.save(folder / "list.npy", np.array(entries, object), allow_pickle=True)

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        """The parts of a pickle depend on each other, so there is no second reading to compare with."""


class Karpathy(Format):
    """Karpathy's split file, compared with json."""

    name, targets = "Karpathy", ("dataset.json",)

    def make(self, folder: Path, seed: int) -> None:
        images = []
        for number in range(COUNT):
            write_image(folder / f"{number}.png", number)
            sentences = [{"raw": f"{seed} {number} {n}", "imgid": number, "sentid": 5 * number + n} for n in range(2)]
            split = "test" if number % 2 else "val"
            images.append({"filename": f"{number}.png", "imgid": number, "split": split, "sentences": sentences})
        (folder / "dataset.json").write_text(json.dumps({"images": images}))

    def read(self, folder: Path) -> Delivered:
        records = KarpathyRecords(folder / "dataset.json", folder, "test", None)
        images = collect(records, lambda record: (record.key, list(record.fields.values())))
        return {number: (*content, records.captions[number]) for number, content in images.items()}

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        entries = [entry for entry in json.loads(after)["images"] if entry["split"] == "test"]
        assert len(entries) == len(delivered)
        for entry, (key, _, captions) in zip(entries, delivered.values(), strict=True):
            assert key.endswith(entry["filename"])
            assert captions == [clean_text(sentence["raw"]) for sentence in entry["sentences"]]


class Glue(Format):
    """GLUE's TSV, JSON Lines and parquet files. Every untouched line is delivered, or the file is refused."""

    name, targets = "GLUE", ("tsv/CoLA/train.tsv", "jsonl/cola/train.jsonl", "parquet/cola/train.parquet")

    def make(self, folder: Path, seed: int) -> None:
        from pyarrow import Table
        from pyarrow.parquet import write_table

        rows = [{"sentence": f"sentence {seed} {n}", "label": n % 2, "idx": n} for n in range(300)]
        for target in self.targets:
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
        lines = (f"gj04\t{row['label']}\t\t{row['sentence']}\n" for row in rows)
        (folder / self.targets[0]).write_text("".join(lines))
        (folder / self.targets[1]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_table(Table.from_pylist(rows), folder / self.targets[2], write_page_checksum=True)

    def read(self, folder: Path) -> Delivered:
        delivered: Delivered = {}
        for target in self.targets:
            try:
                delivered[target] = [
                    (e.texts, e.target) for e in read_glue(folder / target.split("/")[0], TASKS["cola"], "train")
                ]
            except UserError as error:
                assert len(str(error)) < 2000
        return delivered

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        for other in set(self.targets) - {target}:
            assert delivered[other] == valid[other], "an untouched file was changed"
        if target not in delivered or target.endswith(".parquet"):
            return
        original = dict(zip(before.splitlines(), valid[target], strict=True))
        for line in after.split(b"\n"):
            assert line not in original or original[line] in delivered[target], f"{line!r} was lost"


class Parquet(Format):
    """Parquet files, read as pyarrow reads them."""

    name, targets = "parquet", ("a.parquet",)

    def make(self, folder: Path, seed: int) -> None:
        from pyarrow import Table
        from pyarrow.parquet import write_table

        rows = [{"image_url": f"http://a/{n}", "text": f"{seed} {n}", "texts": [f"{n}", "b"]} for n in range(200)]
        write_table(Table.from_pylist(rows), folder / "a.parquet", row_group_size=100, write_page_checksum=True)

    def read(self, folder: Path) -> Delivered:
        with damaged_file(folder / "a.parquet", "parquet file", "Download it again."):
            return dict(enumerate(repr(row()) for row in read_pmd_records(folder / "a.parquet")))

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        from pyarrow.parquet import read_table

        rows = read_table(io.BytesIO(after), page_checksum_verification=True).num_rows
        assert rows == len(delivered), "rows were lost"
