"""Karpathy's split files: images and captions of a gallery, and errors."""

import json

import numpy as np
import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from mmf_flava.data import karpathy, processors  # noqa: F401 (they register)
from mmf_flava.data.record import BadRecord
from mmf_flava.errors import UserError
from tests.data.conftest import DATASETS

WORDS = ["zero", "one", "two", "three", "four", "five", "six"]


def entry(number, split="test", captions=5, folder="val2014"):
    """Return an entry as in the published files; sentence ids are unique."""
    sentences = [
        {"raw": f"{WORDS[n]} of {number} ", "tokens": [], "imgid": number, "sentid": 10 * number + n}
        for n in range(captions)
    ]
    place = {"filepath": folder, "filename": f"{number}.png"} if folder else {"filename": f"{number}.png"}
    return {**place, "imgid": number, "split": split, "sentids": [], "sentences": sentences}


@pytest.fixture
def write(tmp_path):
    """``write(entries)`` writes the file and its images."""

    def write(entries, name="dataset_coco.json"):
        for each in entries:
            if each.get("filename"):
                path = tmp_path / each.get("filepath", "") / each["filename"]
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(np.full((8, 10, 3), 10 * each["imgid"], np.uint8)).save(path)
        (tmp_path / name).write_text(json.dumps({"dataset": "coco", "images": entries}))

    return write


@pytest.fixture
def load(demo, tmp_path):
    """``load(split, **options)`` through the registered builder, with fresh processors."""

    def load(split="test", name="dataset_coco.json", **options):
        overrides = {"data_dir": str(tmp_path), "splits": {"val": [name], "test": [name]}, **options}
        overrides["processors"] = {
            "image_processor": {"params": {"image_size": 8, "patch_size": 4}},
            "text_processor": {"params": {"tokenizer": str(demo / "tokenizer")}},
        }
        config = OmegaConf.merge(
            {"env": {"data_dir": str(tmp_path)}},
            OmegaConf.load(DATASETS / "karpathy.yaml"),
            {"dataset_config": {"karpathy": overrides}},
        ).dataset_config.karpathy
        for key in ("image_processor", "text_processor"):
            registry.unregister(f"karpathy_{key}")
        builder = registry.get_builder_class("karpathy")()
        builder.build_dataset(config, split)
        return builder.load_dataset(config, split)

    return load


def test_split_keeps_the_order_of_the_file(write, load):
    write([entry(3), entry(1, "train"), entry(2, captions=7), entry(4, "restval"), entry(5, "val"), entry(6)])
    data = load()
    batch = data.collate([data.read_sample(n) for n in range(len(data))])
    assert batch["sample_id"] == ["val2014/3.png", "val2014/2.png", "val2014/6.png"]
    assert batch["captions"][1] == ["zero of 2", "one of 2", "two of 2", "three of 2", "four of 2"]  # of seven
    assert batch["image"].shape == (3, 3, 8, 8)
    assert batch["image"][:, 0, 0, 0].argsort().tolist() == [1, 0, 2]  # grey by number
    assert set(batch) == {"image", "captions", "sample_id", "dataset_name", "dataset_type"}
    assert [data["sample_id"] for data in map(load("val").__getitem__, range(1))] == ["val2014/5.png"]


def test_flickr_file_has_no_folders_and_captions_can_be_unlimited(write, load, tmp_path):
    write([entry(1, folder=None, captions=6), entry(2, folder=None, captions=1)], "dataset_flickr30k.json")
    (tmp_path / "images").mkdir()
    for n in (1, 2):
        (tmp_path / f"{n}.png").rename(tmp_path / "images" / f"{n}.png")
    data = load(name="dataset_flickr30k.json", image_dir="images", captions_per_image=None)
    assert [len(data[n]["captions"]) for n in range(2)] == [6, 1]
    assert data[0]["sample_id"] == "1.png"


@pytest.mark.parametrize("layout", ["val2014/{}.png", "{}.png", "train2017/{:012}.jpg", "{:012}.jpg"])
def test_layouts_of_coco(tmp_path, layout):
    """The fields of dataset_coco.json, with images in the folders of 2014 or 2017, or in one folder."""
    entries = [{**entry(number), "cocoid": number} for number in (391895, 522418)]
    for number in (391895, 522418):
        path = tmp_path / layout.format(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(str(number).encode())
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": entries}))
    records = karpathy.KarpathyRecords(tmp_path / "dataset_coco.json", tmp_path, "test", 5)
    assert records.keys == [layout.format(number) for number in (391895, 522418)]
    assert [list(records.read(n).fields.values()) for n in range(2)] == [[b"391895"], [b"522418"]]


@pytest.mark.parametrize("name", ["flickr8k", "flickr30k"])
def test_fields_of_flickr(tmp_path, name):
    """The fields of dataset_flickr8k.json and dataset_flickr30k.json."""
    sentence = {"tokens": ["a", "dog"], "raw": "A dog .", "imgid": 0, "sentid": 0}
    image = {"sentids": [0], "imgid": 0, "sentences": [sentence], "split": "test", "filename": "1007129816.jpg"}
    (tmp_path / f"dataset_{name}.json").write_text(json.dumps({"images": [image], "dataset": name}))
    (tmp_path / "1007129816.jpg").write_bytes(b"x")
    records = karpathy.KarpathyRecords(tmp_path / f"dataset_{name}.json", tmp_path, "test", 5)
    assert (records.keys, records.captions) == (["1007129816.jpg"], [["A dog ."]])


def test_fingerprint_depends_on_captions_and_images(write, load):
    write([entry(1), entry(2)])
    first = load().fingerprint()
    assert load().fingerprint() == first != load(captions_per_image=4).fingerprint()
    write([entry(1), entry(3)])
    assert load().fingerprint() != first


def changed(number, **changes):
    return {**entry(number), **changes}


OTHER = [{"raw": "one of another", "imgid": 77, "sentid": 99}]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry(1), changed(2, imgid=1, sentences=[{"raw": "x"}])], r"1 entries have a duplicate imgid: 1\."),
        ([entry(1), changed(2, filename="1.png")], r"have a duplicate filename: val2014/1\.png\."),
        ([entry(1), changed(2, sentences=[{"raw": "x", "sentid": 10}])], r"have a duplicate sentid: 10\."),
        ([entry(1), changed(2, sentences=OTHER)], r"of other images: 2\.png \(imgid 2\) has a sentence of imgid 77\."),
        (
            [changed(n, sentences=[]) for n in range(5)],
            r"5 entries are invalid.*: entry 0 \(0\.png\), .*2.*, \.\.\.\.",
        ),
        ([changed(1, filename=None)], r"1 entries are invalid"),
        ([changed(1, sentences=[{"raw": " "}])], r"1 entries are invalid"),
        ([entry(1, "train"), entry(2, "restval")], r"no images of split 'test'\. Its splits are: restval, train\."),
    ],
)
def test_invalid_entries_raise(write, load, entries, words):
    write(entries)
    with pytest.raises(UserError, match=words):
        load()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"imgid": [1]}, r"\(TypeError: unhashable type"),
        ({"filepath": 3}, r"\(TypeError: sequence item 0"),
        ({"filename": "a" * 5000}, r"\(.*File name too long"),
    ],
)
def test_values_of_other_types_raise(tmp_path, changes, words):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"images": [{**entry(1), "sentences": [{"raw": "x"}], **changes}]}))
    with pytest.raises(
        UserError, match=rf"^{path} is not a valid Karpathy split file {words}.* Download the file again"
    ):
        karpathy.KarpathyRecords(path, tmp_path, "test", None)


def test_missing_images_raise_with_download_instructions(write, load, tmp_path):
    write([entry(n) for n in range(6)])
    for n in range(1, 6):
        (tmp_path / "val2014" / f"{n}.png").unlink()
    words = (
        r"5 of the 6 images of split 'test' were not found: val2014/1\.png, val2014/2\.png, val2014/3\.png, \.\.\.\. "
        r"Download COCO"
    )
    with pytest.raises(UserError, match=words):
        load()
    with pytest.raises(UserError, match=r"nowhere does not exist\. .*image_dir"):
        load(image_dir="nowhere")


def test_missing_or_invalid_file_raises_with_download_instructions(load, tmp_path):
    with pytest.raises(UserError, match=r"dataset_coco\.json: .* cannot be read .*caption_datasets\.zip"):
        load()
    (tmp_path / "dataset_coco.json").write_text("<html>")
    with pytest.raises(UserError, match="invalid JSON"):
        load()
    (tmp_path / "dataset_coco.json").write_text('{"annotations": []}')
    with pytest.raises(UserError, match="expected a Karpathy split file"):
        load()


def test_corrupt_image_is_a_bad_record(write, load, tmp_path):
    write([entry(1), entry(2)])
    (tmp_path / "val2014" / "2.png").write_bytes(b"<html>not found</html>")
    data = load()
    assert data.read_sample(0)["sample_id"] == "val2014/1.png"
    with pytest.raises(BadRecord, match=r"val2014/2\.png: not an image"):
        data.read_sample(1)


def test_training_and_multiple_files_raise(write, load, tmp_path):
    write([entry(1)])
    with pytest.raises(UserError, match="training is not supported"):
        load("train")
    registry.register("config", OmegaConf.create({"run_type": "val_test"}))
    assert load("train") is None, "MMF's trainers load the train split of every run"
    registry.unregister("config")
    with pytest.raises(UserError, match=r"splits\.test: must be one file, got 2"):
        load(splits={"val": None, "test": ["dataset_coco.json", "other.json"]})
    assert load("val", splits={"val": None, "test": None}) is None
    with pytest.raises(UserError, match="captions_per_image: must be at least 1, got 0"):
        load(captions_per_image=0)
