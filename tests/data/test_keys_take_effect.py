"""Every key of every dataset of mmf_flava changes the built dataset.

Each table has another value for each key of a config class, and a function that reads the value back from the built
dataset. A key without an entry fails.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from mmf_flava.config.datasets import GlueConfig, KarpathyConfig
from mmf_flava.data import glue, image_classification, image_stream, karpathy, unmasked  # noqa: F401 (registers them)
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.imagenet import ImageNetBuilder
from mmf_flava.data.pmd import PMDBuilder
from mmf_flava.data.text_corpus import TextCorpusBuilder
from tests.data.glue_toys import write_tsv, write_vocabulary
from tests.data.image_sets.published import WRITERS

Entry = tuple[Any, Callable[[Any], Any]]
SMALL = {"image_size": 24, "patch_size": 6}


def keys(schema: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys of a config class; those of its sections with the section's name and a dot."""
    hints = get_type_hints(schema)
    for field in fields(schema):
        kinds = [kind for kind in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(kind)]
        yield from keys(kinds[0], f"{prefix}{field.name}.") if kinds else [f"{prefix}{field.name}"]


def changed(key: str, value: Any) -> dict[str, Any]:
    """Return the section that sets the key."""
    section = OmegaConf.create({})
    OmegaConf.update(section, key, value)
    return OmegaConf.to_container(section)  # type: ignore[return-value]


class FakeCodes:
    """Replacement of ``DatasetCodes`` that keeps its arguments."""

    def __init__(self, folder: Path, parts: list[Any], expected: dict[str, Any]) -> None:
        self.folder, self.header, self.views = folder, {}, 1


class Spied(Exception):
    """Raised with the argument of a replaced function."""


@pytest.fixture
def spy(monkeypatch):
    """``spy(module, name)`` replaces a function by one that raises ``Spied`` with its arguments."""

    def spy(module, name):
        def raise_arguments(*arguments, **options):
            raise Spied(*arguments)

        monkeypatch.setattr(module, name, raise_arguments)

    return spy


@pytest.fixture
def build(demo, tmp_path, monkeypatch):
    """``build(name, split, section)``: build a small dataset with its registered builder."""
    write_vocabulary(tmp_path / "words")
    for folder, samples in ((tmp_path, 3), (tmp_path / "other", 4)):
        for name in ("rte", "mrpc"):
            write_tsv(folder, name, train=samples, dev=2, test=1)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures/1.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    lines = json.dumps({"image": "1.png", "captions": ["a", "b"], "label": 0})
    (tmp_path / "list.jsonl").write_text(lines)
    sentences = [{"raw": "a", "imgid": 0, "sentid": n} for n in range(7)]
    images = [{"filename": "1.png", "imgid": n, "split": split, "sentences": sentences} for n, split in [(0, "test")]]
    for folder in (tmp_path, tmp_path / "other"):
        (folder / "dataset_coco.json").write_text(json.dumps({"images": images}))
    Image.new("RGB", (8, 8)).save(tmp_path / "other/1.png")
    (tmp_path / "demo").symlink_to(demo)
    monkeypatch.setattr(image_stream, "DatasetCodes", FakeCodes)
    registry.unregister("config")
    pairs = {split: ["pairs/val"] for split in ("train", "val", "test")}
    image, text = {"type": "flava_image", "params": SMALL}, {"type": "flava_text", "params": {"tokenizer": "tokenizer"}}
    both = {"image_processor": image, "text_processor": text}
    words = {"text_processor": {"type": "flava_tokens", "params": {"tokenizer": str(tmp_path / "words")}}}
    sections: dict[str, Any] = {
        "pmd": {"data_dir": str(demo), "splits": pairs, "processors": both},
        "imagenet": {"data_dir": str(demo), "splits": pairs, "processors": {"image_processor": image}},
        "ccnews_bookcorpus": {
            "data_dir": str(demo),
            "splits": {split: ["text/val"] for split in pairs},
            "processors": {"text_processor": text},
            "block_size": 77,
        },
        "image_classification": {"data_dir": str(demo), "splits": pairs, "processors": {"image_processor": image}},
        "karpathy": {
            "data_dir": str(tmp_path),
            "splits": {"test": ["dataset_coco.json"]},
            "processors": {
                "image_processor": image,
                "text_processor": {"type": "flava_text", "params": {"tokenizer": str(tmp_path / "words")}},
            },
        },
        "glue": {"data_dir": str(tmp_path), "task": "rte", "processors": words},
    }

    def build(name, split, section):
        for processor in ("image_processor", "text_processor"):
            registry.unregister(f"{name}_{processor}")
        replaced = {"data_dir": str(tmp_path)} if section.get("splits", {}).get("train") == ["list.jsonl"] else {}
        merged = OmegaConf.merge(sections[name], replaced, section)
        builder = registry.get_builder_class(name)()
        builder.build_dataset(merged, split)
        return builder.load_dataset(merged, split)

    return build


def folder_of(dataset):
    """Return the folder of the dataset's first shard, token folder, split file or task."""
    if hasattr(dataset, "files"):
        return str(dataset.files[0].folder)
    records = getattr(dataset, "records", None)
    return str(dataset.config.data_dir if records is None else getattr(records, "path", None) or records.paths[0])


def count(dataset):
    return len(dataset)


WITH_DEMO = {
    "data_dir": ("{tmp}/demo", lambda dataset: folder_of(dataset).partition("/demo/")[0] + "/demo"),
    "splits.train": (["pairs/train"], count),
    "splits.val": (["pairs/train"], count),
    "splits.test": (["pairs/train"], count),
    "max_bad_share": (0.5, lambda dataset: dataset.max_bad_share),
}
TEXT_PROCESSOR = ({"text_processor": {"params": {"max_length": 33}}}, lambda dataset: dataset.text_processor.max_length)
IMAGE_PROCESSOR = (
    {"image_processor": {"params": {"crop_scale": [0.25, 0.5]}}},
    lambda dataset: list(dataset.image_processor.crop_scale),
)
CLASSES = ["0", "9", *"12345678"]
KEYS: dict[str, dict[str, Entry]] = {
    "pmd": {
        **WITH_DEMO,
        "processors": TEXT_PROCESSOR,
        "views": (3, lambda dataset: dataset.views),
        "codes": ("mine", lambda dataset: dataset.codes and dataset.codes.folder.name),
        "length_buckets": (4, lambda dataset: dataset.length_buckets),
        "mismatch_probability": (0.75, lambda dataset: dataset.mismatch_probability),
    },
    "imagenet": {
        **WITH_DEMO,
        "processors": IMAGE_PROCESSOR,
        "views": (3, lambda dataset: dataset.views),
        "codes": ("mine", lambda dataset: dataset.codes and dataset.codes.folder.name),
        "classes": (CLASSES, lambda dataset: list(dataset._class_numbers)),
    },
    "ccnews_bookcorpus": {
        **{key: entry for key, entry in WITH_DEMO.items() if not key.startswith("splits")},
        "splits.train": (["text/train"], count),
        "splits.val": (["text/train"], count),
        "splits.test": (["text/train"], count),
        "processors": ({"text_processor": {"params": {"max_length": 99}}}, TEXT_PROCESSOR[1]),
        "block_size": (44, lambda dataset: dataset.span + 2),
    },
    "image_classification": {
        **WITH_DEMO,
        "processors": IMAGE_PROCESSOR,
        "classes": (CLASSES, lambda dataset: dataset.classes),
        "augment": (True, lambda dataset: dataset.training),
    },
    "karpathy": {
        "data_dir": ("{tmp}/other", lambda dataset: str(dataset.records.path.parent)),
        "splits.test": ("{tmp}/other/dataset_coco.json", lambda dataset: str(dataset.records.path)),
        "processors": IMAGE_PROCESSOR,
        "image_dir": ("{tmp}/pictures", lambda dataset: str(dataset.records.images)),
        "captions_per_image": (2, lambda dataset: len(dataset[0].captions)),
    },
    "glue": {
        "data_dir": ("{tmp}/other", lambda dataset: str(Path(dataset.config.data_dir)) if len(dataset) == 4 else ""),
        "task": ("mrpc", lambda dataset: dataset.task.hub_folder),
        "splits.train": ("dev", count),
        "splits.val": ("train", count),
        "splits.test": ("dev", count),
        "processors": TEXT_PROCESSOR,
    },
}
# keys without a trace in the dataset, which have a test of their own below
# (epoch: test_pair_weights.py)
ELSEWHERE = {"build", "build_dir", "cache_bytes", "columns", "image_dir", "source", "download", "max_bad_share"}
ELSEWHERE |= {"connections", "epoch"}
# Karpathy's files have no training split, and a gallery's val split is opened like test
UNUSED = {"karpathy": {"splits.train", "splits.val"}}


def fill(value, tmp_path):
    """Replace {tmp} by the test's folder."""
    return json.loads(json.dumps(value).replace("{tmp}", str(tmp_path)))


@pytest.mark.parametrize("name", KEYS)
def test_every_key_of_a_dataset_is_tested(name):
    schema = registry.get_builder_class(name).CONFIG
    assert {*keys(schema)} - ELSEWHERE - UNUSED.get(name, set()) <= {*KEYS[name]} <= {*keys(schema)}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, table in KEYS.items() for key in table])
def test_key_of_a_dataset_takes_effect(name, key, build, tmp_path):
    value, read = KEYS[name][key]
    split = key.partition(".")[2] or ("test" if name == "karpathy" else "train")
    value = fill(value, tmp_path)
    default, dataset = read(build(name, split, {})), build(name, split, changed(key, value))
    found = read(dataset)
    assert found != default
    if key == "processors":
        assert found == next(iter(next(iter(value.values()))["params"].values()))
    elif not key.startswith("splits") or name == "karpathy":
        assert found == value


@pytest.mark.parametrize("name", ["pmd", "imagenet", "ccnews_bookcorpus", "image_classification"])
def test_build_creates_missing_data(name, build, spy, tmp_path):
    from mmf_flava.data.prepare import demo

    spy(demo, "prepare_demo")
    with pytest.raises(Spied, match="nowhere"):
        build(name, "train", {"data_dir": str(tmp_path / "nowhere"), "build": "demo"})


def test_build_dir_creates_what_a_recipe_needs_beside_own_data(build, spy, tmp_path):
    from mmf_flava.data.prepare import demo

    spy(demo, "prepare_demo")
    with pytest.raises(Spied, match="demo_folder"):
        build("pmd", "train", {"build": "demo", "build_dir": str(tmp_path / "demo_folder")})


@pytest.mark.parametrize("name", ["pmd", "imagenet", "image_classification"])
def test_cache_of_remote_shards_has_a_limit_and_connections(name, build, spy):
    spy(image_stream, "FileCache")
    for section, expected in (({}, [None, 8]), ({"cache_bytes": 12345, "connections": 3}, [12345, 3])):
        with pytest.raises(Spied) as error:
            build(name, "train", section)
        assert [*error.value.args[1:3]] == expected


@pytest.mark.parametrize("name", ["pmd", "imagenet", "image_classification"])
def test_image_dir_is_the_folder_of_the_images_in_lists(name, build, tmp_path):
    for section, folder in (({}, tmp_path), ({"image_dir": "pictures"}, tmp_path / "pictures")):
        text = {"text_processor": {"params": {"tokenizer": str(tmp_path / "words")}}} if name == "pmd" else {}
        dataset = build(name, "train", {"splits": {"train": ["list.jsonl"]}, "processors": text, **section})
        assert isinstance(dataset.records, ImageList) and dataset.records.images == folder


@pytest.mark.parametrize("name", ["pmd", "imagenet", "image_classification"])
def test_columns_are_those_of_the_values_in_lists(name, build, tmp_path):
    for section, key in (({}, "1.png"), ({"columns": {"id": "label"}}, "0")):
        text = {"text_processor": {"params": {"tokenizer": str(tmp_path / "words")}}} if name == "pmd" else {}
        dataset = build(name, "train", {"splits": {"train": ["list.jsonl"]}, "processors": text, **section})
        assert dataset.records.read(0).key == key


def test_source_and_download_select_a_published_dataset(build, spy, tmp_path):
    WRITERS["DTD"](tmp_path)
    section = {"data_dir": str(tmp_path), "source": "DTD", "splits": {"train": ["train"]}}
    assert build("image_classification", "train", section).classes == ["banded", "zigzagged"]
    spy(image_classification, "download_image_set")
    build("image_classification", "train", section)
    with pytest.raises(Spied, match="DTD"):
        build("image_classification", "train", {**section, "download": True})


def test_max_bad_share_of_glue_limits_malformed_lines(build, spy):
    spy(glue, "read_glue")
    for share in (0.01, 0.5):
        with pytest.raises(Spied) as error:
            build("glue", "train", {} if share == 0.01 else {"max_bad_share": share})
        assert error.value.args[3] == share


BUILDERS = (PMDBuilder, ImageNetBuilder, TextCorpusBuilder)


def test_tables_have_all_datasets():
    assert {builder.NAME for builder in BUILDERS} | {"image_classification", "karpathy", "glue"} == {*KEYS}
    assert registry.get_builder_class("glue").CONFIG is GlueConfig
    assert registry.get_builder_class("karpathy").CONFIG is KarpathyConfig


def test_an_existing_build_dir_is_left_alone(build, spy, tmp_path):
    from mmf_flava.data.prepare import demo

    spy(demo, "prepare_demo")
    (tmp_path / "own" / "tokenizer").mkdir(parents=True)
    assert len(build("pmd", "train", {"build": "demo", "build_dir": str(tmp_path / "own")})) > 0
