"""Several datasets on MMF's main branch: epochs are complete, and ratios apply to the datasets of their names."""

import pytest
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from tests.compat.loaders import Numbers, Stream, loader
from tests.mmf_versions import MMF_VERSION, needs_main

if MMF_VERSION == "main":
    from mmf.datasets.iteration_strategies import RatiosIterationStrategy
    from mmf.datasets.lightning_multi_dataset_loader import LightningMultiDataLoader

pytestmark = [needs_main, pytest.mark.usefixtures("global_config")]


@pytest.mark.parametrize("sizes", [{"a": 3, "b": 3}, {"a": 1, "b": 7, "c": 3}])
def test_length_is_the_number_of_batches(sizes):
    train = loader("size_proportional", **sizes)
    assert len(train) == len(list(train)) == sum((size + 1) // 2 for size in sizes.values())


def test_length_uses_the_batch_size_of_each_loader():
    train = loader("round_robin", a=6, b=6)
    train.loaders["a"] = DataLoader(Numbers(6), batch_size=6)  # dataset_config.a.batch_size
    assert len(train) == 1 + 3


def test_length_of_an_iterable_dataset_is_not_counted():
    assert len(loader("round_robin", a=6, b=Stream())) == 3
    assert len(loader("constant", a=Stream())) == 0


def test_lightning_gets_no_length_for_an_iterable_dataset():
    train = loader("constant", a=Stream())
    with pytest.raises(TypeError):  # which Lightning handles
        len(LightningMultiDataLoader(train.loaders, train.iteration_strategy))


def test_every_epoch_of_three_datasets_is_complete():
    train = loader("size_proportional", a=2, b=2, c=2)
    for _ in range(20):  # the order is random
        assert sorted(batch.dataset_name for batch in train) == ["a", "b", "c"]


def test_endless_strategy_ends_at_an_empty_dataset():
    train = iter(loader("round_robin", a=2, b=Stream()))
    train.loaders["b"] = train.iterators["b"] = iter([])
    with pytest.raises(StopIteration):
        for _ in range(3):
            next(train)


def test_disabled_multitasking_ends_with_one_dataset():
    train = loader("constant", a=3, b=4)
    for _ in range(2):
        assert [batch.dataset_name for batch in train] == ["a", "a"]
    assert len(train) == 2


@pytest.mark.parametrize("order", ["a,b", "b,a"])
def test_ratios_are_assigned_by_name(order, global_config):
    global_config.datasets = order
    ratios = OmegaConf.create({"sampling_ratios": {"a": 1.0, "b": 0.0}})
    loaders = {name: DataLoader(Numbers(4)) for name in order.split(",")}
    strategy = RatiosIterationStrategy(ratios, loaders)
    assert {list(loaders)[strategy()] for _ in range(20)} == {"a"}
