"""Wishes that contradict each other are refused before anything is built."""

import pytest
from mmf.utils.configuration import get_default_config_path, load_yaml
from omegaconf import OmegaConf

from mmf_flava.errors import UserError
from mmf_flava.training.settings import read_settings


def recipe(**wishes):
    config = load_yaml(get_default_config_path())
    ours = {"model": "flava", "datasets": "pmd", "run_type": "train", "optimizer": {"type": "AdamW"}}
    config = OmegaConf.merge(config, ours, {"model_config": {"flava": {"compile": False}}})
    for key, value in wishes.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    return config


def test_fsdp_with_fp16_and_recomputed_activations_is_allowed():
    wishes = {"training__sharding": "fsdp", "training__precision": "fp16", "training__activation_checkpointing": True}
    settings = read_settings(recipe(**wishes))
    assert (settings.training.sharding, settings.training.precision) == ("fsdp", "fp16")


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"optimizer__type": "Adafactor"}, "Adafactor .* fsdp; use AdamW"),
        ({"model_config__flava__compile": True}, r"model_config\.flava\.compile: .* fsdp"),
    ],
)
def test_what_shards_cannot_do_is_refused(wish, words):
    read_settings(recipe(**wish))
    with pytest.raises(UserError, match=words):
        read_settings(recipe(training__sharding="fsdp", **wish))
