"""What a path contains: every kind of file and folder, and the answers to mixed and unknown ones."""

import json
import os

import pytest

from mmf_flava.data.formats.detection import Kind, detect
from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.records import open_records
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader
from mmf_flava.errors import UserError
from tests.faults.file_format import write_image

TABLE = "image,caption\n1.png,a cat\n"


@pytest.fixture
def make(tmp_path):
    """``make(**files)``: write files by path; images get content, tar shards a record."""

    def make(*names):
        for name in names:
            name, content = name if isinstance(name, tuple) else (name, "x")
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                write_image(path, 1)
            elif path.suffix == ".tar":
                with ShardWriter(path) as writer:
                    writer.write("1", {"txt": b"x"})
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return make


def test_images_with_texts_beside_them(make):
    folder = make("1.png", ("1.txt", "a cat"), "b/2.png", ("b/2.txt", "a dog"), "README.md")
    records = open_records(folder)
    assert isinstance(records, ImageFolder)
    assert [records.read(n, ("txt",)).fields["txt"] for n in range(2)] == [b"a cat", b"a dog"]


def test_output_of_img2dataset_as_files(make):
    names = [f"0000{shard}/0000{shard}{n:04d}" for shard in range(2) for n in range(2)]
    files = [(f"{name}.json", json.dumps({"caption": name, "key": name[-9:]})) for name in names]
    folder = make(
        *(f"{name}.png" for name in names), *files, "00000.parquet", "00001.parquet", ("00000_stats.json", "{}")
    )
    records = open_records(folder)
    assert [json.loads(records.read(n).fields["json"])["caption"] for n in range(4)] == names
    assert "cls" not in records.read(0).fields  # the folders are no classes


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "file_name,text\n1.png,a cat\n"),
        ("metadata.jsonl", '{"file_name": "1.png", "text": "a cat"}\n'),
        ("captions.txt", TABLE),
        ("captions", TABLE),
        ("data.json", '[{"image": "1.png", "caption": "a cat"}]'),
    ],
)
def test_a_folder_with_one_table_is_the_table(make, name, content):
    records = open_records(make("1.png", "2.png", (name, content), ("notes.txt", "Some\nnotes")))
    assert isinstance(records, ImageList) and records.columns.chosen["caption"]
    assert (len(records), records.read(0).key) == (1, "1.png")


def test_shards_with_img2datasets_files(make):
    folder = make(
        "00000.tar", "00001.tar", "00000.parquet", "00001.parquet", ("00000_stats.json", "{}"), "manifest.json"
    )
    assert isinstance(open_records(folder), ShardReader) and len(open_records(folder)) == 2
    os.rename(folder / "00000.tar", folder / "shard")
    assert detect(folder / "shard") == (Kind.SHARDS, (folder / "shard",))  # whatever its name is


def test_globs_of_tables(make):
    folder = make("1.png", ("a.csv", TABLE), ("b.csv", TABLE))
    assert len(open_records(folder / "*.csv")) == 2


def test_a_table_without_a_known_column_beside_class_folders_is_named(make, caplog):
    folder = make("cat/1.png", "dog/1.png", ("sizes.csv", "name,width\n1,2\n"))
    assert isinstance(open_records(folder), ImageFolder)
    assert "no column for the image was recognised: sizes.csv" in caplog.text
    with pytest.raises(UserError, match=r"sizes\.csv: column name: none of the first images"):
        open_records(folder, columns={"image": "name"})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.tar", "1.png"], r"tar shards \(1\.tar\) and images \(1\.png\)\..*data_dir: .*/\*\.tar"),
        (["1.tar", "2.tar", ("a.csv", TABLE)], r"tar shards \(1\.tar, 2\.tar\) and tables \(a\.csv\).*/\*\.tar"),
        (["1.png", "1.txt", ("a.csv", TABLE)], r"tables \(a\.csv\) and images with texts beside them \(1\.png\)"),
        (["1.png", ("a.csv", TABLE), ("b.csv", TABLE)], r"tables \(a\.csv, b\.csv\)\..*data_dir: .*/a\.csv"),
        (["train/1.png", "val/1.png"], r"several splits\..*splits: \{train: train, val: val\}"),
        ([("train.csv", TABLE), ("test.csv", TABLE)], r"splits: \{test: test\.csv, train: train\.csv\}"),
        (["a/1.tar"], r"it contains .*1 \.tar.*The shards are in subfolders: write data_dir: .*/a\. Expected"),
        (["a.docx", "b.docx"], r"has no records: it contains 2 \.docx files\. Expected"),
        ([], r"has no records: it is empty\. Expected"),
    ],
)
def test_other_folders_are_answered_with_what_was_seen(make, files, message):
    with pytest.raises(UserError, match=message):
        open_records(make(*files))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04\x14\0[Content_Types].xml", r'an Excel workbook\. Save it in Excel as "CSV UTF-8"'),
        (b"\x89PNG\r\n\x1a\n", r"one image\. Set data_dir to its folder"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"SQLite format 3\0", r"an SQLite database\. Export its table as CSV"),
        (b"\x80\x04\x95pickle", "a pickle, which could execute code"),
        (bytes(range(256)), "binary data of an unknown format"),
        (b"7z\xbc\xaf", r"an archive \(7z, rar or zstd\)\. Unpack it"),
    ],
)
def test_other_files_are_answered_with_what_was_seen(make, content, message):
    folder = make(("data", content))
    with pytest.raises(UserError, match=rf"data is not a table, but {message}"):
        open_records(folder / "data")


def test_damaged_files_are_named_by_their_extension(make):
    folder = make(("a.parquet", "x"), ("a.npy", "x"), ("a.tar", "x"))
    for name, message in [("a.parquet", "not a valid parquet file"), ("a.npy", "not a .npy file")]:
        with pytest.raises(UserError, match=rf"{name}.*{message}"):
            open_records(folder / name)
