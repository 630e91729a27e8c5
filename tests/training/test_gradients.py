"""Clipping of each parameter by hand and on two processes; parameters that a model fixes in some updates."""

import copy
import itertools
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmf_flava.errors import UserError
from mmf_flava.training import gradients
from mmf_flava.training.gradients import clear_fixed_gradients, clip_each_gradient
from tests.processes import process_group, run_ranks
from tests.training.planned_training import (
    FIXED,
    FIXED_UPDATES,
    UPDATES,
    clipped_gradients,
    planned,
    train,
    train_and_resume,
)
from tests.training.toys import batch

PRECISIONS = ("fp32", "bf16", "fp16")
TOLERANCE = {"fp32": 2e-6, "bf16": 3e-2, "fp16": 2e-3}


def parameter(*gradient: float) -> nn.Parameter:
    value = nn.Parameter(torch.zeros(len(gradient)))
    value.grad = torch.tensor(gradient)
    return value


def test_clipping_by_hand() -> None:
    """Norms 5, 0.5, 0 and exactly 1; the published factor 1 / (norm + 1e-6) clips a norm of 1 as well."""
    unused = nn.Parameter(torch.zeros(2))
    parameters = [parameter(3.0, -4.0), unused, parameter(0.3, 0.4), parameter(0.0), parameter(), parameter(-1.0)]
    clip_each_gradient(parameters, 1.0, sharded=False)
    assert unused.grad is None
    found = [value.grad.tolist() for value in parameters if value.grad is not None]
    assert found[0] == pytest.approx([3 / 5.000001, -4 / 5.000001])
    assert found[1:4] == [torch.tensor([0.3, 0.4]).tolist(), [0.0], []]
    assert found[4] == [pytest.approx(-1 / 1.000001, abs=1e-7)] and found[4] != [-1.0]


def test_no_gradients() -> None:
    clip_each_gradient([nn.Parameter(torch.zeros(1))], 1.0, sharded=True)


def test_fixed_gradients_are_removed() -> None:
    model, parameters = nn.Linear(1, 1), {"a": parameter(1.0), "b": parameter(2.0)}
    clear_fixed_gradients(model, parameters, ["b"])
    assert parameters["a"].grad == 1.0 and parameters["b"].grad is None
    with pytest.raises(UserError, match=r"^Linear\.fixed_parameters returns c, but no trained parameter .* Remove it"):
        clear_fixed_gradients(model, parameters, ["a", "c"])
    assert parameters["a"].grad == 1.0


def norms(tensors: dict) -> dict[str, float]:
    return {name: value.norm().item() for name, value in tensors.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_parameter_is_clipped(precision: str) -> None:
    """Some norms exceed 1 and become 1; the others do not change. The norm of all gradients is not clipped."""
    unclipped = norms(clipped_gradients(max_norm=1e6, precision=precision))
    found = norms(clipped_gradients(precision=precision))
    clipped = {name for name, norm in unclipped.items() if norm > 1}
    assert 5 < len(clipped) < len([norm for norm in unclipped.values() if norm > 0])
    tolerance = 1e-4 if precision == "fp32" else 0.02
    for name, norm in unclipped.items():
        assert found[name] == pytest.approx(min(norm, 1.0), rel=tolerance, abs=1e-5), name
    assert sum(norm**2 for norm in found.values()) > 5
    total = norms(clipped_gradients(precision=precision, mode="all"))
    assert sum(norm**2 for norm in total.values()) == pytest.approx(1.0, rel=tolerance)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def check_fixed(states: list) -> None:
    """Fixed parameters have no moments and their initial weights; then their first step is counted as 1."""
    for number, state in enumerate(states):
        for name in FIXED:
            before = states[0]["weights"][name]
            assert torch.equal(state["weights"][name], before) is (number <= FIXED_UPDATES), (number, name)
            entry = state["moments"].get(name, {})
            assert entry.get("step", 0) == max(number - FIXED_UPDATES, 0)
    assert states[-1]["moments"]["flava.image_encoder.norm.weight"]["step"] == UPDATES


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fixed_parameters_do_not_change(precision: str) -> None:
    check_fixed(train(precision=precision))


def test_parameters_that_are_fixed_later_keep_their_moments() -> None:
    """Weights, moments and step counts of an update are unchanged to the bit in the next one."""
    trained = planned(scheduler=None)
    model = trained.engine.model
    trained.num_steps = FIXED_UPDATES  # no parameter is fixed
    trained.accumulate(batch("imagenet"))
    trained.step()
    weights = dict(zip(trained.engine.names.values(), trained.engine.names, strict=True))
    before = copy.deepcopy({name: (weights[name].data, trained.optimizer.state[weights[name]]) for name in FIXED})
    trained.num_steps = 0
    trained.accumulate(batch("imagenet", 1))
    assert model.calls[-1] == 0
    trained.step()
    for name, (weight, entry) in before.items():
        assert torch.equal(weights[name], weight) and same(trained.optimizer.state[weights[name]], entry)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("after", [1, 3])
def test_resumed_training_is_exact(precision: str, after: int) -> None:
    last = train(precision=precision)[-1]
    resumed, calls = train_and_resume(after, precision=precision)
    assert same(resumed["weights"], last["weights"]) and resumed["groups"] == last["groups"]
    assert resumed["moments"].keys() == last["moments"].keys()
    assert all(same(entry, last["moments"][name]) for name, entry in resumed["moments"].items())
    assert calls == [(12, 1), 0, after - 1, *range(after, UPDATES)]


def test_norm_is_without_fixed_parameters() -> None:
    trained, free = planned(), planned()
    free.num_steps = FIXED_UPDATES
    for updater in (trained, free):
        updater.accumulate(batch("imagenet"))
    weights = {free.engine.names[weight]: weight for weight in free.engine.weights}
    fixed = sum(weights[name].grad.double().square().sum() for name in FIXED)
    assert fixed > 0
    assert trained.squared_norm().item() == pytest.approx((free.squared_norm() - fixed).item(), rel=1e-5)


# ---------------------------------------------------------------------- two processes


def collectives(rows: slice) -> int:
    """Return the number of collectives for the clipping of all parameters with fsdp."""
    trained = planned(sharding="fsdp")
    trained.accumulate(batch("imagenet", 0, rows))
    with patch.object(gradients.distributed, "all_reduce", wraps=dist.all_reduce) as reduce:
        trained._clip_each()
    return reduce.call_count


def process(rank: int, folder: str) -> None:
    with process_group(rank, folder) as results:
        rows = slice(3 * rank, 3 * rank + 3)
        results |= {"collectives": collectives(rows)}
        for case in itertools.product(("ddp", "fsdp"), PRECISIONS):
            options = dict(zip(("sharding", "precision"), case, strict=True))
            results[case] = {
                "clipped": clipped_gradients(rows, **options),
                "states": train(rows, **options),
                "resumed": train_and_resume(1, rows, **options),
            }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("gradients"))
    run_ranks(process, (folder,), 2)
    return torch.load(f"{folder}/results")


CASES = [*itertools.product(("ddp", "fsdp"), PRECISIONS)]


def largest(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max((a[name].float() - b[name].float()).abs().max().item() for name in a)


def test_norms_of_all_slices_are_summed_at_once(both) -> None:
    assert both["collectives"] == 1


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_clipping_equals_one_process(both, case) -> None:
    single = clipped_gradients(precision=case[1])
    assert largest(both[case]["clipped"], single) < TOLERANCE[case[1]]
    assert max(norms(both[case]["clipped"]).values()) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_fixed_parameters_do_not_change_on_two_processes(both, case) -> None:
    check_fixed(both[case]["states"])
    single = train(precision=case[1])[-1]
    assert largest(both[case]["states"][-1]["weights"], single["weights"]) < TOLERANCE[case[1]]
    assert both[case]["states"][-1]["groups"] == single["groups"]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_resumed_training_is_exact_on_two_processes(both, case) -> None:
    resumed, calls = both[case]["resumed"]
    last = both[case]["states"][-1]
    assert same(resumed["weights"], last["weights"]) and resumed["groups"] == last["groups"]
    assert resumed["moments"].keys() == last["moments"].keys()
    assert all(same(entry, last["moments"][name]) for name, entry in resumed["moments"].items())
    assert calls == [(12, 1), 0, 0, *range(1, UPDATES)]
