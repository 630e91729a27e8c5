"""Tests of the epoch-based loaders for MMF's own training loops."""

import pytest
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.data.epochs import EpochSampler
from mmf_flava.data.imagenet import ImageNetBuilder
from mmf_flava.data.pmd import PMDBuilder
from mmf_flava.errors import UserError


@pytest.fixture
def running(config):
    """A function that registers the current configuration as MMF does, optionally resumed at ``iterations``."""

    def register(iterations=None):
        training = {"seed": 1, "batch_size": 100, "batch_size_per_device": None, "num_workers": 0, "pin_memory": False}
        registry.register("config", OmegaConf.merge(config, {"training": training}))
        if iterations is not None:
            registry.register("current_iteration", iterations)

    return register


def test_every_iteration_yields_the_next_epoch():
    epochs = EpochSampler(size=5, batch_size=2)
    assert len(epochs) == 3
    assert [list(epochs) for _ in range(3)] == [
        [[0, 1], [2, 3], [4]],
        [[5, 6], [7, 8], [9]],
        [[10, 11], [12, 13], [14]],
    ]


def test_processes_get_equal_numbers_of_positions():
    samplers = [EpochSampler(5, 2, rank, world_size=2) for rank in (0, 1)]
    assert [len(sampler) for sampler in samplers] == [2, 2]
    assert [list(sampler) for sampler in samplers] == [[[0, 2], [4]], [[1, 3], [5]]]
    assert [list(sampler) for sampler in samplers] == [[[5, 7], [9]], [[6, 8], [10]]]


@pytest.mark.parametrize(("iterations", "first"), [(0, 0), (1, 5), (2, 5), (3, 10), (50, 100)])
def test_resumed_run_starts_at_an_unused_epoch(running, iterations, first):
    """After n batches of 2, which may all come from this dataset, resume at the first epoch after 2 n samples."""
    running(iterations)
    assert next(iter(EpochSampler(5, 2)))[0] == first


def test_train_loader_reshuffles_and_other_splits_repeat(running, config, load):
    running()
    builder = ImageNetBuilder()
    section = config.dataset_config.imagenet
    train = builder.build_dataloader(builder.load_dataset(section, "train"), "train")
    names = [[name for batch in train for name in batch.sample_id] for _ in range(2)]
    assert len(names[0]) == len(train.dataset) and sorted(names[0]) == sorted(names[1]) and names[0] != names[1]
    val = builder.build_dataloader(builder.load_dataset(section, "val"), "val")
    first, second = ([(batch.sample_id, batch.image_patch_mask.tolist()) for batch in val] for _ in range(2))
    assert first == second
    dataset = val.dataset
    assert [name for names, _ in first for name in names] == [dataset[n].sample_id for n in range(len(dataset))]


def test_second_run_in_a_process_starts_at_the_first_epoch(running, config, load):
    """MMF's registry outlives a run. A resumed run registers its iteration after the loaders are built."""
    running(iterations=50)
    builder = ImageNetBuilder()
    dataset = builder.load_dataset(config.dataset_config.imagenet, "train")
    assert next(iter(builder.build_dataloader(dataset, "train").batch_sampler))[0] == 0
    resumed = builder.build_dataloader(dataset, "train")
    running(iterations=1)
    assert next(iter(resumed.batch_sampler))[0] > 0


def test_loader_uses_the_collate_function_of_the_dataset(running, config, load):
    running()
    builder = PMDBuilder()
    loader = builder.build_dataloader(builder.load_dataset(config.dataset_config.pmd, "val"), "val")
    batch = next(iter(loader))
    assert batch.input_ids.shape == batch.input_mask.shape and not batch.input_mask.all()
    assert (batch.dataset_name, batch.dataset_type) == ("pmd", "val")


def test_loader_of_an_unlisted_split_raises_an_error():
    with pytest.raises(UserError, match=r"dataset_config\.pmd\.splits\.val"):
        PMDBuilder().build_dataloader(None, "val")


def test_processes_keep_a_shard_open_for_each_of_their_lanes(running, config, load, monkeypatch):
    section, builder = config.dataset_config.imagenet, ImageNetBuilder()
    running()
    registry.get("config").training.lanes = 12
    kept = []
    for processes in (1, 4, 5):
        monkeypatch.setattr("mmf_flava.data.epochs.world_size", lambda processes=processes: processes)
        dataset = builder.load_dataset(section, "train")
        monkeypatch.setattr(dataset, "keep_open", lambda lanes, processes: kept.append((lanes, processes)))
        builder.build_dataloader(dataset, "train")
        assert dataset.order.lanes == 12
    assert kept == [(12, 1), (3, 4), (12, 5)]
