"""The learning rate of a plan: peak, its update, and the last value."""

import pytest
from omegaconf import OmegaConf

import mmf_flava.plugin  # noqa: F401  registers the schedule
from mmf_flava.plan.learning_rate import plan_learning_rate
from mmf_flava.training.cosine_schedule import cosine_value


def config(name, **params):
    return OmegaConf.create(
        {
            "training": {"lr_scheduler": name is not None, "max_updates": 100},
            "optimizer": {"type": "AdamW", "params": {"lr": 0.5, "weight_decay": 0.04}},
            "scheduler": {"type": name, "params": {"num_training_steps": 100, **params}},
        }
    )


def test_without_schedule():
    rate = plan_learning_rate(config(None))
    assert (rate.peak, rate.peak_update, rate.last) == (0.5, 0, 0.5)


def test_schedule_of_mmf():
    rate = plan_learning_rate(config("warmup_linear", num_warmup_steps=20))
    assert (rate.peak, rate.peak_update) == (0.5, 20) and rate.last == pytest.approx(0.5 / 80)


def test_schedule_of_dino():
    rate = plan_learning_rate(config("flava_cosine", num_warmup_steps=20, min_lr=0.1, weight_decay_end=0.4))
    assert (rate.peak, rate.peak_update) == (0.5, 19)
    assert rate.last == cosine_value(99, 0.5, 0.1, 100, 20) > 0.1
