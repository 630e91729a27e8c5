"""The table of formats in docs/own_data.md: each row is written by the code in it, with the tool that people use.

img2dataset is not a dependency of the tests; its rows are written in the layout of version 1.47.
"""

import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.records import open_records

from .toys import annotation, captions_of, image_of, make_pets, pixel_hash, write_images

pandas = pytest.importorskip("pandas")
datasets = pytest.importorskip("datasets")
webdataset = pytest.importorskip("webdataset")

PAGE = Path(__file__).parents[3] / "docs/own_data.md"
PETS = make_pets()
ROWS = re.findall(r"^\| (?!format|-)(.*?) \| (.*) \| (.*?) \| (\w+) \|$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: the images of the pets in images/ and in class folders, and a table of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    write_images(PETS, tmp_path / "images")
    for pet in PETS:
        write_images([pet], tmp_path / pet.label)
    table().to_csv("list.csv")
    return tmp_path


def table():
    rows = [(f"images/{pet.id}.png", pet.caption, pet.label, pet.id) for pet in PETS]
    return pandas.DataFrame(rows, columns=["image", "caption", "label", "id"])


def dataset(embedded):
    """Return a dataset of `datasets` with the paths of the images or, as on the hub, with their bytes."""
    rows = table()
    if embedded:
        rows["image"] = [{"bytes": pet.image, "path": f"{pet.id}.png"} for pet in PETS]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["owl", "dog", "cat"]),
            "id": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_dict(rows.to_dict("list"), features)


def samples():
    values = [{"caption": pet.caption, "label": pet.label} for pet in PETS]
    return [{"__key__": f"{n:09d}", "png": pet.image, "json": values[n]} for n, pet in enumerate(PETS)]


def img2dataset(output_format):
    """Write the files of img2dataset for the pets and for an image that could not be downloaded."""
    from pyarrow import Table
    from pyarrow.parquet import write_table

    rows = []
    for n, pet in enumerate([*PETS, None]):
        values = {"label": pet.label, "caption": pet.caption} if pet else {"label": "cat", "caption": "lost"}
        status = {"status": "success", "error_message": None} if pet else {"status": "failed_to_download"}
        rows.append(
            {"url": f"http://127.0.0.1/{n}.png", "key": f"{n:09d}", **values, **status, "width": 5, "exif": "{}"}
        )
    files = {}
    for pet, row in zip(PETS, rows, strict=False):
        key = row["key"]
        files |= {f"{key}.jpg": pet.image, f"{key}.json": json.dumps(row).encode(), f"{key}.txt": pet.caption.encode()}
    Path("pets/00000").mkdir(parents=True)
    if output_format == "webdataset":
        Path("pets/00000").rmdir()
        with tarfile.open("pets/00000.tar", "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    elif output_format == "parquet":
        Path("pets/00000").rmdir()
        rows = [row | {"jpg": pet and pet.image} for pet, row in zip([*PETS, None], rows, strict=True)]
    else:
        for name, data in files.items():
            Path("pets/00000", name).write_bytes(data)
    write_table(Table.from_pylist(rows), "pets/00000.parquet")
    Path("pets/00000_stats.json").write_text(json.dumps({"count": 9, "successes": 8, "failed_to_download": 1}))


def write(code):
    """Run Python code or a command of the page."""
    if code.startswith("img2dataset "):
        img2dataset(re.search(r"--output_format (\w+)", code)[1])
    elif code.startswith(("tar ", "mkdir ")):
        subprocess.run(code, shell=True, check=True)
    else:
        names = {"os": os, "Path": Path, "webdataset": webdataset, "df": table(), "samples": samples()}
        exec(code, names | {"dataset": dataset(False), "hub_dataset": dataset(True)})


def read(folder, config):
    """Return the records of ``data_dir``, and those of the splits, if any, by the hash of their pixels."""
    data_dir = folder / config["data_dir"]
    paths = [data_dir / path for paths in config.get("splits", {}).values() for path in paths]
    records = open_records(paths or data_dir, columns=config.get("columns"))
    found = {}
    for number in range(len(records)):
        record = records.read(number)
        found[pixel_hash(image_of(record))] = record.key, *_annotations(records, record)
    assert len(found) == len(records)
    return found


def _annotations(records, record):
    if "json" not in record.fields and isinstance(records, ImageFolder):
        label = records.classes[int(record.fields["cls"])] if "cls" in record.fields else None
        return [record.fields["txt"].decode()] if "txt" in record.fields else [], label
    return captions_of(record), annotation(record).get("label")


def test_the_page_has_the_formats():
    assert len(ROWS) >= 23 and len({format_name for format_name, *_ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("name", "code", "config", "key"), ROWS, ids=[row[0] for row in ROWS])
def test_records_of_the_format_are_those_given_to_the_tool(name, code, config, key, folder):
    write(re.fullmatch("`(.*)`", code)[1])
    found = read(folder, yaml.safe_load("\n".join(re.findall("`(.*?)`", config))))
    has_captions, has_labels = "class folders" not in name, name != "images with .txt"
    keys = {"column": lambda n, pet: pet.id, "key": lambda n, pet: f"{n:09d}", "path": lambda n, pet: f"{pet.id}.png"}
    assert len(found) == len(PETS)
    for number, pet in enumerate(PETS):
        record_key, captions, label = found[pixel_hash(pet.image)]
        expected_key = f"{number:09d}.jpg" if name == "img2dataset, files" else keys[key](number, pet)
        assert record_key.rpartition("/")[2] == expected_key
        assert captions == ([pet.caption] if has_captions else [])
        assert label == (pet.label if has_labels else None)
