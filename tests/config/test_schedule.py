"""The number of updates of ``training.max_epochs``."""

import pytest
from omegaconf import OmegaConf

from mmf_flava.config.schedule import set_updates_of_epochs


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
    assert set_updates_of_epochs(config, {"train": {"0": range(3)}}) == []
    assert config.training.max_updates == 7
