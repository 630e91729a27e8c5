"""Records in the format of facebook/pmd."""

import json

import pytest

from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.prepare.evaluation_images import HELD_OUT
from mmf_flava.data.prepare.pmd_records import OTHER_PART, read_pmd_records, source_part

from .lazy import evaluated

URL = "http://host/1.jpg"


def read(tmp_path, *records, part=None):
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return evaluated(read_pmd_records(tmp_path / "a.jsonl", part))


def test_urls_and_texts(tmp_path):
    assert read(
        tmp_path,
        {"image_url": URL, "image": None, "text": "a dog", "source": "coco", "meta": "{}"},
        {"image_url": URL, "texts": ["first", "second"], "source": "yfcc100m", "meta": "{}"},
        {"image_url": URL, "text": None, "source": "coco", "meta": "{}"},
        {"image_url": URL, "texts": "a red box"},
        {"image_url": URL, "texts": None, "text": "b"},
        {"image_url": URL, "texts": 3},
        {"image_url": URL, "texts": [""]},
    ) == [
        Annotation(("a dog",), URL),
        Annotation(("first",), URL),
        Annotation(dropped="no text"),
        Annotation(("a red box",), URL),
        Annotation(("b",), URL),
        Annotation(dropped="unreadable caption"),
        Annotation(dropped="no text"),
    ]


def test_image_struct_of_datasets(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    records = [
        {
            "image": {"bytes": b"\xff\xd8\xff1", "path": "x/COCO_train2014_000000000009.jpg"},
            "text": "a dog",
            "image_url": None,
        },
        {"image": {"bytes": b"\xff\xd8\xff2", "path": None}, "text": "a cat"},
        {"image": {"bytes": None, "path": "/val2017/000000000007.jpg"}, "text": "a cow"},
        {"image": None, "image_url": URL, "text": "a hen"},
    ]
    table = arrow.Table.from_pylist(records)
    write_table(table, tmp_path / "train-00000-of-00001.parquet")
    with arrow.ipc.new_stream(str(tmp_path / "pmd-train.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("train-00000-of-00001.parquet", "pmd-train.arrow"):
        first, second, third, fourth = evaluated(read_pmd_records(tmp_path / name))
        assert first.image == ("COCO_train2014_000000000009.jpg", b"\xff\xd8\xff1")
        assert first.ids == {"coco:9"}
        assert second.image == ("", b"\xff\xd8\xff2")
        assert (third.image, third.names[0], third.ids) == (None, "000000000007.jpg", {"coco:7"})
        assert (fourth.image, fourth.url) == (None, URL)


def test_evaluation_images_are_found_in_meta(tmp_path):
    def record(source, **meta):
        return {"text": "x", "source": source, "meta": json.dumps(meta, indent=2)}

    found = read(
        tmp_path,
        record("coco", cocoid=42, split="test"),
        record("coco", cocoid=42, split="restval"),
        record("visual_genome", image_id=7, coco_id=42),
        record("localized_narratives__coco", image_id="42", dataset_id="mscoco_train2017"),
        record("localized_narratives__flickr30k", image_id="1007129816", dataset_id="Flick30k_train"),
        {"text": "x", "source": "coco", "meta": "not JSON"},
    )
    assert found[0].dropped == HELD_OUT
    assert [set(annotation.ids) for annotation in found[1:]] == [{"coco:42"}] * 3 + [{"flickr:1007129816"}, set()]


def test_records_of_other_parts_are_left_out(tmp_path):
    sources = ["coco", "localized_narratives__coco", "conceptual_12m", "conceptual_captions", "mine", None]
    records = [{"image_url": URL, "text": "x", "source": source} for source in sources]
    for part, kept in {"coco": 0, "localized_narratives": 1, "cc12m": 2, "conceptual_captions": 3}.items():
        dropped = [annotation.dropped for annotation in read(tmp_path, *records, part=part)]
        assert dropped == ["" if number in (kept, 4, 5) else OTHER_PART for number in range(6)]
    assert [source_part(name) for name in ("sbu_captions", "red_caps", "wit", "YFCC100M")] == [
        "sbu",
        "redcaps",
        "wit",
        "yfcc100m",
    ]
