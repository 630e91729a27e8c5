"""Tests that the schedule of every iteration strategy is a pure function of the seed and the step."""

from collections import Counter

import numpy as np
import pytest
from mmf.common.registry import registry

from mmf_flava.compat import mmf_api
from mmf_flava.config.run import MultitaskingConfig
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.errors import UserError
from tests.mmf_versions import needs_main

DATASETS = {"a": range(30), "b": range(60), "c": range(10)}
pytestmark = pytest.mark.usefixtures("current_config")


def schedule(type: str = "round_robin", seed: int = 0, enabled: bool = True, **params) -> DatasetSchedule:
    return DatasetSchedule(DATASETS, MultitaskingConfig(enabled, type, params), seed)


def ratios(a: float, b: float, c: float, seed: int = 0) -> DatasetSchedule:
    return schedule("ratios", seed, sampling_ratios={"a": a, "b": b, "c": c})


def first_names(schedule: DatasetSchedule, count: int) -> str:
    return "".join(schedule.dataset_at(step) for step in range(count))


def test_round_robin():
    assert first_names(schedule(), 7) == "abcabca"
    assert first_names(schedule(start_idx=2), 4) == "cabc"


def test_ratios_produce_the_recorded_sequences():
    """Runs resumed with another version of this package or of MMF must continue with the same order."""
    assert first_names(ratios(0.70, 0.15, 0.15, seed=1), 40) == "abaaaabacbacccacabaacabbaaaaaaacaabaaaac"
    assert first_names(ratios(3, 1, 2, seed=7), 40) == "baacbacabbcaaccaacbcaacccaacccbcaccaacca"


def test_ratios_match_the_sampling_frequencies():
    counts = Counter(first_names(ratios(0.70, 0.15, 0.15, seed=1), 4000))
    assert abs(counts["a"] / 4000 - 0.7) < 0.03
    assert abs(counts["b"] / 4000 - 0.15) < 0.02
    assert set(first_names(ratios(0, 3, 0), 100)) == {"b"}


def test_order_of_sampling_ratios_does_not_matter():
    swapped = schedule("ratios", 1, sampling_ratios={"c": 0.1, "a": 0.7, "b": 0.2})
    assert first_names(swapped, 200) == first_names(ratios(0.7, 0.2, 0.1, seed=1), 200)


@pytest.mark.parametrize("make", [lambda: schedule(start_idx=1), lambda: ratios(1, 2, 3, seed=5)])
def test_dataset_of_a_step_does_not_depend_on_the_access_order(make):
    expected, random_access = first_names(make(), 60), make()
    for step in (59, 58, 3, 3, 4, 41, 0, 59):
        assert random_access.dataset_at(step) == expected[step]


def test_numpy_generator_is_restored():
    np.random.seed(3)
    np.random.randn()  # generates two normal numbers and caches the second
    state = str(np.random.get_state(legacy=False))
    generator = np.random.get_bit_generator()
    assert len(set(first_names(ratios(1, 1, 1), 20))) == 3
    assert np.random.get_bit_generator() is generator
    assert str(np.random.get_state(legacy=False)) == state
    first = np.random.randn()
    np.random.seed(3)
    assert np.random.randn(2)[1] == first


def test_numpy_generator_is_restored_after_an_error(monkeypatch):
    generator = np.random.get_bit_generator()
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ratios(1, 1, 1).dataset_at(0)
    assert np.random.get_bit_generator() is generator


@pytest.mark.parametrize("type", ["round_robin", "ratios"])
def test_single_dataset_is_used_at_every_step(type):
    assert first_names(schedule(type, enabled=False), 5) == "aaaaa"
    assert schedule(enabled=False).names == ["a"]
    single = DatasetSchedule({"b": DATASETS["b"]}, MultitaskingConfig(type=type))
    assert first_names(single, 5) == "bbbbb"


def test_invalid_dataset_index_raises_an_error():
    with pytest.raises(UserError, match=r"round_robin returned dataset index 7, expected 0 to 2 \(a, b, c\)"):
        schedule(start_idx=7).dataset_at(0)


@pytest.mark.parametrize("make", [lambda: schedule(start_idx=1), lambda: ratios(1, 2, 3, seed=5)])
def test_distant_steps_need_few_calls(make, monkeypatch):
    """The steps of a resumed run are those of an uninterrupted one, which calls the strategy for each step."""
    uninterrupted, resumed, calls = make(), make(), []
    expected = first_names(uninterrupted, 1003)
    build = mmf_api.build_iteration_strategy

    def count(*arguments):
        strategy = build(*arguments)
        original = type(strategy).__call__
        monkeypatch.setattr(type(strategy), "__call__", lambda self: calls.append(0) or original(self))
        return strategy

    monkeypatch.setattr(mmf_api, "build_iteration_strategy", count)
    assert "".join(resumed.dataset_at(step) for step in range(990, 1003)) == expected[990:]
    assert len(calls) <= 13 + 2


@needs_main
def test_all_mmf_strategies_are_supported():
    assert first_names(schedule("constant", idx=1), 4) == "bbbb"
    names = first_names(schedule("size_proportional", seed=1), 2000)
    assert [round(names.count(name) / 2000, 1) for name in "abc"] == [0.3, 0.6, 0.1]
    names = first_names(schedule("random", seed=1), 2000)
    assert all(0.3 < names.count(name) / 2000 < 0.37 for name in "abc")
    assert names == first_names(schedule("random", seed=1), 2000) != first_names(schedule("random", seed=2), 2000)


@needs_main
def test_custom_strategy_may_count_its_calls():
    from mmf.datasets.iteration_strategies import IterationStrategy

    @registry.register_iteration_strategy("growing_runs")
    class GrowingRuns(IterationStrategy):
        """A strategy that returns a, bb, ccc, aaaa, bbbbb, ..."""

        def __init__(self, config, dataloaders, *args, **kwargs):
            super().__init__(config, dataloaders)
            self.run_index = self.position = 0

        def __call__(self):
            if self.position > self.run_index:
                self.run_index, self.position = self.run_index + 1, 0
            self.position += 1
            return self.run_index % len(self.dataloaders)

    assert first_names(schedule("growing_runs"), 12) == "abbcccaaaabb"
    resumed = schedule("growing_runs")
    assert "".join(resumed.dataset_at(step) for step in range(5, 12)) == "caaaabb"
