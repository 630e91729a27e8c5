"""Folders of published files: which are read for pretraining, and which are left."""

import gzip
import json
import sqlite3
from pathlib import Path

import pytest

from mmf_flava.data.prepare.pmd import PmdOptions, annotation_files
from mmf_flava.errors import UserError

URL = "http://host/1.jpg"
WIT = b"language\tpage_url\timage_url\tcaption_reference_description\nen\tp\tu\ta dog\n"
NARRATIVE = b'{"dataset_id": "x", "image_id": "1", "caption": "A dog."}\n'
REDCAPS = b'{"info": {}, "annotations": [{"image_id": "a", "url": "u", "caption": "x"}]}'
YFCC = "\t".join(["x"] * 23).encode()


def coco(*extra):
    image = {"license": 1, "file_name": "1.jpg", "coco_url": URL, "id": 1}
    annotation = {"image_id": 1, "id": 1, **dict.fromkeys(extra, "x")}
    return json.dumps({"info": {}, "images": [image], "licenses": [], "annotations": [annotation]}).encode()


def karpathy(**extra):
    return json.dumps(
        {"images": [{"filename": "1.jpg", "sentences": [{"raw": "x"}], "split": "train", **extra}]}
    ).encode()


VISUAL_GENOME = {
    "image_data.json": b'[{"width": 8, "url": "u", "height": 4, "image_id": 1, "coco_id": null, "flickr_id": null}]',
    "objects.json": b'[{"image_id": 1, "objects": [{"synsets": [], "h": 1, "names": ["clock"]}], "image_url": "u"}]',
    "region_descriptions.json": b'[{"regions": [{"region_id": 1, "phrase": "x", "x": 0}], "id": 1}]',
    "region_graphs.json": b'[{"image_id": 1, "regions": [{"phrase": "x", "relationships": [], "objects": []}]}]',
    "question_answers.json": b'[{"id": 1, "qas": [{"a_objects": [], "question": "q", "answer": "a"}]}]',
    "attributes.json": b'[{"image_id": 1, "attributes": []}]',
}
FOLDERS = {
    "coco": (
        {
            "annotations/captions_train2014.json": coco("caption"),
            "annotations/captions_val2014.json": coco("caption"),
            "annotations/instances_train2014.json": coco("category_id"),
            "annotations/person_keypoints_train2014.json": coco("keypoints"),
            "annotations/image_info_test2014.json": b'{"info": {}, "images": [{"file_name": "1.jpg", "id": 1}]}',
            "annotations/captions_train2017.json": coco("caption") + b" ",
            "dataset_flickr30k.json": karpathy(),
            "dataset_flickr8k.json": karpathy(),
        },
        ["captions_train2014.json"],
    ),
    "visual_genome": (VISUAL_GENOME, ["region_descriptions.json"]),
    "sbu": (
        {
            "dataset/SBU_captioned_photo_dataset_urls.txt": URL.encode(),
            "dataset/SBU_captioned_photo_dataset_captions.txt": b"a dog",
            "dataset/README.txt": b"x",
        },
        ["SBU_captioned_photo_dataset_urls.txt"],
    ),
    "wit": (
        {
            "wit_v1.train.all-00000-of-00010.tsv.gz": gzip.compress(WIT),
            "wit_v1.train.all-00001-of-00010.tsv.gz": gzip.compress(WIT + b"\n"),
            "wit_v1.train.all-00001-of-00010.tsv": WIT + b"\n",  # unpacked
            "wit_v1.train.all-1percent_sample.tsv.gz": gzip.compress(WIT),
            "wit_v1.val.all-00000-of-00005.tsv.gz": gzip.compress(WIT),
            "wit_v1.test.all-00000-of-00005.tsv.gz": gzip.compress(WIT),
        },
        ["wit_v1.train.all-00000-of-00010.tsv.gz", "wit_v1.train.all-00001-of-00010.tsv"],
    ),
    "conceptual_captions": (
        {
            "Train_GCC-training.tsv": f"a dog\t{URL}\n".encode(),
            "Validation_GCC-1.1.0-Validation.tsv": f"a dog\t{URL}\n".encode(),
            "Image_Labels_Subset_Train_GCC-Labels-training.tsv": f"a\t{URL}\tdog\t/m/0bt9lr\t0.9\n".encode(),
            "cc12m.tsv": f"{URL}\ta dog\n".encode(),
        },
        ["Train_GCC-training.tsv"],
    ),
    "cc12m": (
        {"cc12m.tsv": f"broken\n{URL}\ta dog\n".encode(), "Train_GCC-training.tsv": f"a dog\t{URL}\n".encode()},
        ["cc12m.tsv"],
    ),
    "localized_narratives": (
        {
            "open_images_train_v6_localized_narratives-00000-of-00010.jsonl": NARRATIVE,
            "open_images_validation_localized_narratives.jsonl": NARRATIVE,
            "coco_train_localized_narratives-00000-of-00004.jsonl": NARRATIVE + b"{",
            "coco_train_captions.jsonl": NARRATIVE,
            "coco_val_localized_narratives.jsonl": NARRATIVE,
            "flickr30k_train_localized_narratives.jsonl.gz": gzip.compress(NARRATIVE),
            "flickr30k_test_localized_narratives.jsonl": NARRATIVE,
            "ade20k_validation_localized_narratives.jsonl": NARRATIVE,
        },
        [
            "coco_train_localized_narratives-00000-of-00004.jsonl",
            "flickr30k_train_localized_narratives.jsonl.gz",
            "open_images_train_v6_localized_narratives-00000-of-00010.jsonl",
        ],
    ),
    "redcaps": (
        {
            "annotations/test_2017.json": REDCAPS,
            "annotations/cats_2018.json": REDCAPS + b"\n",
            "images/cats/a.jpg": b"x",
            "00000_stats.json": b'{"count": 1}',
        },
        ["cats_2018.json", "test_2017.json"],
    ),
    "yfcc100m": (
        {
            "yfcc100m_dataset-0.bz2": YFCC,
            "yfcc100m_dataset-1.bz2": YFCC + b"\n",
            "yfcc100m_autotags.bz2": b"1\tcat:0.9",
        },
        ["yfcc100m_dataset-0.bz2", "yfcc100m_dataset-1.bz2"],
    ),
}


COMPANIONS = {"sbu": {"SBU_captioned_photo_dataset_captions.txt"}, "visual_genome": {"image_data.json"}}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("part", FOLDERS)
def test_published_folders(tmp_path, part, caplog):
    files, expected = FOLDERS[part]
    write(tmp_path, files)
    selection = annotation_files(PmdOptions(part, tmp_path, tmp_path))
    assert sorted(path.name for path in selection.read) == expected
    companions = {path.name for path in selection.companions}
    assert companions == COMPANIONS.get(part, set())
    others = {Path(name).name for name in files} - set(expected) - companions - {"a.jpg"}
    assert {path.name for path in selection.left} == others
    for name in (*expected, *others):
        assert name in caplog.text


def test_karpathys_file_has_the_captions_of_all_others(tmp_path):
    write(tmp_path, FOLDERS["coco"][0] | {"dataset_coco.json": karpathy(cocoid=1)})
    selection = annotation_files(PmdOptions("coco", tmp_path, tmp_path), all_splits=True)
    assert [path.name for path in selection.read] == ["dataset_coco.json"]


def test_val_of_coco_is_read_if_its_evaluation_images_are_known(tmp_path):
    write(tmp_path, FOLDERS["coco"][0])
    selection = annotation_files(PmdOptions("coco", tmp_path, tmp_path), all_splits=True)
    assert [path.name for path in selection.read] == ["captions_train2014.json", "captions_val2014.json"]


def test_the_same_data_in_several_forms_are_read_once(tmp_path):
    sbu = FOLDERS["sbu"][0] | {"sbu-captions-all.json": b'{"image_urls": ["u"], "captions": ["x"]}'}
    write(tmp_path / "sbu", sbu)
    assert [path.name for path in annotation_files(PmdOptions("sbu", tmp_path / "sbu", tmp_path)).read] == [
        "sbu-captions-all.json"
    ]
    write(tmp_path / "yfcc", FOLDERS["yfcc100m"][0] | {"yfcc100m_dataset.txt": YFCC + b"\n\n"})
    with sqlite3.connect(tmp_path / "yfcc/yfcc100m_dataset.sql") as database:
        database.execute("CREATE TABLE yfcc100m_dataset (photoid, title, description, downloadurl, marker)")
    assert [path.name for path in annotation_files(PmdOptions("yfcc100m", tmp_path / "yfcc", tmp_path)).read] == [
        "yfcc100m_dataset.txt"
    ]
    write(tmp_path / "cc", {"cc12m.tsv": f"{URL}\tx".encode(), "cc12m (1).tsv": f"{URL}\tx".encode()})
    assert [path.name for path in annotation_files(PmdOptions("cc12m", tmp_path / "cc", tmp_path)).read] == [
        "cc12m.tsv"
    ]


def test_facebook_pmd(tmp_path):
    record = b'{"image_url": "u", "texts": ["x"], "source": "yfcc100m"}'
    write(tmp_path, {"yfcc100m_subset.jsonl": record, "validation.jsonl": record, "ln_coco_train.jsonl": NARRATIVE})
    selection = annotation_files(PmdOptions("yfcc100m", tmp_path, tmp_path, "pmd"))
    assert [path.name for path in selection.read] == ["yfcc100m_subset.jsonl"]


def test_error_says_what_was_found(tmp_path):
    write(tmp_path, {"wit_v1.val.all-00000-of-00005.tsv.gz": gzip.compress(WIT), "a.json.gz": b"\x1f\x8bdamaged"})
    with pytest.raises(UserError) as error:
        annotation_files(PmdOptions("wit", tmp_path, tmp_path))
    assert "no annotations of wit found. " in str(error.value)
    assert "1 validation, test or sample (wit_v1.val.all-00000-of-00005.tsv.gz)" in str(error.value)
    assert "unreadable: " in str(error.value)
