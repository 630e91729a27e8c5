"""Unknown keys and wrong types raise an error with the key, its section and a suggestion."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from mmf_flava.config.model import LOSSES, FlavaConfig
from mmf_flava.config.recipes import locate_recipe, recipe_path
from mmf_flava.config.schema import parse_section, suggestion
from mmf_flava.errors import UserError


def test_yaml_of_the_base_model_equals_the_schema_defaults():
    section = yaml.safe_load(Path(recipe_path("models/flava_base")).read_text())["model_config"]["flava"]
    assert dataclasses.asdict(parse_section(FlavaConfig, section, "model_config.flava")) == dataclasses.asdict(
        FlavaConfig()
    )


def test_base_model_has_all_six_losses():
    assert [loss.type for loss in FlavaConfig().losses] == list(LOSSES)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"projektion_size": 3}, ["projektion_size", "of model_config.flava.", "'projection_size'"]),
        ({"image_encoder": {"hiden_size": 3}}, ["model_config.flava.image_encoder", "'hidden_size'"]),
        ({"losses": [{"tipe": "flava_mim"}]}, ["model_config.flava.losses", "'type'"]),
        ({"losses": [{"weight": 2}]}, ["losses[0].type", "must be given"]),
        ({"projection_size": "wide"}, ["projection_size", "wide"]),
    ],
)
def test_invalid_section_names_the_key(section, words):
    with pytest.raises(UserError) as error:
        parse_section(FlavaConfig, section, "model_config.flava")
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_suggestion_lists_the_known_names_without_a_close_match():
    assert suggestion("zzz", ["b", "a"]) == " Known names: a, b."


def test_locate_recipe_finds_only_recipes():
    assert Path(locate_recipe("projects/flava/configs/demo.yaml")).is_file()
    assert locate_recipe("projects/flava/configs/nothing.yaml") is None
    assert locate_recipe("setup.py") is None


def test_results_of_equal_sections_are_independent():
    first, second = (parse_section(FlavaConfig, {}, "model_config.flava") for _ in range(2))
    first.losses.pop()
    assert len(second.losses) == len(parse_section(FlavaConfig, {}, "model_config.flava").losses) == len(LOSSES)
