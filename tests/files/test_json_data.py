"""Invalid JSON raises a ValueError with a short reason, whatever the bytes are."""

import io
import json
import math
import time

import pytest

from mmf_flava.files.json_data import iterate_array, parse_json, parse_object, read_object

INVALID = {
    "empty": b"",
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "digits": b"1" * 1_000_000,
    "not UTF-8": b'"\xff"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "cut UTF-16": b"\xff\xfe[",
    "NUL": b"\0" * 4096,
    "cut string": b'{"a": "' + b"b" * 1_000_000,
    "more than one value": b"{}{}",
    "comma": b"[1,]",
}


@pytest.mark.parametrize("data", INVALID.values(), ids=INVALID)
def test_invalid_json_raises_a_short_value_error(data):
    with pytest.raises(ValueError) as caught:
        parse_json(data)
    assert type(caught.value) is ValueError and caught.value.__context__ is None
    assert 0 < len(str(caught.value)) < 100


def test_text_is_as_invalid_as_bytes():
    for data in (b"", b"[" * 100_000, b"1" * 5_000):
        with pytest.raises(ValueError):
            parse_json(data.decode())


def test_values_are_those_of_json():
    assert parse_json('\ufeff{"a": [1, 2.5, null, true, "\u00e4"]}'.encode()) == {"a": [1, 2.5, None, True, "ä"]}
    assert parse_json('{"a": "ä"}'.encode("utf-16")) == parse_json("\ufeff" + '{"a": "ä"}') == {"a": "ä"}
    assert parse_json(b"1e999") == math.inf and math.isnan(parse_json(b"NaN"))
    assert parse_json(rb'"\udce9\u0000"') == "\udce9\0"
    assert parse_json(b"9" * 4300) == int("9" * 4300)


def test_an_object_is_required():
    with pytest.raises(ValueError, match="expected a JSON object, got list"):
        parse_object(b"[]")


def test_files_have_a_limit(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_object(path) == read_object(path, max_bytes=8) == {"a": 1}
    with pytest.raises(ValueError, match="more than 7 bytes"):
        read_object(path, max_bytes=7)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "b.json")


@pytest.mark.parametrize("size", [1, 3_000_000])
def test_elements_of_an_array_are_read_one_at_a_time(size):
    elements = [{"a": "b" * size}, 2.5, [None]]
    assert list(iterate_array(io.StringIO(f" {json.dumps(elements)}\n"))) == elements


@pytest.mark.parametrize("text", ["", "{}", '[{"a": 1}', '["a', "[1, " + "[" * 100_000])
def test_invalid_arrays_raise_value_error(text):
    with pytest.raises(ValueError, match=r"truncated|too deeply"):
        list(iterate_array(io.StringIO(text)))


def test_an_element_without_end_is_parsed_in_linear_time():
    start = time.process_time()
    with pytest.raises(ValueError, match="truncated"):
        list(iterate_array(io.StringIO('["' + "a" * 100_000_000)))
    assert time.process_time() - start < 5  # 1 MB at a time would take 100 times as long
