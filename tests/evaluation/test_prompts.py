"""Prompts from the installed packages and from files, and their check against a dataset's classes."""

import json
from types import SimpleNamespace

import pytest
from torchvision.datasets import MNIST, Flowers102

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation import prompts
from mmf_flava.evaluation.prompts import ALIASES, load_packaged_prompts, load_prompts_file, resolve_prompts


def resolve(label_names=None, **section):
    datasets = {"test": {"pets": SimpleNamespace(classes=label_names)}}
    return resolve_prompts(ZeroShotConfig("pets", **section), datasets)


def test_imagenet_has_clips_prompts():
    found = load_packaged_prompts("imagenet")
    assert (len(found.classes), len(found.templates)) == (1000, 80)
    assert found.classes[0] == "tench"
    assert "itap of a {}." in found.templates


def test_other_prompts_are_from_clip_benchmark():
    assert load_packaged_prompts("flowers102").classes[0] == "pink primrose"
    assert load_packaged_prompts("cifar10").templates[0].format("cat") == "a photo of a cat."
    for name in ALIASES:
        assert all(template.count("{}") == 1 for template in load_packaged_prompts(name).templates)


def test_missing_class_names_are_taken_from_the_dataset():
    found = resolve(["apple_pie", "a/abbey"], prompts="food101")
    assert found.classes == ["apple pie", "a abbey"]
    assert found.templates == ["a photo of {}, a type of food."]
    assert resolve(["cat"], templates=["my {}"]).classes == ["cat"]
    with pytest.raises(UserError, match="no class names"):
        resolve(None, prompts="food101")


def test_explicit_values_take_precedence(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"classes": ["x", "y"], "templates": ["file {}"]}))
    found = resolve(prompts="mnist", classes_file=str(file), templates=["given {}"])
    assert (found.classes, found.templates) == (["x", "y"], ["given {}"])
    assert resolve(prompts="mnist", classes=["z"]).templates == load_packaged_prompts("mnist").templates


def test_package_is_not_required_for_explicit_values(monkeypatch):
    monkeypatch.setattr(prompts, "find_spec", lambda module: None)
    assert resolve(prompts="imagenet", classes=["z"], templates=["{}"]).classes == ["z"]


def test_text_file_has_one_class_per_line(tmp_path):
    (tmp_path / "mine.txt").write_text("\ufeffa cat\n\n  a dog \n", encoding="utf-8")
    assert load_prompts_file(str(tmp_path / "mine.txt")).classes == ["a cat", "a dog"]


@pytest.mark.parametrize("content", ["[", "[1]", '{"classes": "cat"}', '{"classes": [1]}', "3"])
def test_invalid_json_file_raises(tmp_path, content):
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(UserError, match=r"mine\.json must be JSON"):
        load_prompts_file(str(tmp_path / "mine.json"))


def test_missing_file_raises(tmp_path):
    with pytest.raises(UserError, match="Check the path"):
        load_prompts_file(str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("classes", "label_names", "words"),
    [
        (["cat"], ["cat", "dog", "cow"], r"1 classes, but dataset 'pets' has 3: no class for label 1 \('dog'\)"),
        (["cat", "dog"], ["cat"], r"2 classes, but dataset 'pets' has 1: no label 1 \('dog'\)"),
        (["cat", "dog", "cow"], ["cat", "Cow", "dog"], "class 1 is 'dog', which is label 2, class 2 is 'cow'"),
    ],
)
def test_classes_that_do_not_match_the_labels_raise(classes, label_names, words):
    with pytest.raises(UserError, match=words):
        resolve(label_names, classes=classes, templates=["{}"])


def test_numbered_folders_need_classes_with_their_names():
    """The folders 5 to 14 are in alphabetical order: label 0 is 10."""
    folders = sorted(str(number) for number in range(5, 15))
    words = ["five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen"]
    for label_names in (folders, [f"class_{name}" for name in folders]):
        with pytest.raises(
            UserError, match=r"alphabetical order.*not their numeric order.*dataset_config\.pets\.classes"
        ):
            resolve(label_names, classes=words, templates=["{}"])
    with pytest.raises(UserError, match="not in the label order"):
        resolve(folders, classes=[str(number) for number in range(5, 15)], templates=["{}"])
    assert resolve(folders, classes=folders, templates=["{}"]).classes == folders
    listed = [str(number) for number in range(5, 15)]
    assert resolve(listed, classes=words, templates=["{}"]).classes == words
    assert resolve([f"{number:02}" for number in range(5, 15)], classes=words, templates=["{}"]).classes == words


def test_only_newlines_end_the_lines_of_a_class_file(tmp_path):
    (tmp_path / "mine.txt").write_bytes("a\u2028cat\r\nb\x0cdog\n".encode())
    assert load_prompts_file(str(tmp_path / "mine.txt")).classes == ["a\u2028cat", "b\x0cdog"]


def test_other_names_for_the_same_classes_are_accepted():
    assert resolve(["n01440764", "crane", "crane"], classes=["tench", "crane", "crane bird"]).classes[0] == "tench"


@pytest.mark.parametrize(("name", "label_names"), [("flowers102", Flowers102.classes), ("mnist", MNIST.classes)])
def test_packaged_class_names_are_in_torchvisions_order(name, label_names):
    """Three flowers have another spelling; a wrong order of any other class would raise."""
    assert len(resolve(label_names, prompts=name).classes) == len(label_names)
    if name == "flowers102":
        with pytest.raises(UserError, match="not in the label order"):
            resolve([*label_names[1:], label_names[0]], prompts=name)


def test_fer2013_classes_are_sorted():
    """CLIP_benchmark's folders and ``image_sets.catalogue`` use the same order."""
    classes = load_packaged_prompts("fer2013").classes
    assert classes == sorted(classes)


def test_unknown_prompts_raise():
    with pytest.raises(UserError, match="'mnist'"):
        load_packaged_prompts("mnits")


@pytest.mark.parametrize(("name", "wheel"), [("imagenet", "open_clip_torch"), ("mnist", "clip-benchmark")])
def test_missing_package_raises(monkeypatch, name, wheel):
    monkeypatch.setattr(prompts, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=f"`pip install {wheel}`"):
        load_packaged_prompts(name)
