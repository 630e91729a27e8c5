"""Captions and labels as strings, lists, null, missing, booleans, fractions, numbers as words and infinities."""

import json
import math

import pytest

from mmf_flava.data.annotations import parse_annotation, parse_label, read_label, to_captions, to_label, to_texts
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.record import BadRecord, Record
from mmf_flava.data.records import open_records
from mmf_flava.data.shard_writer import ShardWriter

CLASSES = {"cat": 0, "5": 1, "14": 2}


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("a red box", ["a red box"]),
        (["a red box", " two\0words ", "", None, "  "], ["a red box", "two words"]),
        (("a", math.nan), ["a"]),
        (None, []),
        (math.nan, []),
        ([], []),
        ("half \ud83d", ["half"]),
    ],
)
def test_a_text_is_one_text_and_a_list_is_its_items(value, texts):
    assert to_texts(value) == texts


@pytest.mark.parametrize("value", [3, 2.5, True, {"raw": "a"}, ["a", 7], [["a"]], math.inf, [True]])
def test_other_captions_raise(value):
    with pytest.raises(ValueError, match="captions must be a string or a list of strings, got"):
        to_texts(value)


@pytest.mark.parametrize(
    ("data", "captions"),
    [
        ({"captions": "a red box"}, ["a red box"]),
        ({"captions": [], "caption": "b"}, ["b"]),
        ({"captions": [None, ""], "caption": None, "text": ["c", "d"]}, ["c", "d"]),
        ({"caption_tokens": ["a", "cat"]}, ["a cat"]),
        ({"caption_tokens": "a cat"}, ["a cat"]),
        ({}, []),
    ],
)
def test_first_key_with_captions_is_used(data, captions):
    assert to_captions(data) == captions


@pytest.mark.parametrize(
    ("value", "label"),
    [
        *[(3, 3), (3.0, 3), (" 14 ", 2), ("cat", 0), ("5", 1), ("14", 2), (5, 5)],
        *[(None, -1), (math.nan, -1), ("", -1), (-1, -1), ("-1", -1), (-1.0, -1)],
    ],
)
def test_labels_are_numbers_or_class_names(value, label):
    assert to_label(value, CLASSES) == label


@pytest.mark.parametrize("class_numbers", [None, {}, {"cat": 0, "5th": 1}])
def test_digits_are_a_class_number_where_no_class_name_has_only_digits(class_numbers):
    assert [to_label(value, class_numbers) for value in ("3", " 7 ")] == [3, 7]


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        2.5,
        math.inf,
        -math.inf,
        -2,
        2**31,
        2**63,
        1e300,
        "dog",
        "3.0",
        "1_0",
        "\u0663",
        "9" * 5000,
        [3],
        {},
    ],
)
def test_other_labels_raise(value):
    with pytest.raises(ValueError, match="label"):
        to_label(value, CLASSES)


def test_class_names_need_class_numbers():
    assert to_label("5") == 5
    with pytest.raises(ValueError, match="label must be a class number, got 'cat'"):
        to_label("cat")


def record(**fields):
    return Record("x", {name: value if isinstance(value, bytes) else value.encode() for name, value in fields.items()})


@pytest.mark.parametrize(
    "label", ['"red"', "null", "true", "2.5", "NaN", "Infinity", "[1]", "9223372036854775808", '""']
)
def test_unusable_labels_keep_the_pair(label):
    assert parse_annotation(record(json=f'{{"caption": "a red box", "label": {label}}}')) == (["a red box"], -1)


def test_captions_of_records():
    assert parse_annotation(record(json='{"captions": "a red box"}')) == (["a red box"], -1)
    assert parse_annotation(record(json='{"label": "3"}', txt="\ufeffa cat\n")) == (["a cat"], 3)
    assert parse_annotation(record(json='{"text": "other"}', txt="a cat")) == (["a cat"], -1)
    assert parse_annotation(record(json='{"text": "a cat"}')) == (["a cat"], -1)
    for fields in (
        {"json": "[]"},
        {"json": "["},
        {"json": '{"caption": 3}'},
        {"txt": b"\xff"},
        {"json": "[" * 100_000},
    ):
        with pytest.raises(BadRecord, match="x: unreadable caption"):
            parse_annotation(record(**fields))


def test_labels_of_records():
    assert read_label(record(cls="17")) == 17
    assert read_label(record(cls="5"), CLASSES) == 5, "cls is a class number, also of classes with numeric names"
    assert read_label(record(cls="cat\n"), CLASSES) == 0
    assert read_label(record(json='{"label": "5"}'), CLASSES) == 1
    assert read_label(record(json='{"label": 5}'), CLASSES) == 5
    assert read_label(record(json='{"label": "5"}'), {"cat": 0}) == 5
    assert read_label(record(json='{"label": "-1"}'), CLASSES) == -1
    with pytest.raises(BadRecord, match=r"label must be a class name, because class names are digits, got '7'"):
        read_label(record(json='{"label": "7"}'), CLASSES)
    assert read_label(record(json="{}")) == read_label(record(txt="x")) == -1
    for fields in ({"cls": "dog"}, {"json": '{"label": true}'}, {"json": "["}, {"cls": b"\xff"}):
        with pytest.raises(BadRecord, match="x: unreadable label"):
            read_label(record(**fields), CLASSES)
        assert parse_label(record(**fields), CLASSES) == -1


@pytest.mark.parametrize("label", ["red", None, True, 2.5, "2", 2, 2.0])
@pytest.mark.parametrize("captions", ["a red box", ["a red box"]])
def test_lists_and_shards_are_read_alike(tmp_path, captions, label):
    data = {"captions": captions, "label": label}
    with ShardWriter(tmp_path / "a.tar") as shard:
        shard.write("1", {"json": json.dumps(data).encode()})
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "1.jpg", **data}) + "\n")
    (tmp_path / "1.jpg").touch()
    expected = (["a red box"], 2 if label in (2, "2") else -1)
    for name in ("a.tar", "a.jsonl"):
        assert parse_annotation(open_records(tmp_path / name).read(0, ["json"])) == expected


def test_labels_of_lists_have_their_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image": "1"}\n\n{"image": "2", "label": "cat"}\n')
    (tmp_path / "1").touch()
    assert list(ImageList(tmp_path / "a.jsonl").read_labels()) == [("line 1", None), ("line 3", "cat")]
