"""The number of updates of ``training.max_epochs``."""

import pytest
from omegaconf import OmegaConf

from mmf_flava.config.schedule import depends_on_data, schedule_warning, set_updates_of_epochs, updates_per_epoch


@pytest.mark.parametrize(
    ("epochs", "sizes", "batch_size", "update_frequency", "updates"),
    [(1, [10], 4, 1, 3), (3, [10], 4, 1, 8), (2, [10, 7], 4, 3, 3), (5, [8], 8, 1, 5), (1, [3], 4, 2, 1)],
)
def test_epochs_set_the_updates_and_the_schedule(epochs, sizes, batch_size, update_frequency, updates):
    training = {"max_epochs": epochs, "max_updates": 22000, "batch_size": batch_size, "lr_scheduler": True}
    training |= {} if update_frequency == 1 else {"update_frequency": update_frequency}
    schedule = {"num_warmup_steps": 1000, "num_training_steps": "${training.max_updates}"}
    run = {"run_type": "train", "optimizer": {"params": {"lr": 1.0}}}
    config = OmegaConf.create(run | {"training": training, "scheduler": {"params": schedule}})
    train = {str(number): range(size) for number, size in enumerate(sizes)}
    message, warning = set_updates_of_epochs(config, {"train": train, "val": {"0": range(100)}})
    assert message == f"training.max_epochs: {epochs} epochs are {updates} updates."
    assert f"num_warmup_steps: 1000 is not less than training.max_updates, {updates}." in warning
    assert config.training.max_updates == config.scheduler.params.num_training_steps == updates


def test_without_epochs_the_updates_stay():
    config = OmegaConf.create({"training": {"max_epochs": None, "max_updates": 7}})
    assert not depends_on_data(config)
    assert set_updates_of_epochs(config, {"train": {"0": range(3)}}) == []
    assert config.training.max_updates == 7


def cosine(lr=0.5, max_updates=20, **params):
    training = {"max_epochs": None, "max_updates": max_updates, "batch_size": 4, "lr_scheduler": True}
    section = {"type": "flava_cosine", "params": {"num_training_steps": max_updates, **params}}
    run = {"run_type": "train", "optimizer": {"params": {"lr": lr}}}
    return OmegaConf.create(run | {"training": training, "scheduler": section})


@pytest.mark.parametrize(
    ("sizes", "batch_size", "update_frequency", "updates"),
    [([10], 4, 1, 2), ([8], 4, 1, 2), ([10, 7], 4, 1, 4), ([10, 7], 4, 2, 2), ([3], 4, 1, 1)],
)
def test_an_epoch_has_complete_updates(sizes, batch_size, update_frequency, updates):
    config = OmegaConf.create({"training": {"batch_size": batch_size, "update_frequency": update_frequency}})
    assert updates_per_epoch(config, sizes) == updates
    config = cosine(warmup_epochs=3)
    config.training.update(batch_size=batch_size, update_frequency=update_frequency)
    OmegaConf.set_struct(config, True)
    messages = set_updates_of_epochs(config, {"train": {str(n): range(size) for n, size in enumerate(sizes)}})
    assert messages == [f"scheduler.params.warmup_epochs: 3 epochs are {3 * updates} updates."]
    assert config.scheduler.params.num_warmup_steps == 3 * updates and depends_on_data(config)
    assert config.training.max_updates == 20


@pytest.mark.parametrize("change", [{"scheduler": {"type": "warmup_cosine"}}, {"training": {"lr_scheduler": False}}])
def test_warmup_epochs_of_other_schedules_are_not_set(change):
    config = OmegaConf.merge(cosine(warmup_epochs=3), change)
    assert set_updates_of_epochs(config, {"train": {"0": range(10)}}) == [] and not depends_on_data(config)
    assert "num_warmup_steps" not in config.scheduler.params


def test_epochs_of_run_and_warmup():
    config = cosine(warmup_epochs=2)
    config.training.max_epochs = 1
    messages = set_updates_of_epochs(config, {"train": {"0": range(10)}})
    assert messages[:2] == [
        "training.max_epochs: 1 epochs are 3 updates.",
        "scheduler.params.warmup_epochs: 2 epochs are 4 updates.",
    ]
    assert messages[2].startswith("Warning: scheduler.params.num_warmup_steps: 4 is not less than")
    assert "at most 0.333 instead of 0.5" in messages[2]  # in the last update: 0.5 * 2 / 3


def test_the_warmup_of_dino_ends_with_the_full_rate():
    assert schedule_warning(cosine(num_warmup_steps=20)) is None
    warning = schedule_warning(cosine(num_warmup_steps=21))
    assert "num_warmup_steps: 21 is not less than training.max_updates, 20." in warning
    assert "reaches at most 0.475 instead of 0.5" in warning


def test_a_minimum_above_the_rate_is_a_warning():
    warning = schedule_warning(cosine(lr=1e-6, min_lr=2e-6))
    assert warning.startswith("scheduler.params.min_lr: 2e-06 is above optimizer.params.lr, 1e-06.")
    assert schedule_warning(cosine(lr=1e-6, min_lr=1e-6)) is None
