"""When the trainer calls ``plan_updates`` and ``start_update`` of a model, and with which numbers."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from mmf_flava.config.run import TrainingConfig
from mmf_flava.training import trainer
from mmf_flava.training.update import Updater
from tests.training.planned_training import PlannedToy, planned, update
from tests.training.toys import batch, toy


def test_calls_of_updates_of_several_batches_and_of_skipped_updates():
    trained = planned(precision="fp16")
    calls = trained.engine.model.calls
    assert calls == [(12, 1), 0]
    update(trained, 0)  # two batches
    assert calls[2:] == [0]
    trained.accumulate(batch("imagenet"), last=False)
    trained.discard()
    trained.precision.load_state_dict({"loss_scale": 2.0**40})
    trained.accumulate(batch("imagenet"))
    assert not trained.step()  # an overflow
    trained.precision.load_state_dict({"loss_scale": 128.0})
    update(trained, 1)
    update(trained, 2)
    assert calls[3:] == [1, 1, 1, 2]


def test_calls_of_a_resumed_run():
    """An evaluation before the next update uses the schedules of the last one, as in the uninterrupted run."""
    resumed = planned()
    resumed.load_schedule_state({"scheduler": {"last_epoch": 5}})
    assert resumed.engine.model.calls == [(12, 1), 0, 4]
    resumed.accumulate(batch("imagenet"))
    assert resumed.engine.model.calls[3:] == [5]
    again = planned()
    again.load_schedule_state({"scheduler": {"last_epoch": 0}})
    assert again.engine.model.calls == [(12, 1), 0]


def test_updates_per_epoch_are_given_to_the_model():
    model = toy(losses=("flava_mim",))
    model.__class__ = PlannedToy
    training = {"clip_gradients": False, "lr_scheduler": False, "max_updates": 12}
    config = OmegaConf.create({"training": training, "optimizer": {"type": "SGD", "params": {"lr": 0.1}}})
    Updater(model, config, TrainingConfig(), torch.device("cpu"), updates_per_epoch=3)
    assert model.calls == [(12, 3), 0]


def test_the_trainer_counts_complete_updates_of_all_datasets(monkeypatch):
    class Stop(Exception):
        pass

    def build(model, config, training, device, updates_per_epoch):
        assert updates_per_epoch == 4  # 17 // (2 * 2)
        raise Stop

    monkeypatch.setattr(trainer, "Updater", build)
    config = OmegaConf.create({"training": {"batch_size": 2, "update_frequency": 2, "max_updates": 9}})
    run = SimpleNamespace(
        settings=SimpleNamespace(training=TrainingConfig()),
        model=torch.nn.Linear(1, 1),
        config=config,
        device=torch.device("cpu"),
        data=SimpleNamespace(datasets={"train": {"a": range(10), "b": range(7)}, "val": {"a": range(99)}}),
    )
    with pytest.raises(Stop):
        trainer.FlavaTrainer._build_training(run)
