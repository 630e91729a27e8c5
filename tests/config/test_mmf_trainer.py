"""Errors for options that MMF's own trainers do not support, and the keys that they ignore."""

import pytest
from omegaconf import OmegaConf

from mmf_flava.config.mmf_trainer import check_mmf_trainer, unread_keys
from mmf_flava.errors import UserError


@pytest.fixture
def config():
    return OmegaConf.create(
        {
            "model": "flava",
            "datasets": "pmd,toys",
            "training": {
                "trainer": "mmf",
                "fp16": False,
                "precision": "fp32",
                "sharding": "none",
                "update_frequency": 4,
            },
            "checkpoint": {"max_to_keep": 1, "background": False},
            "evaluation": {"losses": True, "zero_shot": None, "metrics": []},
            "dataset_config": {"pmd": {"length_buckets": 1, "max_bad_share": None}},
        }
    )


def test_one_process_in_fp32_is_supported(config):
    check_mmf_trainer(config, processes=1, devices=1)
    assert unread_keys(config) == []


@pytest.mark.parametrize(
    ("section", "processes", "devices", "message"),
    [
        ({}, 2, 1, "2 processes"),
        ({}, 1, 8, "8 GPUs"),
        ({"fp16": True}, 1, 1, "training.fp16"),
        ({"precision": "bf16"}, 1, 1, "training.precision: bf16"),
        ({"clip_norm_mode": "parameter"}, 1, 1, "does not support training.clip_norm_mode: parameter"),
        ({"sharding": "fsdp", "activation_checkpointing": True}, 1, 0, "sharding: fsdp, training.activation_checkp"),
    ],
)
def test_other_options_are_errors(config, section, processes, devices, message):
    config.training.update(section)
    with pytest.raises(UserError, match=message) as raised:
        check_mmf_trainer(config, processes, devices)
    assert "training.trainer: flava" in str(raised.value)


def test_rc10_cannot_pretrain(config):
    config.training.trainer = "base_trainer"
    with pytest.raises(UserError, match=r"training\.trainer: base_trainer cannot pretrain FLAVA\. Use .*: flava\."):
        check_mmf_trainer(config, processes=1, devices=1)


@pytest.mark.parametrize("trainer", ["mmf", "base_trainer"])
def test_other_models_run_on_several_processes_with_fp16(config, trainer):
    config.model = "flava_classification"
    config.training.update({"trainer": trainer, "fp16": True})
    check_mmf_trainer(config, processes=2, devices=2)


@pytest.mark.parametrize("section", [{"precision": "bf16"}, {"sharding": "fsdp"}, {"activation_checkpointing": True}])
def test_ignored_options_are_errors_for_every_model(config, section):
    config.model = "flava_classification"
    config.training.update(section)
    with pytest.raises(
        UserError, match=f"does not support training.{next(iter(section))}.* Use training.trainer: flava"
    ):
        check_mmf_trainer(config, processes=1, devices=1)


def test_keys_that_only_our_trainer_reads_are_listed(config):
    config.training.spike_sigma = 6.0
    config.training.wandb = {"enabled": True}
    config.checkpoint.background = True
    config.evaluation.zero_shot = {"dataset": "pmd"}
    config.dataset_config.pmd = {"length_buckets": 4, "max_bad_share": 0.01}
    expected = ["training.spike_sigma", "checkpoint.background", "evaluation.zero_shot"]
    assert unread_keys(config) == [*expected, "dataset_config.pmd.length_buckets"]
