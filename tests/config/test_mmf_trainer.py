"""What MMF's own trainer cannot do is refused, and what it does not look at is named."""

import pytest
from omegaconf import OmegaConf

from mmf_flava.config.mmf_trainer import check_mmf_trainer, unread_keys
from mmf_flava.errors import UserError


@pytest.fixture
def config():
    return OmegaConf.create(
        {
            "datasets": "pmd,toys",
            "training": {"fp16": False, "precision": "fp32", "sharding": "none", "update_frequency": 4},
            "checkpoint": {"max_to_keep": 1, "background": False},
            "evaluation": {"losses": True, "zero_shot": None, "metrics": []},
            "dataset_config": {"pmd": {"length_buckets": 1, "max_bad_share": None}},
        }
    )


def test_one_process_in_fp32_is_what_it_does(config):
    check_mmf_trainer(config, processes=1, devices=1)
    assert unread_keys(config) == []


@pytest.mark.parametrize(
    ("section", "processes", "devices", "words"),
    [
        ({}, 2, 1, "2 processes"),
        ({}, 1, 8, "8 GPUs"),
        ({"fp16": True}, 1, 1, "training.fp16"),
        ({"precision": "bf16"}, 1, 1, "training.precision: bf16"),
        ({"sharding": "fsdp", "activation_checkpointing": True}, 1, 0, "sharding: fsdp, training.activation_checkp"),
    ],
)
def test_the_rest_is_refused_in_one_sentence(config, section, processes, devices, words):
    config.training.update(section)
    with pytest.raises(UserError, match=words) as found:
        check_mmf_trainer(config, processes, devices)
    assert "training.trainer: flava" in str(found.value)


def test_keys_that_say_something_to_our_trainer_alone_are_named(config):
    config.training.spike_sigma = 6.0
    config.training.wandb = {"enabled": True}
    config.checkpoint.background = True
    config.evaluation.zero_shot = {"dataset": "pmd"}
    config.dataset_config.pmd = {"length_buckets": 4, "max_bad_share": 0.01}
    expected = ["training.spike_sigma", "checkpoint.background", "evaluation.zero_shot"]
    assert unread_keys(config) == [*expected, "dataset_config.pmd.max_bad_share", "dataset_config.pmd.length_buckets"]
