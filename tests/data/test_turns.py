"""Whichever strategy chooses, its choice is the seed's and the step's."""

from collections import Counter

import numpy as np
import pytest
from mmf.common.registry import registry

from mmf_flava.config.run import MultitaskingConfig
from mmf_flava.data.turns import Turns
from mmf_flava.errors import UserError
from tests.lines import needs_main

DATASETS = {"a": range(30), "b": range(60), "c": range(10)}
pytestmark = pytest.mark.usefixtures("current_config")


def turns(type: str = "round_robin", seed: int = 0, enabled: bool = True, **params) -> Turns:
    return Turns(DATASETS, MultitaskingConfig(enabled, type, params), seed)


def ratios(a: float, b: float, c: float, seed: int = 0) -> Turns:
    return turns("ratios", seed, sampling_ratios={"a": a, "b": b, "c": c})


def spelt(turns: Turns, count: int) -> str:
    return "".join(turns.dataset_at(step) for step in range(count))


def test_round_robin():
    assert spelt(turns(), 7) == "abcabca"
    assert spelt(turns(start_idx=2), 4) == "cabc"


def test_ratios_draw_what_they_always_drew():
    """Runs that are resumed with another version, or on MMF's other line, go on with the same order."""
    assert spelt(ratios(0.70, 0.15, 0.15, seed=1), 40) == "abaaaabacbacccacabaacabbaaaaaaacaabaaaac"
    assert spelt(ratios(3, 1, 2, seed=7), 40) == "baacbacabbcaaccaacbcaacccaacccbcaccaacca"


def test_ratios_have_the_frequencies():
    drawn = Counter(spelt(ratios(0.70, 0.15, 0.15, seed=1), 4000))
    assert abs(drawn["a"] / 4000 - 0.7) < 0.03
    assert abs(drawn["b"] / 4000 - 0.15) < 0.02
    assert set(spelt(ratios(0, 3, 0), 100)) == {"b"}


def test_the_order_in_which_ratios_are_given_does_not_matter():
    swapped = turns("ratios", 1, sampling_ratios={"c": 0.1, "a": 0.7, "b": 0.2})
    assert spelt(swapped, 200) == spelt(ratios(0.7, 0.2, 0.1, seed=1), 200)


@pytest.mark.parametrize("make", [lambda: turns(start_idx=1), lambda: ratios(1, 2, 3, seed=5)])
def test_a_step_is_the_same_however_one_comes_to_it(make):
    whole, jumping = spelt(make(), 60), make()
    for step in (59, 58, 3, 3, 4, 41, 0, 59):
        assert jumping.dataset_at(step) == whole[step]


def test_numpys_generator_is_left_alone():
    np.random.seed(3)
    np.random.randn()  # of two normal numbers; the other one is kept for the next call
    state = str(np.random.get_state(legacy=False))
    generator = np.random.get_bit_generator()
    assert len(set(spelt(ratios(1, 1, 1), 20))) == 3
    assert np.random.get_bit_generator() is generator
    assert str(np.random.get_state(legacy=False)) == state
    first = np.random.randn()
    np.random.seed(3)
    assert np.random.randn(2)[1] == first


def test_a_strategy_that_fails_leaves_numpys_generator_too(monkeypatch):
    generator = np.random.get_bit_generator()
    monkeypatch.setattr(np.random, "choice", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ratios(1, 1, 1).dataset_at(0)
    assert np.random.get_bit_generator() is generator


@pytest.mark.parametrize("type", ["round_robin", "ratios"])
def test_one_dataset_alone_has_all_turns(type):
    assert spelt(turns(type, enabled=False), 5) == "aaaaa"
    assert turns(enabled=False).names == ["a"]
    alone = Turns({"b": DATASETS["b"]}, MultitaskingConfig(type=type))
    assert spelt(alone, 5) == "bbbbb"


def test_a_dataset_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"round_robin chose dataset 7 of a, b, c, which are 0 to 2"):
        turns(start_idx=7).dataset_at(0)


@needs_main
def test_all_strategies_of_mmf_choose():
    assert spelt(turns("constant", idx=1), 4) == "bbbb"
    drawn = spelt(turns("size_proportional", seed=1), 2000)
    assert [round(drawn.count(name) / 2000, 1) for name in "abc"] == [0.3, 0.6, 0.1]
    drawn = spelt(turns("random", seed=1), 2000)
    assert all(0.3 < drawn.count(name) / 2000 < 0.37 for name in "abc")
    assert drawn == spelt(turns("random", seed=1), 2000) != spelt(turns("random", seed=2), 2000)


@needs_main
def test_a_strategy_of_ones_own_counts_its_calls():
    from mmf.datasets.iteration_strategies import IterationStrategy

    @registry.register_iteration_strategy("growing_runs")
    class GrowingRuns(IterationStrategy):
        """a, then bb, then ccc, then aaaa."""

        def __init__(self, config, dataloaders, *args, **kwargs):
            super().__init__(config, dataloaders)
            self.run = self.done = 0

        def __call__(self):
            if self.done > self.run:
                self.run, self.done = self.run + 1, 0
            self.done += 1
            return self.run % len(self.dataloaders)

    assert spelt(turns("growing_runs"), 12) == "abbcccaaaabb"
    resumed = turns("growing_runs")
    assert "".join(resumed.dataset_at(step) for step in range(5, 12)) == "caaaabb"
