import json

import pytest

from mmf_flava.data.formats.arrow_files import ArrowFile, DamagedRow, find_arrow_files, split_of_file
from mmf_flava.data.formats.embedded import embedded_shards
from mmf_flava.data.shards import ShardReader
from mmf_flava.errors import UserError

from .toys import annotation, delivered, expected, make_pets

arrow = pytest.importorskip("pyarrow")
PETS = make_pets()


def write(path, first=0, last=8, stream=True, rows=3):
    """Write an Arrow file in the stream format, as `datasets` does, or in the file format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("image", "caption", "label", "id")
    columns = [[getattr(pet, name) for pet in PETS[first:last]] for name in names]
    table = arrow.table(dict(zip(names, columns, strict=True)))
    with (arrow.ipc.new_stream if stream else arrow.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table, rows)
    return path


@pytest.mark.parametrize("stream", [True, False])
def test_both_formats_of_arrow_are_read(stream, tmp_path, monkeypatch):
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    shards = embedded_shards(write(tmp_path / "a.arrow", stream=stream))
    assert delivered(ShardReader(shards)) == expected(PETS)


def test_rows_before_the_damage_of_a_stream_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    path = write(tmp_path / "a.arrow")
    path.write_bytes(path.read_bytes()[:-300])
    rows = list(ArrowFile(path).read(["id"]))
    assert [row["id"] for row in rows[:6]] == [pet.id for pet in PETS[:6]]
    assert len(rows) == 7 and isinstance(rows[6], DamagedRow) and "Download or write the file again" in str(rows[6])
    shards = embedded_shards(path)
    assert delivered(ShardReader(shards)) == expected(PETS[:6])
    assert json.loads(shards[0].with_name("manifest.json").read_text())["dropped"] == {"damaged file": 1}


def test_numbers_beyond_the_file_are_damage(tmp_path):
    path = write(tmp_path / "a.arrow")
    data = path.read_bytes()
    offsets = data.index(len(PETS[0].image).to_bytes(4, "little"))
    path.write_bytes(data[:offsets] + b"\xff\xff\xff\x7f" + data[offsets + 4 :])
    assert isinstance(next(ArrowFile(path).read(["image"])), DamagedRow)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff\x10\0\0\0", b"x" * 100])
def test_a_file_that_is_neither_is_an_error(content, tmp_path):
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises(UserError, match=r"a.arrow is not a valid .*file \(.*\). Download or write the file again."):
        ArrowFile(tmp_path / "a.arrow")


def test_a_saved_dataset_has_the_files_of_its_state(tmp_path):
    for name in ("data-00001-of-00002.arrow", "data-00000-of-00002.arrow", "cache-1234.arrow"):
        write(tmp_path / name)
    files = [{"filename": f"data-0000{n}-of-00002.arrow"} for n in range(2)]
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": files, "_split": None}))
    assert [file.name for file, _ in find_arrow_files(tmp_path)] == [file["filename"] for file in files]
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UserError, match=r"state.json is not a valid state.json of `datasets`"):
        find_arrow_files(tmp_path)


def test_the_splits_of_a_saved_dictionary_are_in_the_records(tmp_path, monkeypatch):
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    for split, first, last in (("train", 0, 5), ("test", 5, 8)):
        write(tmp_path / "pets" / split / "data-00000-of-00001.arrow", first, last)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
        (tmp_path / "pets" / split / "state.json").write_text(json.dumps(state))
    (tmp_path / "pets/dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    records = ShardReader(embedded_shards(tmp_path / "pets"))
    found = [(record.key, annotation(record)["split"]) for record in map(records.read, range(8))]
    assert found == [(pet.id, "test") for pet in PETS[5:]] + [(pet.id, "train") for pet in PETS[:5]]
    part = ShardReader(embedded_shards(tmp_path / "pets/train"))
    assert "split" not in annotation(part.read(0))


def test_files_beside_images_and_hidden_files_are_not_read(tmp_path):
    for name in (
        "00000.parquet",
        "00001.parquet",
        ".hidden.parquet",
        "_tmp/x.parquet",
        "a/b.parquet",
        "c.arrow",
        "d.csv",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "00000.tar").touch()  # of img2dataset
    (tmp_path / "00001").mkdir()
    found = [str(file.relative_to(tmp_path)) for file, _ in find_arrow_files(tmp_path)]
    assert found == ["a/b.parquet", "c.arrow"]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00003.parquet", "train"),
        ("data/test_a-00000-of-00003-0a1b2c.parquet", "test_a"),
        ("default/validation/0000.parquet", "validation"),
        ("train.parquet", "train"),
        ("pets.parquet", None),
        ("pets/part-0.parquet", None),
    ],
)
def test_split_of_a_file(path, split, tmp_path):
    assert split_of_file(tmp_path / path) == split
