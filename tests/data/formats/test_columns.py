"""The columns of tables: common names, the config key ``columns``, and the values of rows."""

import json
import logging

import pytest

from mmf_flava.config.columns import check_columns
from mmf_flava.data.formats.columns import Columns, Entry
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.record import BadRecord
from mmf_flava.data.records import open_records, require_column
from mmf_flava.errors import UserError
from tests.faults.file_format import write_image


@pytest.fixture
def table(tmp_path):
    """``table(text, name, **options)``: the records of a table beside two images."""
    for name in ("1.png", "images/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image(tmp_path / name, 1)

    def table(text, name="t.csv", **options):
        (tmp_path / name).write_text(text)
        return open_records(tmp_path / name, **options)

    return table


def values(record):
    return {"key": record.key, **json.loads(record.fields["json"])}


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("filepath,title,label", {"image": "filepath", "caption": "title", "label": "label"}),
        ("ID,File Name,TEXT,Class", {"id": "ID", "image": "File Name", "caption": "TEXT", "label": "Class"}),
        ("img_path,caption,title,split", {"image": "img_path", "caption": "caption", "split": "split"}),
        ("uid,image-path,sentence,category", {"id": "uid", "image": "image-path", "caption": "sentence"}),
    ],
)
def test_common_names_are_found(header, chosen):
    found = Columns("t.csv", header.split(",")).chosen
    assert {role: names[0] for role, names in found.items() if names} == {
        **chosen,
        **({"label": "category"} if "category" in header else {}),
    }


def test_the_log_names_what_was_seen(table, caplog):
    with caplog.at_level(logging.INFO):
        records = table("filepath,title\n1.png,a cat\nimages/2.png,a dog\n")
    assert "t.csv: 2 records of CSV; image: filepath, caption: title." in caplog.text
    assert [values(records.read(n)) for n in range(2)] == [
        {"key": "1.png", "captions": ["a cat"]},
        {"key": "images/2.png", "captions": ["a dog"]},
    ]


def test_columns_are_named_by_the_config(table):
    text = "path,name,kind,nr,fold\n1.png,a cat,pet,007,dev\n"
    given = {"image": "path", "caption": ["name", "Kind"], "label": "kind", "id": "nr", "split": "fold"}
    record = table(text, columns=given).read(0)
    assert values(record) == {"key": "007", "captions": ["a cat", "pet"], "label": "pet", "split": "dev"}
    with pytest.raises(
        UserError, match=r"columns\.caption is 'nmae', .*Did you mean 'name'\? The columns are path, name"
    ):
        table(text, columns={"caption": "nmae"})
    records = table(text, columns={"label": "knid"})
    with pytest.raises(UserError, match=r"columns\.label is 'knid', .*Did you mean 'kind'\?"):
        require_column(records, "label")
    assert values(table(text, columns={"caption": "name", "id": None}).read(0)) == {
        "key": "1.png",
        "captions": ["a cat"],
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"imgae": "a"}, r"'imgae' is not a key of x\.columns\. Did you mean 'image'\?"),
        ({"image": 3}, r"x\.columns\.image: must be the name of a column, got 3"),
        ({"image": ["a", "b"]}, r"x\.columns\.image: must be the name of a column"),
        ({"caption": []}, r"x\.columns\.caption: must be the name of a column"),
        ("image", r"x\.columns: must be a mapping.*columns: \{image: filepath, caption: title\}"),
    ],
)
def test_invalid_columns_raise(columns, message):
    with pytest.raises(UserError, match=message):
        check_columns(columns, "x.columns")


def test_missing_and_ambiguous_columns_have_a_line_to_write(table):
    with pytest.raises(UserError, match=r"no column for the image.* are name, price\. .*columns: \{image: name\}"):
        table("name,price\n1,3\n")
    with pytest.raises(UserError, match=r'columns: \{image: "# mine"\}'):
        table("# mine\nx\n")
    with pytest.raises(UserError, match=r"no rows of data\. Add them"):
        table("image,title\n")
    records = table("image,name,price\n1.png,a cat,3\n")
    with pytest.raises(UserError, match=r"no column for the caption.* are image, name, price\. .*\{caption: name\}"):
        require_column(records, "caption")
    records = table("image,title,description\n1.png,a cat,b\n")  # which of them is only asked if captions are needed
    assert values(records.read(0))["captions"] == []
    with pytest.raises(
        UserError, match=r"several columns may be the caption: title, description\..*\{caption: title\}"
    ):
        require_column(records, "caption")
    require_column(records, "image")


def test_the_column_whose_images_exist_is_used(table):
    assert table("filename,path\n2.png,images/2.png\n").read(0).key == "images/2.png"
    assert table("image_id,path\n2,images\\2.png\n").read(0).fields["png"]


def test_the_only_column_with_names_of_images_is_used(table):
    records = table("Nr.,Bilddatei,title\n7,1.png,a\n8,,b\n", images_required=False)
    assert records.columns.format_chosen() == "image: Bilddatei, caption: title"
    assert records.read(0).fields["png"]
    assert table("text,Bild\n1.png,x.png\n2.png,1.png\n").columns.chosen["image"] == ("Bild",)
    with pytest.raises(UserError, match="no column for the image was recognised"):
        table("a,b\n1.png,1.png\n")


@pytest.mark.parametrize(
    "name", ["1.png ", " 1.png", "images\\my photo.png", "images/my%20photo.png", "file://FOLDER/1.png"]
)
def test_paths_are_found_as_tools_write_them(table, tmp_path, name):
    write_image(tmp_path / "images/my photo.png", 1)
    record = table(f"image,title\n{name.replace('FOLDER', str(tmp_path))},a\n").read(0)
    assert record.fields.keys() - {"json"}


def test_missing_images_have_a_line_to_write(table, tmp_path, caplog, monkeypatch):
    with pytest.raises(UserError) as error:
        table("image,title\n2.png,a\n")
    assert f"e.g. line 2: {tmp_path}/2.png. Write image_dir: {tmp_path}/images." in str(error.value)
    assert len(table("image,title\n2.png,a\n", images=tmp_path / "images")) == 1
    with pytest.raises(UserError, match=r"line 2: /old/1\.png\. Its absolute path is of another machine"):
        table("image,title\n/old/1.png,a\n")
    with pytest.raises(UserError, match=r"Its absolute path is of another machine"):
        table("image,title\nC:\\photos\\9.png,a\n")
    with pytest.raises(UserError, match=f"Write image_dir: {tmp_path.parent}\\."):
        monkeypatch.chdir(tmp_path.parent)
        table(f"image,title\n{tmp_path.name}/1.png,a\n{tmp_path.name}/images/2.png,b\n")
    with pytest.raises(UserError, match=r"line 2 has the address https://a/1\.png.*img2dataset"):
        table("image,title\nhttps://a/1.png,a\n")
    records = table("image,title\n1.png,a\nx.png,b\n")
    assert "1 of the first 2 images do not exist, e.g. line 3" in caplog.text
    with pytest.raises(BadRecord, match=r"x\.png cannot be read"):
        records.read(1)


def test_texts_need_no_images(table):
    records = table("id,text,label\n7,a cat,x\n,a dog,y\n", images_required=False)
    assert isinstance(records, ImageList)
    assert [values(records.read(n)) for n in range(2)] == [
        {"key": "7", "captions": ["a cat"], "label": "x"},
        {"key": "line 3", "captions": ["a dog"], "label": "y"},
    ]
    assert records.read(0).fields.keys() == {"json"}


def test_columns_of_all_records_are_read_without_images(table, tmp_path):
    text = "id,image,text,label,split\n7,1.png,a,x,train\n7,1.png,b,y,dev\n8,1.png,c,d,e,f\n,images/2.png,,,test\n"
    records = table(text)
    (tmp_path / "1.png").unlink()
    expected = {
        "label": ["x", "y", None, None],
        "split": ["train", "dev", None, "test"],
        "captions": [("a",), ("b",), None, ()],
        "image": ["1.png", "1.png", None, "images/2.png"],
        "name": ["7", "7", None, "images/2.png"],
        "id": ["7#2", "7#3", None, "images/2.png"],
    }
    assert {name: records.column(name) for name in expected} == expected
    with pytest.raises(BadRecord, match=r"t\.csv: line 4 is invalid \(6 fields, but the first line has 5\)"):
        records.read(2)


@pytest.mark.parametrize(
    ("value", "expected"), [("007", "007"), (7, "7"), (7.0, "7"), (None, None), (float("nan"), None)]
)
def test_ids_are_kept_as_they_are(value, expected):
    assert Columns().entry({"image": "1.png", "id": value}) == Entry("1.png", (), None, expected)
