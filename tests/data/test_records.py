import os

import pytest

from mmf_flava.data.image_folder import ImageFolder
from mmf_flava.data.record import BadRecord
from mmf_flava.data.records import ConcatRecords, open_parts, open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.shards import ShardReader
from mmf_flava.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("dog/2.png", "cat/deep/1.JPG", "cat/note.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "images"


def shard(path):
    with ShardWriter(path) as writer:
        writer.write(path.stem, {"txt": b"x"})
    return path


def test_image_folder_reads_classes_and_images(folder):
    reader = ImageFolder(folder)
    assert reader.classes == ["cat", "dog"]
    assert reader[0].key == "cat/deep/1.JPG"
    assert reader[0].fields == {"jpg": b"cat/deep/1.JPG", "cls": b"0"}
    assert reader.read(1, only=("cls",)).fields == {"cls": b"1"}
    (folder / "dog/2.png").unlink()
    with pytest.raises(BadRecord):
        reader[1]


def test_classes_txt_sets_the_class_order(folder):
    (folder / "classes.txt").write_text("dog\ncat\n")
    assert ImageFolder(folder)[0].fields["cls"] == b"1"


def test_open_records_selects_the_reader_by_path(tmp_path, folder):
    (tmp_path / "tars").mkdir()
    paths = [shard(tmp_path / "tars" / name) for name in ("b.tar", "a.tar")]
    for path in (tmp_path / "tars", str(tmp_path / "tars/*.tar"), sorted(paths)):
        reader = open_records(path)
        assert isinstance(reader, ShardReader)
        assert [reader[n].key for n in range(2)] == ["a", "b"]
    assert isinstance(open_records(folder), ImageFolder)
    mixed = open_records([paths[0], folder, paths[1]])
    assert isinstance(mixed, ConcatRecords)
    assert not mixed.sequential
    assert [mixed.read(n).key for n in range(4)] == ["b", "cat/deep/1.JPG", "dog/2.png", "a"]
    with pytest.raises(IndexError):
        mixed.read(4)


def test_parts_are_the_records_of_each_path(tmp_path, folder):
    """Adjacent shards of all paths are opened by one reader. A part equals the records of its path alone."""
    (tmp_path / "two").mkdir()
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    shards = [shard(tmp_path / name) for name in ("a.tar", "two/b.tar", "two/c.tar", "d.tar")]
    paths = [shards[0], tmp_path / "two", tmp_path / "empty.tar", folder, shards[3]]
    records, parts = open_parts(paths)
    assert [type(reader) for reader in records.readers] == [ShardReader, ImageFolder, ShardReader]
    keys = [["a"], ["b", "c"], [], ["cat/deep/1.JPG", "dog/2.png"], ["d"]]
    assert [[part.read(n, ()).key for n in range(len(part))] for part in parts] == keys
    assert [records.read(n, ()).key for n in range(len(records))] == [key for part in keys for key in part]
    for path, part in zip(paths, parts, strict=True):
        if len(part):
            assert records_sha256(part) == records_sha256(open_records(path))
    assert isinstance(open_parts(paths[:2])[0], ShardReader)


def test_errors_name_the_path_and_the_expected_formats(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.*does not exist.*\.tar.*class folders"):
        open_records(tmp_path / "nowhere")
    (tmp_path / "captions.csv").touch()
    with pytest.raises(UserError, match=r"captions\.csv is not a table, but an empty file\."):
        open_records(tmp_path / "captions.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty.*\.tar.*png"):
        open_records([tmp_path / "empty"])
    with pytest.raises(UserError, match="No record paths"):
        open_records([])


def test_shards_without_records_raise(tmp_path):
    for name in ("a.tar", "b.tar"):
        with ShardWriter(tmp_path / name):
            pass
    with pytest.raises(UserError, match=r"a\.tar: the shards have no records"):
        open_records(tmp_path / "a.tar")
    with pytest.raises(UserError, match="no records"):
        open_records(tmp_path)
    shard(tmp_path / "c.tar")
    assert len(open_records(tmp_path)) == 1


def test_shards_with_upper_case_suffixes_are_found(tmp_path):
    """Also without the files that macOS adds to a folder."""
    for name in ("a.TAR", "b.tar"):
        shard(tmp_path / name)
    (tmp_path / "._a.TAR").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "._b.tar").write_bytes(b"\x00\x05\x16\x07")
    for path in (tmp_path, tmp_path / "*", [tmp_path / "a.TAR", tmp_path / "b.tar"]):
        records = open_records(path)
        assert [records.read(n).key for n in range(len(records))] == ["a", "b"]


@pytest.mark.parametrize("name", ["a.tar", "a.jsonl", "a.json", "a.npy"])
def test_pipes_are_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="not a regular file"):
        open_records(tmp_path / name)


def test_a_pipe_in_place_of_an_index_is_ignored(tmp_path):
    shard(tmp_path / "a.tar")
    (tmp_path / "a.tar.index").unlink()
    os.mkfifo(tmp_path / "a.tar.index")
    assert open_records(tmp_path / "a.tar").read(0).fields == {"txt": b"x"}
