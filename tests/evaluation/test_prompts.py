"""Prompts from what the installed packages ship, from files, and against a dataset's own classes."""

import json
from types import SimpleNamespace

import pytest

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation import prompts
from mmf_flava.evaluation.prompts import NAMES, by_name, fill, from_file


def filled(own=None, **section):
    datasets = {"test": {"pets": SimpleNamespace(classes=own)}}
    return fill(ZeroShotConfig("pets", **section), datasets)


def test_imagenet_is_clips():
    found = by_name("imagenet")
    assert (len(found.classes), len(found.templates)) == (1000, 80)
    assert found.classes[0] == "tench"
    assert "itap of a {}." in found.templates


def test_every_other_set_is_clip_benchmarks():
    assert by_name("flowers102").classes[0] == "pink primrose"
    assert by_name("cifar10").templates[0].format("cat") == "a photo of a cat."
    for name in NAMES:
        assert all(template.count("{}") == 1 for template in by_name(name).templates)


def test_names_that_no_package_ships_are_the_datasets_own():
    found = filled(["apple_pie", "a/abbey"], prompts="food101")
    assert found.classes == ["apple pie", "a abbey"]
    assert found.templates == ["a photo of {}, a type of food."]
    assert filled(["cat"], templates=["my {}"]).classes == ["cat"]
    with pytest.raises(UserError, match="no class names"):
        filled(None, prompts="food101")


def test_what_is_given_comes_first(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"classes": ["x", "y"], "templates": ["file {}"]}))
    found = filled(prompts="mnist", classes_file=str(file), templates=["given {}"])
    assert (found.classes, found.templates) == (["x", "y"], ["given {}"])
    assert filled(prompts="mnist", classes=["z"]).templates == by_name("mnist").templates


def test_a_package_is_not_asked_for_what_is_given(monkeypatch):
    monkeypatch.setattr(prompts, "find_spec", lambda module: None)
    assert filled(prompts="imagenet", classes=["z"], templates=["{}"]).classes == ["z"]


def test_a_file_of_lines(tmp_path):
    (tmp_path / "mine.txt").write_text("\ufeffa cat\n\n  a dog \n", encoding="utf-8")
    assert from_file(str(tmp_path / "mine.txt")).classes == ["a cat", "a dog"]


@pytest.mark.parametrize("content", ["[", "[1]", '{"classes": "cat"}', '{"classes": [1]}', "3"])
def test_a_file_that_is_none(tmp_path, content):
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(UserError, match=r"mine\.json is not"):
        from_file(str(tmp_path / "mine.json"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="correct the path"):
        from_file(str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("classes", "own", "words"),
    [
        (["cat"], ["cat", "dog", "cow"], r"1 classes, dataset 'pets' has 3: label 1 \('dog'\) has no class"),
        (["cat", "dog"], ["cat"], r"2 classes, dataset 'pets' has 1: no label 1 \('dog'\)"),
        (["cat", "dog", "cow"], ["cat", "Cow", "dog"], "class 1 is 'dog', which is label 2, class 2 is 'cow'"),
    ],
)
def test_classes_that_do_not_fit_the_labels(classes, own, words):
    with pytest.raises(UserError, match=words):
        filled(own, classes=classes, templates=["{}"])


def test_other_words_for_the_same_classes_fit():
    assert filled(["n01440764", "crane", "crane"], classes=["tench", "crane", "crane bird"]).classes[0] == "tench"


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="'mnist'"):
        by_name("mnits")


@pytest.mark.parametrize(("name", "wheel"), [("imagenet", "open_clip_torch"), ("mnist", "clip-benchmark")])
def test_a_missing_package_is_named(monkeypatch, name, wheel):
    monkeypatch.setattr(prompts, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=f"`pip install {wheel}`"):
        by_name(name)
