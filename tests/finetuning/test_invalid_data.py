"""Mistakes in the data of a dataset of MMF: one sentence that names the file and the entry."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmf_flava.errors import UserError
from tests.finetuning import toys

ANNOTATIONS = "dataset_config.hateful_memes.annotations"
FEW = ("training.max_updates=1", "training.evaluation_interval=1", "training.batch_size=4", "training.num_workers=0")


@pytest.fixture
def memes(tmp_path) -> Path:
    """``env.data_dir`` with few memes."""
    toys.write_tokenizer(tmp_path / "flava_demo" / "tokenizer")
    toys.write_hateful_memes(tmp_path, {"train": 8, "dev": 4, "test": 4})
    return tmp_path


def change_rows(data: Path, split: str, change: Callable[[int, dict], dict]) -> None:
    for name in (split, f"{split}_unseen"):
        path = data / "datasets" / "hateful_memes" / "defaults" / "annotations" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        toys.write_lines(path, [change(n, row) for n, row in enumerate(rows)])


def without(key: str) -> Callable[[int, dict], dict]:
    return lambda n, row: {name: value for name, value in row.items() if name != key}


ENTRIES = {
    "id is a word": (lambda n, row: row | {"id": "a"}, r"its id is 'a', expected an integer below 2147483648"),
    "id is too large": (lambda n, row: row | {"id": 2**31}, r"its id is 2147483648, expected"),
    "label is a word": (lambda n, row: row | {"label": "red"}, r"its label is 'red', expected an integer"),
    "label is null": (lambda n, row: row | {"label": None}, r"its label is None, expected an integer"),
    "label is a fraction": (lambda n, row: row | {"label": 0.5}, r"its label is 0\.5, expected an integer"),
    "label is too large": (lambda n, row: row | {"label": 5}, r"its label is 5, but .*num_labels is 2"),
    "label is negative": (lambda n, row: row | {"label": -1}, r"its label is -1, but .*num_labels is 2"),
    "text is null": (lambda n, row: row | {"text": None}, r"its text is None, expected a string"),
    "text is missing": (without("text"), r"KeyError: 'text'"),
    "image is missing": (lambda n, row: row | {"img": "gone.png"}, r"No such file .*gone\.png"),
    "image is null": (lambda n, row: row | {"img": None}, r"its img is None, expected a string"),
    "some labels": (
        lambda n, row: row if n % 2 else without("label")(n, row),
        r"this entry has (no )?targets, unlike other entries of the split\. Add a label to all",
    ),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_invalid_entry_is_named(finetune, memes, tmp_path, name):
    change, message = ENTRIES[name]
    change_rows(memes, "train", change)
    with pytest.raises(UserError, match=message) as caught:
        finetune("demo_hateful_memes", tmp_path / "save", f"env.data_dir={memes}", *FEW)
    assert "dataset_config.hateful_memes: entry " in str(caught.value) and "train" in str(caught.value)


def test_num_labels_smaller_than_the_labels(finetune, memes, tmp_path):
    with pytest.raises(UserError, match=r"its label is 1, but .*num_labels is 1\. Correct the label, or increase"):
        finetune(
            "demo_hateful_memes",
            tmp_path / "save",
            f"env.data_dir={memes}",
            "model_config.flava_classification.num_labels=1",
            *FEW,
        )


@pytest.mark.parametrize("content", [b"x\n", "é".encode("latin-1"), b'{"id": 1\n'])
def test_invalid_annotation_file_is_named(finetune, memes, tmp_path, content):
    (memes / "train.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"The annotation file .*train\.jsonl cannot be read"):
        finetune(
            "demo_hateful_memes",
            tmp_path / "save",
            f"env.data_dir={memes}",
            f"{ANNOTATIONS}.train[0]={memes}/train.jsonl",
            *FEW,
        )


def test_missing_annotation_file_is_named(finetune, memes, tmp_path):
    with pytest.raises(UserError, match=r"The annotation file .*gone\.jsonl was not found"):
        finetune(
            "demo_hateful_memes",
            tmp_path / "save",
            f"env.data_dir={memes}",
            f"{ANNOTATIONS}.train=[{memes}/gone.jsonl]",
            *FEW,
        )


@pytest.mark.parametrize("value", ["null", "[]"])
def test_finetuning_without_a_test_split(finetune, memes, tmp_path, value):
    options = (f"env.data_dir={memes}", f"{ANNOTATIONS}.test={value}", *FEW)
    assert (finetune("demo_hateful_memes", tmp_path / "save", *options) / "config.yaml").is_file()


@pytest.mark.parametrize("split", ["train", "val"])
def test_finetuning_needs_train_and_val(finetune, memes, tmp_path, split):
    with pytest.raises(UserError, match=rf"{split}"):
        finetune("demo_hateful_memes", tmp_path / "save", f"env.data_dir={memes}", f"{ANNOTATIONS}.{split}=null", *FEW)


@pytest.mark.parametrize(
    ("recipe", "option", "message"),
    [
        ("demo_hateful_memes", "checkpoint.resume_file=~/gone", r"/gone does not exist"),
        (
            "demo_vqa2",
            "dataset_config.vqa2.images.train=null",
            r"dataset_config\.vqa2: the split train cannot be loaded",
        ),
        ("demo_vqa2", "model_config.flava_classification.num_labels=3", r"num_labels=\d"),
        (
            "demo_vqa2",
            "dataset_config.vqa2.processors.answer_processor.params.vocab_file=/gone.txt",
            r"vocab_file: /gone\.txt cannot be read",
        ),
    ],
)
def test_missing_files_are_named(finetune, toy_data, tmp_path, recipe, option, message):
    with pytest.raises(UserError, match=message):
        finetune(recipe, tmp_path / "save", *FEW, option)
