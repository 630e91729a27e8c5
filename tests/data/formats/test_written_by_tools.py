"""The table of formats in docs/own_data.md: each row is written by the code in it, with the tool that people use."""

import pytest

from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.records import open_records

from .toys import annotation, captions_of, image_of, make_pets, pixel_hash

for module in ("pandas", "datasets", "webdataset"):
    pytest.importorskip(module)

from . import tools  # noqa: E402

PETS = make_pets()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    tools.prepare(PETS)
    return tmp_path


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
    names = {name for name, *_ in tools.ROWS}
    assert len(tools.ROWS) >= 23 and len(names) == len(tools.ROWS)


@pytest.mark.parametrize(("name", "code", "config", "key"), tools.ROWS, ids=[row[0] for row in tools.ROWS])
def test_records_of_the_format_are_those_given_to_the_tool(name, code, config, key, folder):
    tools.write(PETS, code)
    found = read(folder, tools.parse_config(config))
    has_captions, has_labels = "class folders" not in name, name != "images with .txt"
    keys = {"column": lambda n, pet: pet.id, "key": lambda n, pet: f"{n:09d}", "path": lambda n, pet: f"{pet.id}.png"}
    assert len(found) == len(PETS)
    for number, pet in enumerate(PETS):
        record_key, captions, label = found[pixel_hash(pet.image)]
        expected_key = f"{number:09d}.jpg" if name == "img2dataset, files" else keys[key](number, pet)
        assert record_key.rpartition("/")[2] == expected_key
        assert captions == ([pet.caption] if has_captions else [])
        assert label == (pet.label if has_labels else None)
