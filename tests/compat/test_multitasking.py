"""Several datasets in MMF's main branch: a pass over them is complete, and ratios mean the datasets that they name."""

import pytest
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from tests.compat.loaders import Numbers, Stream, loader
from tests.lines import LINE, needs_main

if LINE == "main":
    from mmf.datasets.iteration_strategies import RatiosIterationStrategy
    from mmf.datasets.lightning_multi_dataset_loader import LightningMultiDataLoader

pytestmark = [needs_main, pytest.mark.usefixtures("global_config")]


@pytest.mark.parametrize("sizes", [{"a": 3, "b": 3}, {"a": 1, "b": 7, "c": 3}])
def test_the_length_of_several_datasets_is_what_they_yield(sizes):
    train = loader("size_proportional", **sizes)
    assert len(train) == len(list(train)) == sum((size + 1) // 2 for size in sizes.values())


def test_the_length_is_that_of_the_loaders_themselves():
    train = loader("round_robin", a=6, b=6)
    train.loaders["a"] = DataLoader(Numbers(6), batch_size=6)  # dataset_config.a.batch_size
    assert len(train) == 1 + 3


def test_a_stream_has_no_length_of_its_own():
    assert len(loader("round_robin", a=6, b=Stream())) == 3
    assert len(loader("constant", a=Stream())) == 0


def test_lightning_is_told_that_a_stream_has_no_length():
    train = loader("constant", a=Stream())
    with pytest.raises(TypeError):  # what Lightning takes for an answer
        len(LightningMultiDataLoader(train.loaders, train.iteration_strategy))


def test_every_pass_over_three_datasets_is_complete():
    train = loader("size_proportional", a=2, b=2, c=2)
    for _ in range(20):  # the order is drawn
        assert sorted(batch.dataset_name for batch in train) == ["a", "b", "c"]


def test_an_endless_strategy_does_not_wait_for_an_empty_dataset():
    train = iter(loader("round_robin", a=2, b=Stream()))
    train.loaders["b"] = train.iterators["b"] = iter([])
    with pytest.raises(StopIteration):
        for _ in range(3):
            next(train)


def test_multitasking_turned_off_trains_on_one_dataset_and_ends():
    train = loader("constant", a=3, b=4)
    for _ in range(2):
        assert [batch.dataset_name for batch in train] == ["a", "a"]
    assert len(train) == 2


@pytest.mark.parametrize("order", ["a,b", "b,a"])
def test_ratios_go_by_name_not_by_order(order, global_config):
    global_config.datasets = order
    ratios = OmegaConf.create({"sampling_ratios": {"a": 1.0, "b": 0.0}})
    loaders = {name: DataLoader(Numbers(4)) for name in order.split(",")}
    strategy = RatiosIterationStrategy(ratios, loaders)
    assert {list(loaders)[strategy()] for _ in range(20)} == {"a"}
