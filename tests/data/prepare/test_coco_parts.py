"""COCO's captions and Localized Narratives, in the published form."""

import json

from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.prepare.coco_parts import read_coco, read_localized_narratives
from mmf_flava.data.prepare.evaluation_images import HELD_OUT

from .lazy import evaluated

COCO_URL = "http://images.cocodataset.org/train2014/COCO_train2014_000000057870.jpg"
FLICKR_URL = "http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z.jpg"
NAMES = ("COCO_train2014_000000057870.jpg", "000000057870.jpg", "COCO_val2014_000000057870.jpg")


def test_captions_2014(tmp_path):
    image = {
        "license": 5,
        "file_name": NAMES[0],
        "coco_url": COCO_URL,
        "height": 480,
        "width": 640,
        "date_captured": "2013-11-14 16:28:13",
        "flickr_url": FLICKR_URL,
        "id": 57870,
    }
    captions = ["A restaurant has modern wooden tables and chairs.\n", "A long table <br/> with &quot;chairs&quot;"]
    data = {
        "info": {"description": "COCO 2014 Dataset"},
        "images": [image, {**image, "id": 8, "file_name": "COCO_train2014_000000000008.jpg"}],
        "licenses": [],
        "annotations": [{"image_id": 57870, "id": n, "caption": text} for n, text in enumerate(captions)],
    }
    (tmp_path / "captions_train2014.json").write_text(json.dumps(data))
    found, empty = evaluated(read_coco(tmp_path / "captions_train2014.json"))
    assert found.captions == ("A restaurant has modern wooden tables and chairs.", 'A long table with "chairs"')
    assert found.url == COCO_URL
    assert set(NAMES) < set(found.names)
    assert found.ids == {"coco:57870", "flickr:2970773875"}
    assert empty == Annotation(dropped="no text")


def test_karpathy(tmp_path):
    def entry(split, folder="val2014", number=42):
        sentences = [{"tokens": ["a"], "raw": "A raw caption", "imgid": 0, "sentid": 1}]
        name = f"COCO_{folder}_{number:012d}.jpg"
        return {"filepath": folder, "filename": name, "cocoid": number, "split": split, "sentences": sentences}

    images = [entry("restval"), entry("val"), entry("test"), entry("train", "train2014", 57870)]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": images}))
    restval, val, test, train = evaluated(read_coco(tmp_path / "dataset_coco.json"))
    assert restval.captions == ("A raw caption",)
    assert restval.url == "http://images.cocodataset.org/val2014/COCO_val2014_000000000042.jpg"
    assert "000000000042.jpg" in restval.names
    assert (val.dropped, test.dropped) == (HELD_OUT, HELD_OUT)
    assert (train.url, train.ids) == (COCO_URL, {"coco:57870"})


def test_localized_narratives(tmp_path):
    rows = [
        ("mscoco_train2017", "42", "A cat. It sleeps!  Is it old?"),
        ("Flick30k_train", "1007129816", "In this image"),
        ("ADE20k_train", "ADE_train_00004282", "A room."),
        ("open_images_train", "000fe11025f2e246", "A bird."),
        ("mscoco_train2017", "43", ""),
    ]
    lines = [
        {
            "dataset_id": dataset,
            "image_id": name,
            "annotator_id": 7,
            "caption": caption,
            "timed_caption": [],
            "traces": [],
        }
        for dataset, name, caption in rows
    ]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    coco, flickr, ade, openimages, empty = evaluated(read_localized_narratives(tmp_path / "a.jsonl"))
    assert coco.captions == ("A cat.", "It sleeps!", "Is it old?")
    assert {"42", "000000000042", "COCO_train2014_000000000042", "COCO_val2014_000000000042"} == set(coco.names)
    assert coco.ids == {"coco:42"}
    assert (flickr.names, flickr.ids) == (("1007129816",), {"flickr:1007129816"})
    assert (ade.names, ade.ids) == (("ADE_train_00004282",), frozenset())
    assert openimages.url == "https://s3.amazonaws.com/open-images-dataset/train/000fe11025f2e246.jpg"
    assert "000fe11025f2e246" in openimages.names
    assert empty.dropped == "no text"
