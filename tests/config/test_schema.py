"""A recipe's keys are strict, and every refusal names the key, its place and the near miss."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from mmf_flava.config.model import LOSSES, FlavaConfig
from mmf_flava.config.recipes import locate, recipe
from mmf_flava.config.schema import near_miss, parse
from mmf_flava.errors import UserError


def test_yaml_of_the_base_model_is_the_schemas_default():
    section = yaml.safe_load(Path(recipe("models/flava_base")).read_text())["model_config"]["flava"]
    assert dataclasses.asdict(parse(FlavaConfig, section, "model_config.flava")) == dataclasses.asdict(FlavaConfig())


def test_base_model_lists_all_six_losses():
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
def test_wrong_sections_are_refused_by_name(section, words):
    with pytest.raises(UserError) as error:
        parse(FlavaConfig, section, "model_config.flava")
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_near_miss_lists_what_is_known_where_nothing_is_close():
    assert near_miss("zzz", ["b", "a"]) == " Known here: a, b."


def test_locate_finds_recipes_only():
    assert Path(locate("projects/flava/configs/demo.yaml")).is_file()
    assert locate("projects/flava/configs/nothing.yaml") is None
    assert locate("setup.py") is None
