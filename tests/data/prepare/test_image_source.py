"""Images are found under the names that the publishers' and downloaders' tools give them."""

import hashlib
import json

import pytest

from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.prepare.image_source import ImageSource
from mmf_flava.data.prepare.pmd import PmdOptions, prepare_pmd
from mmf_flava.data.records import open_records
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.errors import UserError

JPEG = b"\xff\xd8\xff"


def prepare(folder, part, src, **options):
    return prepare_pmd(folder / "out", PmdOptions(part, src, folder / "images", **options), progress=False)


def test_files_of_img2dataset_are_matched_by_url(tmp_path):
    """They are numbered, so that a name such as 000000000.jpg is not the name of an annotation."""
    folder = tmp_path / "images/00000"
    folder.mkdir(parents=True)
    (folder / "000000009.jpg").write_bytes(JPEG)
    (folder / "000000009.json").write_text(json.dumps({"url": "http://host/a.jpg", "status": "success"}))
    source = ImageSource(tmp_path / "images", tmp_path / "index")
    assert source.read(Annotation(url="http://host/a.jpg")) == ("jpg", JPEG)
    assert source.read(Annotation(names=("000000009.jpg",))) is None


def test_records_of_other_shards_are_matched_by_key(tmp_path):
    with ShardWriter(tmp_path / "train2014.tar") as writer:
        writer.write("train2014/COCO_train2014_000000000009", {"jpg": JPEG})
        writer.write("train2014/000000011", {"jpg": JPEG, "json": b'{"url": "http://host/11.jpg"}'})
    source = ImageSource(tmp_path, tmp_path / "index")
    assert source.read(Annotation(names=("COCO_train2014_000000000009.jpg",))) == ("jpg", JPEG)
    assert source.read(Annotation(url="http://host/11.jpg")) == ("jpg", JPEG)
    assert source.read(Annotation(names=("000000011",))) is None
    assert "COCO_train2014_000000000009" in source.examples


@pytest.mark.parametrize("with_hash", [True, False])
def test_images_of_yfcc100m_are_named_by_hash(tmp_path, with_hash):
    """The hash has no leading zeros in its bytes; the columns with and without the hash find the same file."""
    url = "http://farm4.staticflickr.com/3153/2970773875_164f0c0b83.jpg"
    name = "".join(f"{byte:x}" for byte in hashlib.md5(url.encode()).digest())
    fields = ["2970773875", *["x"] * 5, "Birthday+party+for+Anna", "", *["x"] * 6, url, *["x"] * 7, "0"]
    (tmp_path / "yfcc100m_dataset").write_text("\t".join(["1", fields[0], name, *fields[1:]] if with_hash else fields))
    path = tmp_path / "images/data/images" / name[:3] / name[3:6] / f"{name}.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(JPEG)
    assert prepare(tmp_path, "yfcc100m", tmp_path / "yfcc100m_dataset")["counts"]["images"] == 1


def test_embedded_images_need_no_image_folder(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    png = b"\x89PNG\r\n\x1a\n"
    rows = [
        {"image": {"bytes": JPEG, "path": "COCO_val2014_000000000042.JPG"}, "text": "a dog", "source": "coco"},
        {"image": {"bytes": png, "path": None}, "text": "a cat", "source": "coco"},
        {"image": {"bytes": png, "path": None}, "text": "a hen", "source": "wit"},
    ]
    (tmp_path / "src").mkdir()
    write_table(arrow.Table.from_pylist(rows), tmp_path / "src/train-00000-of-00001.parquet")
    manifest = prepare(tmp_path, "coco", tmp_path / "src", format="pmd", exclude=("none",))
    assert manifest["dropped"] == {"another part": 1}
    records = open_records(tmp_path / "out")
    assert [set(records.read(number).fields) for number in range(2)] == [{"jpg", "json"}, {"png", "json"}]


def test_error_says_what_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "cc12m.tsv").write_text("".join(f"http://host/{n}.jpg\ta dog\n" for n in range(1500)))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/photo.jpg").write_bytes(JPEG)
    expected = r"none of the first 1,000 rows .* looked for http://host/0\.jpg, but .* has files such as photo\.jpg\."
    with pytest.raises(UserError, match=expected):
        prepare(tmp_path, "cc12m", tmp_path / "cc12m.tsv")
    assert not (tmp_path / "out/manifest.json").exists()
