"""How a path names a recipe, includes, and suggestions for missing files."""

import os
from pathlib import Path

import pytest

from mmf_flava.config.recipes import find_recipe, load_recipe
from mmf_flava.errors import UserError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


def load(path: str):
    return load_recipe(path, [os.getcwd()], [])


def test_includes_are_relative_to_the_recipe_and_override_in_order():
    write("sub/a.yaml", "x: 1\ny: 1\nz: {k: 1, l: 1}\n")
    write("sub/deep/b.yaml", "includes: [../a.yaml]\ny: 2\nz: {k: 2}\n")
    write("sub/c.yaml", "includes: [a.yaml, deep/b.yaml]\nz: {m: 3}\n")
    assert load("sub/c.yaml") == {"x": 1, "y": 2, "z": {"k": 2, "l": 1, "m": 3}}


@pytest.mark.parametrize("place", ["here.yaml", "sub/there.yaml"])
def test_shipped_recipe_can_be_included_from_any_folder(place):
    write(place, "includes: [projects/flava/configs/demo.yaml]\ntraining: {seed: 7}\n")
    config = load(place)
    assert config.model == "flava" and config.training.seed == 7 and config.training.max_updates


def test_home_folder(monkeypatch, folder):
    monkeypatch.setenv("HOME", str(folder / "home"))
    write("home/a.yaml", "includes: [~/b.yaml]\nx: 1\n")
    write("home/b.yaml", "y: 2\n")
    assert load("~/a.yaml") == {"x": 1, "y": 2}


def test_first_place_is_used(folder):
    write("one/a.yaml", "x: 1")
    write("two/a.yaml", "x: 2")
    assert find_recipe("a.yaml", [str(folder / "one"), str(folder / "two")]) == str(folder / "one/a.yaml")


def test_recipe_that_includes_itself_is_an_error():
    write("a.yaml", "includes: [a.yaml]\nx: 1\n")
    with pytest.raises(UserError, match=r"a\.yaml includes itself \(.*a\.yaml includes .*a\.yaml\)"):
        load("a.yaml")
    write("a.yaml", "includes: [sub/b.yaml]\n")
    write("sub/b.yaml", "includes: [../a.yaml]\n")
    with pytest.raises(UserError, match=r"a\.yaml includes itself \(.*a.yaml includes .*b\.yaml includes .*a\.yaml\)"):
        load("a.yaml")


@pytest.mark.parametrize("includes", ["b.yaml", "{b: 1}", "null", "[1]", "3"])
def test_includes_must_be_a_list_of_paths(includes):
    write("a.yaml", f"includes: {includes}\nx: 1\n")
    with pytest.raises(UserError, match=r"a\.yaml: includes must be a list of paths"):
        load("a.yaml")


def test_missing_include_is_an_error():
    write("a.yaml", "includes: [gone.yaml]\nx: 1\n")
    with pytest.raises(UserError, match=r"Config file gone\.yaml was not found in .*"):
        load("a.yaml")


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("projects/flava/configs/dmo.yaml", "projects/flava/configs/demo.yaml"),
        ("projects/flava/configs/finetune/cola.yaml", "projects/flava/configs/finetune/glue/cola.yaml"),
        ("demo.yaml", "projects/flava/configs/demo.yaml"),
        ("demo", "projects/flava/configs/demo.yaml"),
        ("my_recipe.yml", "my_recipe.yaml"),
        ("sub/exprt.yaml", "sub/expert.yaml"),
    ],
)
def test_missing_recipe_suggests_close_names(path, match):
    write("my_recipe.yaml", "x: 1")
    write("sub/expert.yaml", "x: 1")
    with pytest.raises(UserError, match=r"was not found .* Did you mean") as caught:
        load(path)
    assert match in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x: '${'", r"a\.yaml: x: '\$\{' is not a valid interpolation \("),
        ("x: {y: [1, {z: '${x'}]}", r"a\.yaml: x\.y\[1\]\.z: '\$\{x' is not a valid interpolation"),
        ("x: {y: {null: 1}}", r"a\.yaml: x\.y: a key is not valid \("),
        ("x: !!set {y, z}", r"a\.yaml: x: .* is not a valid value \("),
    ],
)
def test_invalid_value_is_an_error_with_file_and_key(text, message):
    write("a.yaml", text)
    with pytest.raises(UserError, match=message):
        load("a.yaml")
