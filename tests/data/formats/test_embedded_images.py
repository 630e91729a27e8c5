import json

import pytest

from mmf_flava.data.formats.embedded import embedded_shards
from mmf_flava.data.formats.embedded_images import has_image_bytes
from mmf_flava.data.shards import ShardReader
from mmf_flava.errors import UserError

from .toys import NAMES, annotation, delivered, expected, image_of, make_pets, write_images

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
PETS = make_pets()
PLAIN = {"compression": "none", "use_dictionary": False, "write_statistics": False}  # one copy of each image
STRUCT = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))


def table(**changes):
    """The columns of the pets, with some of them replaced; None: left out."""
    columns = {
        "image": arrow.array([pet.image for pet in PETS]),
        "caption": [pet.caption for pet in PETS],
        "label": [pet.label for pet in PETS],
        "id": [pet.id for pet in PETS],
    } | changes
    return arrow.table({name: column for name, column in columns.items() if column is not None})


def write(path, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table(**changes), path, **PLAIN)
    return path


def read(path, **options):
    return ShardReader(embedded_shards(path, **options))


def structs(pets, **changes):
    return arrow.array([{"bytes": pet.image, "path": f"{pet.id}.png"} | changes for pet in pets], STRUCT)


def test_records_have_ids_captions_labels_and_the_bytes_of_the_images(tmp_path):
    records = read(write(tmp_path / "a.parquet"))
    assert delivered(records) == expected(PETS)
    assert [image_of(records.read(n)) for n in range(len(PETS))] == [pet.image for pet in PETS]


@pytest.mark.parametrize("kind", [arrow.large_binary(), arrow.binary_view()])
def test_all_types_of_bytes_are_images(kind, tmp_path):
    image = arrow.array([pet.image for pet in PETS], kind)
    assert delivered(read(write(tmp_path / "a.parquet", image=image))) == expected(PETS)


def test_structs_of_datasets_have_the_path_as_the_key(tmp_path):
    records = read(write(tmp_path / "a.parquet", image=structs(PETS), id=None))
    assert [records.read(n).key for n in range(len(records))] == [f"{pet.id}.png" for pet in PETS]


def test_structs_with_only_paths_are_a_table_unless_they_are_converted(tmp_path):
    path = write(tmp_path / "a.parquet", image=structs(PETS, bytes=None))
    assert not has_image_bytes(path)
    assert has_image_bytes(write(tmp_path / "b.parquet")) and has_image_bytes(
        tmp_path / "b.parquet", {"image": "Image"}
    )
    assert not has_image_bytes(tmp_path / "b.parquet", {"image": "id"})
    write_images(PETS[1:], tmp_path)
    assert delivered(read(path)) == expected(PETS[1:])  # the first image is missing
    assert delivered(read(path, images=tmp_path)) == expected(PETS[1:])


def test_class_names_of_datasets_are_labels_and_their_numbers_are_kept(tmp_path):
    features = {"label": {"names": [*NAMES], "_type": "ClassLabel"}}
    numbers = arrow.array([2, 0, -1, None, 7, 1, 1, 1])
    rows = table(label=numbers).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(rows, tmp_path / "a.parquet")
    shards = embedded_shards(tmp_path / "a.parquet")
    records = [ShardReader(shards).read(n) for n in range(7)]
    assert [annotation(record).get("label") for record in records] == ["owl", "cat", None, None, "dog", "dog", "dog"]
    assert [record.fields.get("cls") for record in records] == [b"2", b"0", None, None, b"1", b"1", b"1"]
    assert shards[0].with_name("classes.txt").read_text() == "cat\ndog\nowl\n"
    assert json.loads(shards[0].with_name("manifest.json").read_text())["dropped"] == {"unknown label": 1}


def test_several_labels_of_a_row_have_their_names(tmp_path):
    features = {"label": {"feature": {"names": [*NAMES], "_type": "ClassLabel"}, "_type": "List"}}
    lists = [[0, 2]] + [[]] * 7
    rows = table(label=lists).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(rows, tmp_path / "a.parquet")
    assert annotation(read(tmp_path / "a.parquet").read(0))["label"] == ["cat", "owl"]


def test_bad_rows_cost_only_themselves_and_are_counted(tmp_path):
    images = [PETS[0].image, None, b"", b"<html>", *(pet.image for pet in PETS[4:])]
    path = write(tmp_path / "a.parquet", image=arrow.array(images), caption=["a", *"bcdef", "", None])
    shards = embedded_shards(path)
    assert [ShardReader(shards).read(n).key for n in range(5)] == ["pet.0", "pet.4", "pet.5", "pet.6", "pet.7"]
    manifest = json.loads(shards[0].with_name("manifest.json").read_text())
    assert manifest["dropped"] == {"empty image": 1, "no image": 1, "not an image": 1}
    everything = read(path, images_required=False)
    assert [annotation(everything.read(n))["captions"] for n in range(3)] == [["a"], ["b"], ["e"]]


def test_duplicate_ids_are_numbered(tmp_path):
    records = read(write(tmp_path / "a.parquet", id=["a"] * 8))
    assert [records.read(n).key for n in range(3)] == ["a", "a#1", "a#2"]


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        (None, {"image": [1] * 8}, r"a.parquet: none of the 8 rows gives a record.*image is neither bytes nor a path"),
        (
            None,
            {"image": None},
            r"a.parquet: no column has images. The columns are caption, label, id. Write which one",
        ),
        (None, {"image": None, "x": [b"x"] * 8, "y": [b"x"] * 8}, r"several columns have bytes: x, y.*{image: x}"),
        ({"image": "picture"}, {}, "columns.image is 'picture', but there is no such column"),
        (
            None,
            {"caption": None, "title": ["a"] * 8, "description": ["b"] * 8},
            r"several columns may be the caption: title, description. .*{caption: title}",
        ),
        ({"caption": "title"}, {}, "columns.caption is 'title', but there is no such column"),
        (None, {"image": arrow.array([b"x"] * 8)}, r"none of the 8 rows gives a record \(8 not an image\)"),
    ],
)
def test_columns_that_are_not_understood_are_an_error(columns, changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "a.parquet", **changes), columns=columns)


def test_columns_are_chosen_by_the_config(tmp_path):
    path = write(tmp_path / "a.parquet", thumbnail=arrow.array([b"x"] * 8), title=["t"] * 8, uid=[*range(8)])
    records = read(path, columns={"caption": ["title", "caption"], "id": "uid", "label": None})
    assert records.read(3).key == "3"
    assert annotation(records.read(3)) == {"captions": ["t", PETS[3].caption]}


def test_damaged_parts_of_a_folder_are_counted(tmp_path):
    for number, name in enumerate(("train-00000-of-00003", "train-00001-of-00003", "train-00002-of-00003")):
        write(tmp_path / f"data/{name}.parquet", id=[f"{number} {n}" for n in range(8)])
    whole = bytearray((tmp_path / "data/train-00001-of-00003.parquet").read_bytes())
    place = bytes(whole).index(PETS[3].image)
    whole[place] ^= 255  # no checksum: the image itself is bad
    (tmp_path / "data/train-00001-of-00003.parquet").write_bytes(whole)
    (tmp_path / "data/train-00002-of-00003.parquet").write_bytes(whole[:-100])
    shards = embedded_shards(tmp_path)
    assert len(ShardReader(shards)) == 15
    manifest = json.loads(shards[0].with_name("manifest.json").read_text())
    assert manifest["dropped"] == {"damaged file": 1, "not an image": 1}
    assert "split" not in annotation(ShardReader(shards).read(0))  # there is only one split


def test_a_damaged_row_group_loses_only_its_rows(tmp_path):
    parquet.write_table(table(), tmp_path / "a.parquet", row_group_size=2, write_page_checksum=True, **PLAIN)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[data.index(PETS[3].image)] ^= 255
    (tmp_path / "a.parquet").write_bytes(data)
    shards = embedded_shards(tmp_path / "a.parquet")
    assert delivered(ShardReader(shards)) == expected([*PETS[:2], *PETS[4:]])
    assert json.loads(shards[0].with_name("manifest.json").read_text())["dropped"] == {"damaged file": 2}
