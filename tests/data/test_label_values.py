"""What labels in files mean: names, numbers, lists and missing values."""

import pytest

from mmf_flava.data.label_values import class_name, class_names_of, number, similar_names, sort_classes
from mmf_flava.data.own_labels import class_warnings


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (" a  cat ", "a cat"),
        (3, "3"),
        (3.0, "3"),
        (0.5, "0.5"),
        (True, "true"),
        (["x"], "x"),
        ("", None),
        (None, None),
        (float("nan"), None),
        ("café, noir", "café, noir"),
    ],
)
def test_class_name(value, name):
    assert class_name(value) == name


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}])
def test_a_label_of_several_classes_is_invalid(value):
    with pytest.raises(ValueError, match="must be one class"):
        class_name(value)


@pytest.mark.parametrize(
    ("value", "separator", "names"),
    [
        ("a, b,a", ",", ["a", "b"]),
        ("a b", " ", ["a", "b"]),
        ("a|b, c", "|", ["a", "b, c"]),
        (["a", 3, None], ",", ["a", "3"]),
        ('["a, x", "b"]', ",", ["a, x", "b"]),
        ("['a']", ",", ["a"]),
        ("[]", ",", []),
        ([], ",", []),
        ("", ",", None),
        (None, ",", None),
        (7, ",", ["7"]),
    ],
)
def test_class_names(value, separator, names):
    assert class_names_of(value, separator) == names


def test_a_text_that_is_no_list_is_invalid():
    with pytest.raises(ValueError, match="must be a list of classes"):
        class_names_of("[a, b", ",")


@pytest.mark.parametrize(
    ("value", "expected"), [("1.5", 1.5), (2, 2.0), ("", None), (None, None), (float("nan"), None)]
)
def test_number(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize("value", ["high", "inf", [1, 2]])
def test_invalid_number(value):
    with pytest.raises(ValueError, match="must be"):
        number(value)


def test_classes_are_sorted_by_value_or_name():
    assert sort_classes(["10", "2", "1", "2"]) == ["1", "2", "10"]
    assert sort_classes(["b", "10", "2"]) == ["10", "2", "b"]


def test_similar_names():
    assert similar_names(["Dog", "dog", "cat", "big cat", "big_cat", "3", "-3"]) == [
        ["Dog", "dog"],
        ["big cat", "big_cat"],
    ]
    assert similar_names(["1", "1.0", "-1", "2"]) == [["1", "1.0"]]


def test_texts_of_missing_values_are_mentioned():
    warnings = class_warnings(["NaN", "cat", "None"], 100)
    assert warnings == ["'NaN', 'None' is a class. If it means that there is no label, leave the label empty."]
    assert class_warnings(["cat", "nan bread"], 100) == []
