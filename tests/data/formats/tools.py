"""The table of formats in docs/own_data.md: its rows, and how the code in each is run with the tool that people use.

img2dataset is not a dependency of the tests; its rows are written in the layout of version 1.47.
"""

import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import webdataset
import yaml

from .toys import Pet, write_images

PAGE = Path(__file__).parents[3] / "docs/own_data.md"
# name of the format, code, keys of the dataset's config, what the id is
ROWS = re.findall(r"^\| (?!format|-)(.*?) \| (.*) \| (.*?) \| (\w+) \|$", PAGE.read_text(), re.MULTILINE)


def prepare(pets: list[Pet]) -> None:
    """Write the images to images/ and to class folders, and a table of them, into the current folder."""
    write_images(pets, Path("images"))
    for pet in pets:
        write_images([pet], Path(pet.label))
    _table(pets).to_csv("list.csv")


def write(pets: list[Pet], code: str) -> None:
    """Run the Python code or the command of a row, in backquotes, in the current folder."""
    (code,) = re.fullmatch("`(.*)`", code).groups()  # type: ignore[union-attr]
    if code.startswith("img2dataset "):
        _img2dataset(pets, code.split()[2])
    elif code.startswith(("tar ", "mkdir ")):
        subprocess.run(code, shell=True, check=True)
    else:
        names = {"os": os, "Path": Path, "webdataset": webdataset, "df": _table(pets), "samples": _samples(pets)}
        exec(code, names | {"dataset": _dataset(pets, False), "hub_dataset": _dataset(pets, True)})


def parse_config(config: str) -> dict[str, Any]:
    """Return the keys of the dataset's config of a row."""
    return yaml.safe_load("\n".join(re.findall("`(.*?)`", config)))


def _table(pets: list[Pet]) -> pandas.DataFrame:
    rows = [(f"images/{pet.id}.png", pet.caption, pet.label, pet.id) for pet in pets]
    return pandas.DataFrame(rows, columns=["image", "caption", "label", "id"])


def _dataset(pets: list[Pet], embedded: bool) -> datasets.Dataset:
    """Return a dataset of `datasets` with the paths of the images or, as on the hub, with their bytes."""
    rows = _table(pets)
    if embedded:
        rows["image"] = [{"bytes": pet.image, "path": f"{pet.id}.png"} for pet in pets]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["owl", "dog", "cat"]),
            "id": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_dict(rows.to_dict("list"), features)


def _samples(pets: list[Pet]) -> list[dict[str, Any]]:
    values = [{"caption": pet.caption, "label": pet.label} for pet in pets]
    return [{"__key__": f"{n:09d}", "png": pet.image, "json": values[n]} for n, pet in enumerate(pets)]


def _img2dataset(pets: list[Pet], output_format: str) -> None:
    """Write the files of img2dataset for the pets and for an image that could not be downloaded."""
    rows: list[dict[str, Any]] = []
    for n, pet in enumerate([*pets, None]):
        values = {"label": pet.label, "caption": pet.caption} if pet else {"label": "cat", "caption": "lost"}
        status = {"status": "success", "error_message": None} if pet else {"status": "failed_to_download"}
        rows.append(
            {"url": f"http://127.0.0.1/{n}.png", "key": f"{n:09d}", **values, **status, "width": 5, "exif": "{}"}
        )
    files: dict[str, bytes] = {}
    for pet, row in zip(pets, rows, strict=False):
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
        rows = [row | {"jpg": pet and pet.image} for pet, row in zip([*pets, None], rows, strict=True)]
    else:
        for name, data in files.items():
            Path("pets/00000", name).write_bytes(data)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), "pets/00000.parquet")
    Path("pets/00000_stats.json").write_text(json.dumps({"count": 9, "successes": 8, "failed_to_download": 1}))
