"""MMF's imdb files, read without executing pickled code."""

import numpy as np
import pytest
from PIL import Image

from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.record import BadRecord
from mmf_flava.data.records import open_records
from mmf_flava.errors import UserError
from tests.files.hostile_pickles import Canary


def test_imdb_is_read_as_its_entries(tmp_path):
    header = {"version": 1}
    row = {"image_id": 17, "image_path": "a b.jpg", "caption_tokens": np.array(["a", "cat"]), "label": np.int64(3)}
    other = {"image_id": 18, "image_name": "COCO_18", "caption_str": ["a dog"], "boxes": np.zeros((2, 4))}
    for name in ("a b.jpg", "COCO_18.jpg"):
        (tmp_path / name).touch()
    for rows in ([header, row, other], [row, other]):
        np.save(tmp_path / "im db.npy", np.array(rows, dtype=object), allow_pickle=True)
        reader = open_records(tmp_path / "im db.npy")
        assert [record.key for record in (reader[0], reader[1])] == ["a b.jpg", "COCO_18.jpg"] and len(reader) == 2
        assert parse_annotation(reader[0]) == (["a cat"], 3) and parse_annotation(reader[1])[0] == ["a dog"]


def test_entry_of_an_imdb_with_another_type_is_one_bad_record(tmp_path):
    rows = [{"image_id": 1, "image": b"1.png", "caption": "a"}, {"image_id": 2, "image": "2.png", "caption": "b"}]
    np.save(tmp_path / "imdb.npy", np.array(rows, dtype=object), allow_pickle=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "2.png")
    records = open_records(tmp_path / "imdb.npy")
    with pytest.raises(BadRecord, match="image"):
        records.read(0)
    assert sorted(records.read(1).fields) == ["json", "png"]


def test_pickled_code_in_an_imdb_is_not_executed(tmp_path):
    rows = [{"version": 1}, {"image_id": 1, "caption": Canary(tmp_path / "mark")}]
    np.save(tmp_path / "imdb.npy", np.array(rows, dtype=object), allow_pickle=True)
    with pytest.raises(
        UserError, match=r"imdb\.npy was not read, and nothing .* it contains an object of posix\.mkdir"
    ):
        open_records(tmp_path / "imdb.npy")
    assert not (tmp_path / "mark").exists()


def test_invalid_imdb_raises(tmp_path):
    for content, message in [
        (np.array([{"image_id": 1, "id": b"x"}], object), r"1 of 1 entries are invalid: entry 1 \(id must be a string"),
        (np.array([{"image_id": []}, 3], object), r"2 of 2 entries are invalid: .*entry 2 \(not a JSON object"),
        (np.array([[{"image_id": 1}]], object), "not an array of dictionaries"),
        (np.arange(3), "3 of 3 entries are invalid"),
    ]:
        np.save(tmp_path / "imdb.npy", content, allow_pickle=True)
        with pytest.raises(UserError, match=message):
            open_records(tmp_path / "imdb.npy")
    (tmp_path / "imdb.npy").write_bytes(b"x")
    with pytest.raises(UserError, match=r"imdb\.npy was not read.*it is not a \.npy file"):
        open_records(tmp_path / "imdb.npy")
