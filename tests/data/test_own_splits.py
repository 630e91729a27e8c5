"""Splits of the user's own data: by content, by a column, by the names of files and folders, and by the config."""

import shutil

import pytest

from mmf_flava.data.formats.splits import named_splits
from mmf_flava.errors import UserError
from tests.data.own_toys import keys, write_csv, write_image, write_own

SPLITS = ("train", "val", "test")


def contents(own, **section):
    """Return the keys of each split; None for a split without data."""
    datasets = {split: own(split, **section) for split in SPLITS}
    return {split: None if dataset is None else {*keys(dataset)} for split, dataset in datasets.items()}


def test_equal_images_are_in_one_split_and_the_order_has_no_effect(tmp_path, own):
    write_own(tmp_path, ["a", "b"] * 100)
    lines = (tmp_path / "my.csv").read_text().splitlines()
    for n in range(100):
        shutil.copy(tmp_path / f"{n}.png", tmp_path / f"copy{n}.png")
    copies = [f"copy{n}.png,another title,b" for n in range(100)]
    (tmp_path / "my.csv").write_text("\n".join([lines[0], *copies, *reversed(lines[1:])]) + "\n")
    found = contents(own)
    assert sum(map(len, found.values())) == 300
    assert 20 <= len(found["val"]) <= 75 and 20 <= len(found["test"]) <= 75
    for names in found.values():
        copied = {name.removeprefix("copy") for name in names if name.startswith("copy")}
        assert copied == {
            name for name in names if not name.startswith("copy") and int(name.removesuffix(".png")) < 100
        }
    write_own(tmp_path, ["a", "b"] * 100)
    alone = contents(own, image_dir=".")
    assert alone == {split: {n for n in names if not n.startswith("copy")} for split, names in found.items()}
    folders = tmp_path / "folders"
    for n in range(200):
        (folders / str(n % 2)).mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / f"{n}.png", folders / str(n % 2) / f"{n}.png")
    in_folders = contents(own, data_dir=str(folders))
    assert {split: {name.partition("/")[2] for name in names} for split, names in in_folders.items()} == alone


def test_rows_whose_images_do_not_exist_are_left_out(tmp_path, own):
    write_own(tmp_path, ["a", "b"] * 10)
    (tmp_path / "3.png").unlink()
    names = {*keys(own("train", val_share=0, test_share=0))}
    assert names == {f"{n}.png" for n in range(20)} - {"3.png"}
    texts = own("train", val_share=0, test_share=0, processors={"image_processor": None})
    assert len(texts.records) == 20


def test_an_empty_training_split_has_a_remedy(tmp_path, own):
    write_own(tmp_path, ["a", "b"])
    with pytest.raises(UserError, match=r"in the split train.*or decrease val_share of dataset_config\."):
        own("train", val_share=0.98, test_share=0.01)


def test_texts_are_divided_by_their_content(tmp_path, own):
    rows = [(f"text {n % 50}", n % 2) for n in range(200)]
    write_csv(tmp_path / "my.csv", ["text", "label"], rows)
    texts = [{own_split.read_record(n)["text"] for n in range(own_split.size)} for own_split in map(own, SPLITS)]
    assert sum(map(len, texts)) == 50 and len(set.union(*texts)) == 50


def test_column_split(tmp_path, own):
    values = ["train", "Valid", "dev", "test", ""]
    rows = [(write_image(tmp_path / f"{n}.png", n), "ab"[n // 5 % 2], values[n % 5]) for n in range(50)]
    write_csv(tmp_path / "my.csv", ["image", "label", "split"], rows)
    found = contents(own)
    assert {split: {int(name.removesuffix(".png")) % 5 for name in names} for split, names in found.items()} == {
        "train": {0},
        "val": {1, 2},
        "test": {3},
    }
    write_csv(tmp_path / "my.csv", ["image", "label", "split"], [*rows, ("0.png", "a", "holdout")])
    with pytest.raises(UserError, match=r"my\.csv: the column split has the value 'holdout'\. Write train, val"):
        own("train", val_share=0.1)
    assert sum(map(len, contents(own, columns={"split": None}).values())) == 51


def test_a_column_without_val_divides_its_training_records(tmp_path, own):
    rows = [(write_image(tmp_path / f"{n}.png", n), "ab"[n % 2], "test" if n < 40 else "train") for n in range(120)]
    write_csv(tmp_path / "my.csv", ["image", "label", "split"], rows)
    found = contents(own, val_share=0.3)
    assert found["test"] == {f"{n}.png" for n in range(40)}
    assert len(found["train"]) + len(found["val"]) == 80 and len(found["val"]) > 5


def test_files_and_folders_named_as_splits(tmp_path, own):
    data = tmp_path / "data"
    for name, count in (("train", 40), ("dev", 10), ("test", 10)):
        write_own(data, ["a", "b"] * (count // 2), f"{name}.csv")
    found = contents(own, data_dir=str(data))
    assert {split: len(names) for split, names in found.items()} == {"train": 40, "val": 10, "test": 10}
    (data / "dev.csv").unlink()
    found = contents(own, data_dir=str(data), val_share=0.3)
    assert len(found["train"]) + len(found["val"]) == 40 and found["val"] and len(found["test"]) == 10
    folders = tmp_path / "folders"
    for split, count in (("train", 20), ("valid", 6)):
        for n in range(count):
            write_image(folders / split / "ab"[n % 2] / f"{n}.png", n)
    found = contents(own, data_dir=str(folders))
    assert (len(found["train"]), len(found["val"]), found["test"]) == (20, 6, None)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train", "car"):
        write_image(tmp_path / "vehicles" / name / "1.png", 1)
    assert named_splits(tmp_path / "vehicles") == {}
    for name in ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "validation-00000-of-00001.parquet"):
        (tmp_path / "hub").mkdir(exist_ok=True)
        (tmp_path / "hub" / name).touch()
    found = named_splits(tmp_path / "hub")
    assert {split: len(paths) for split, paths in found.items()} == {"train": 2, "val": 1}


def test_paths_in_the_config_replace_a_share(tmp_path, own):
    write_own(tmp_path, ["a", "b"] * 50)
    own_test = write_csv(tmp_path / "test.csv", ["image", "title", "label"], [("0.png", "a cup", "a")] * 3)
    shared, given = contents(own), contents(own, splits={"test": str(own_test)})
    assert given["val"] == shared["val"] and given["train"] == shared["train"] | shared["test"]
    assert own("test", splits={"test": "test.csv"}).size == 3
    both = contents(own, splits={"train": "my.csv", "val": "test.csv"})
    assert (len(both["train"]), len(both["val"]), both["test"]) == (100, 3, None)


def test_a_class_that_only_a_validation_file_has_is_an_error(tmp_path, own):
    write_own(tmp_path, ["a", "b"] * 10)
    write_csv(tmp_path / "val.csv", ["image", "title", "label"], [("0.png", "a cup", "a"), ("1.png", "a cup", "c")])
    assert own("train", splits={"val": "val.csv"}).classes == ["a", "b"]
    with pytest.raises(UserError, match=r"val\.csv: unknown classes: c \(1 records\)\. The classes are a, b"):
        own("val", splits={"val": "val.csv"})


def test_missing_data_and_empty_splits_raise(tmp_path, own):
    with pytest.raises(UserError, match=r"data_dir: .*nothing\.csv does not exist"):
        own("train", data_dir=str(tmp_path / "nothing.csv"))
    write_own(tmp_path, ["a", "b"])
    with pytest.raises(UserError, match=r"none of its 2 records is in the split (val|test|train)"):
        contents(own, val_share=0.001, test_share=0.001)
