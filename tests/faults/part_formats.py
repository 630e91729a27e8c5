"""Published annotations of PMD's parts, read as ``data.prepare pmd`` reads them."""

import bz2
import json
import sqlite3
from functools import partial
from pathlib import Path
from zipfile import ZipFile

from mmf_flava.data.prepare.coco_parts import read_coco, read_localized_narratives
from mmf_flava.data.prepare.evaluation_images import read_evaluation_images
from mmf_flava.data.prepare.rows import file_boundary
from mmf_flava.data.prepare.visual_genome import read_visual_genome
from mmf_flava.data.prepare.web_parts import read_cc12m, read_wit
from mmf_flava.data.prepare.yfcc import COLUMNS, FIELDS, read_yfcc100m
from mmf_flava.errors import UserError
from tests.faults.file_format import COUNT, Delivered, Format

READERS = {
    "captions_train2014.json": read_coco,
    "coco_train.jsonl": read_localized_narratives,
    "region_descriptions.json.zip": partial(read_visual_genome, crop=True),
    "cc12m.tsv": read_cc12m,
    "wit.tsv": read_wit,
    "yfcc100m_dataset.bz2": read_yfcc100m,
    "yfcc100m_dataset.sql": read_yfcc100m,
}
LINES = ("cc12m.tsv", "coco_train.jsonl")


class PartFiles(Format):
    """Annotation files of several parts. An untouched file delivers the same, and so does an untouched line."""

    name, targets = "parts of PMD", (*READERS, "image_data.json", "dataset_coco.json")

    def make(self, folder: Path, seed: int) -> None:
        numbers = range(1, COUNT + 1)
        images = [{"file_name": f"{n}.jpg", "coco_url": f"http://a/{n}", "id": n} for n in numbers]
        captions = [{"image_id": n, "id": n, "caption": f"{seed} {n}"} for n in numbers]
        narratives = [
            {"dataset_id": "mscoco_train2017", "image_id": str(n), "caption": f"{seed}. {n}."} for n in numbers
        ]
        region = {"phrase": f"thing {seed}", "x": 0, "y": 0, "width": 4, "height": 4}
        texts = {
            "captions_train2014.json": json.dumps({"images": images, "annotations": captions}),
            "coco_train.jsonl": "".join(f"{json.dumps(line)}\n" for line in narratives),
            "image_data.json": json.dumps([{"image_id": n, "width": 8, "height": 8, "coco_id": n} for n in numbers]),
            "dataset_coco.json": json.dumps({"images": [{"cocoid": n, "split": "test"} for n in numbers]}),
            "cc12m.tsv": "".join(f"http://a/{n}.jpg\tcaption {seed} {n}\n" for n in numbers),
            "wit.tsv": "language\timage_url\tcaption_reference_description\n"
            + "".join(f"en\thttp://{n}\t{n}\n" for n in numbers),
        }
        for name, text in texts.items():
            (folder / name).write_text(text)
        with ZipFile(folder / "region_descriptions.json.zip", "w") as archive:
            archive.writestr("region_descriptions.json", json.dumps([{"id": n, "regions": [region]} for n in numbers]))
        rows = [[f"{n}", *["x"] * 5, f"The+old+church+{n}", "", *["x"] * 6, "u", *["x"] * 7, "0"] for n in numbers]
        (folder / "yfcc100m_dataset.bz2").write_bytes(
            bz2.compress("".join("\t".join(row) + "\n" for row in rows).encode())
        )
        assert len(rows[0]) == COLUMNS
        with sqlite3.connect(folder / "yfcc100m_dataset.sql") as database:
            database.execute(f"CREATE TABLE yfcc100m_dataset ({', '.join(FIELDS)})")
            values = [[row[number] for number in FIELDS.values()] for row in rows]
            database.executemany(f"INSERT INTO yfcc100m_dataset VALUES ({', '.join('?' * len(FIELDS))})", values)
        database.close()

    def read(self, folder: Path) -> Delivered:
        delivered: Delivered = {}
        for target, reader in READERS.items():
            try:
                with file_boundary(UserError):
                    delivered[target] = [repr(row()) for row in reader(folder / target)]
            except UserError as error:
                assert 0 < len(str(error)) < 2000
        try:
            delivered["dataset_coco.json"] = sorted(read_evaluation_images([folder / "dataset_coco.json"]).ids)
        except UserError as error:
            assert 0 < len(str(error)) < 2000
        return delivered

    def check(self, target: str, before: bytes, after: bytes, valid: Delivered, delivered: Delivered) -> None:
        for other in valid.keys() - {target}:
            if (target, other) != ("image_data.json", "region_descriptions.json.zip"):
                assert delivered[other] == valid[other], f"{other} was not touched"
        if target in LINES and target in delivered:
            original = dict(zip(before.splitlines(), valid[target], strict=True))
            for line in after.split(b"\n"):
                assert line not in original or original[line] in delivered[target], f"{line!r} was lost"
