"""FSDP on two gloo processes compared with one process; each process gets three of the six samples of a batch."""

import copy
import itertools
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist

from mmf_flava.training.fsdp import FsdpEngine
from mmf_flava.training.update_losses import UpdateLosses
from tests.processes import process_group, run_ranks
from tests.training import averaged_training
from tests.training.loss_subsets import SUBSETS, changed_unused, largest_differences, train_subset
from tests.training.test_update import BOUNDS, PRECISIONS, saved_logit_scales
from tests.training.toys import batch, toy, updater

KINDS = ("pmd", "imagenet", "ccnews_bookcorpus")


def train(trained, first, last, rows=slice(None), frequency=1):
    """Train these updates, alternating between the kinds of batches, and return the losses."""
    losses = []
    for number in range(first, last):
        batches = [batch(KINDS[number % 3], 10 * number + step, rows) for step in range(frequency)]
        update = UpdateLosses(trained.engine.model, batches, torch.device("cpu"))
        for samples in batches:
            step_losses = trained.accumulate(samples, samples is batches[-1], update)
            losses.append(torch.stack(list(step_losses.values())))
        assert trained.step()
    return losses


def mean_over_ranks(losses):
    for value in losses:
        dist.all_reduce(value)
        value /= 2
    return losses


def train_sgd(rows):
    """Train with SGD, because Adam amplifies rounding errors of small gradients."""
    trained = updater(toy(), optimizer="SGD", lr=0.1, clip=0.5, sharding="fsdp")
    losses = mean_over_ranks(train(trained, 0, 9, rows))
    embeddings = trained.engine.evaluated.eval().encode_image(batch("pmd")["image"])
    num_local = sum(weight.numel() for weight in trained.engine.weights)
    return {
        "losses": losses,
        "weights": trained.model_state(),
        "embeddings": embeddings.detach(),
        "num_local": num_local,
    }


def train_with_activation_checkpointing(rows):
    """Train with activation checkpointing; the result is bit-identical."""
    trained = updater(toy(), optimizer="SGD", lr=0.1, clip=0.5, sharding="fsdp", activation_checkpointing=True)
    train(trained, 0, 9, rows)
    return {"weights": trained.model_state()}


def train_with_gradient_accumulation(rows):
    """Train with three batches per update, and count the reductions of gradients."""
    from fairscale.internal import reduce_scatter_bucketer as bucketer

    calls, reduce = [], bucketer.dist._reduce_scatter_base

    def count(output, input, group=None):
        calls.append(len(output))
        return reduce(output, input, group=group)

    bucketer.dist._reduce_scatter_base = count
    counts = {}
    for frequency in (1, 3):
        trained = updater(toy(), optimizer="SGD", sharding="fsdp")
        calls.clear()
        train(trained, 0, 3, rows, frequency)
        counts[frequency] = len(calls)
    bucketer.dist._reduce_scatter_base = reduce
    return {"weights": trained.model_state(), "calls": counts}


def train_and_resume(rows, precision):
    """Train 4 + 4 updates with AdamW, uninterrupted and resumed from the saved state."""
    options = {"clip": 1.0, "sharding": "fsdp", "precision": precision}
    uninterrupted = updater(toy(), **options)
    if precision == "fp16":
        uninterrupted.precision.load_state_dict({"loss_scale": 128.0})
    train(uninterrupted, 0, 4, rows)
    weights, moments = uninterrupted.model_state(), uninterrupted.state_dict()
    schedule = uninterrupted.schedule_state()
    train(uninterrupted, 4, 8, rows)
    saved = copy.deepcopy([weights, moments])  # the state is on the first process, as it is when read from a file
    dist.broadcast_object_list(saved)
    resumed = updater(toy(saved[0]), **options)
    resumed.load_state_dict(saved[1])
    resumed.load_schedule_state(schedule)
    reloaded = copy.deepcopy([resumed.model_state(), resumed.state_dict()["state"]])
    train(resumed, 4, 8, rows)
    states = {"uninterrupted": uninterrupted.model_state(), "resumed": resumed.model_state()}
    return {"saved": weights, "moments": moments, "reloaded": reloaded, **states}


def train_unevenly(rows):
    """Train updates of two batches of different kinds: FSDP does not reduce units that only the first batch uses."""
    trained = updater(toy(), optimizer="SGD", lr=0.1, clip=0.5, sharding="fsdp" if rows.stop else "none")
    for number in range(3):
        for step in range(2):
            trained.accumulate(batch(KINDS[(number + step) % 3], 10 * number + step, rows), last=step == 1)
        assert trained.step()
    return trained.model_state()


def train_one_batch(rows, precision):
    trained = updater(toy(), clip=1.0, sharding="fsdp", precision=precision)
    losses = []
    while len(losses) < 30:
        step_losses = trained.accumulate(batch("pmd", 0, rows))
        if trained.step():
            losses.append(sum(step_losses.values()))
    return mean_over_ranks(losses)


def process(rank: int, folder: str) -> None:
    with process_group(rank, folder) as results:
        rows = slice(3 * rank, 3 * rank + 3)
        results |= {
            "sgd": train_sgd(rows),
            "checkpointing": train_with_activation_checkpointing(rows),
            "accumulation": train_with_gradient_accumulation(rows),
            "fp32": train_and_resume(rows, "fp32"),
            "fp16": train_and_resume(rows, "fp16"),
            "uneven": train_unevenly(rows),
            "subsets": {losses: train_subset(losses, rows, sharding="fsdp") for losses in SUBSETS[::6]},
            "scales": {
                case: saved_logit_scales(*case, rows) for case in itertools.product(("ddp", "fsdp"), PRECISIONS)
            },
            "averages": {
                name: averaged_training.train_and_resume(Path(folder, name), rows, optimizer="SGD", sharding=name)
                for name in ("ddp", "fsdp")
            },
            "one batch": {precision: train_one_batch(rows, precision) for precision in ("fp16", "bf16")},
        }


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("fsdp"))
    run_ranks(process, (folder,), 2)
    return torch.load(f"{folder}/results")


def differences(a, b, limit=0.0):
    """Return the maximum absolute differences of two state dicts that exceed ``limit``."""
    assert a.keys() == b.keys()
    return {key: d for key in a if (d := (a[key].float() - b[key].float()).abs().max().item()) > limit}


def test_two_processes_equal_one_process(sharded):
    model = toy()
    single = updater(model, optimizer="SGD", lr=0.1, clip=0.5)
    losses = train(single, 0, 9)
    found = sharded["sgd"]
    for actual, expected in zip(found["losses"], losses, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)
    assert not differences(found["weights"], single.model_state(), 1e-6)
    assert differences(found["weights"], toy().state_dict(), 1e-2)
    torch.testing.assert_close(found["embeddings"], model.eval().encode_image(batch("pmd")["image"]), rtol=0, atol=1e-5)
    assert found["num_local"] < 0.6 * sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("losses", SUBSETS[::6])
def test_parameters_without_gradient_do_not_change_and_all_others_equal_one_process(sharded, losses):
    found, single = sharded["subsets"][losses], train_subset(losses)
    unused = [record["unused"] for record in single[1:]]
    assert [record["unused"] for record in found[1:]] == unused and any(unused)
    assert not changed_unused(found, unused)
    differences = largest_differences(found, single)
    assert differences["weights"] < 1e-6 and differences["moments"] < 1e-6 and differences["steps"] == 0


def test_batches_of_an_update_may_use_different_units(sharded):
    assert not differences(sharded["uneven"], train_unevenly(slice(None)), 1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_logit_scale_is_saved_clamped(sharded, sharding, precision):
    assert sharded["scales"][sharding, precision] == pytest.approx(BOUNDS)


def test_activation_checkpointing_changes_nothing(sharded):
    assert not differences(sharded["checkpointing"]["weights"], sharded["sgd"]["weights"])


def test_gradients_are_reduced_once_per_update(sharded):
    single = updater(toy(), optimizer="SGD")
    train(single, 0, 3, frequency=3)
    assert not differences(sharded["accumulation"]["weights"], single.model_state(), 1e-6)
    assert sharded["accumulation"]["calls"] == {1: 3, 3: 3}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_resumed_training_equals_uninterrupted_training(sharded, precision):
    found = sharded[precision]
    assert not differences(found["resumed"], found["uninterrupted"])
    assert {value.dtype for value in found["saved"].values()} == {torch.float32}
    weights, moments = found["reloaded"]
    assert not differences(weights, found["saved"])
    assert moments.keys() == found["moments"]["state"].keys()
    assert len({int(entry["step"]) for entry in moments.values()}) > 1
    assert all(not differences(moments[index], entry) for index, entry in found["moments"]["state"].items())


def test_one_process_resumes_from_two(sharded):
    """The saved weights and optimizer state equal those of a single process."""
    single = updater(toy(), clip=1.0)
    train(single, 0, 4)
    moments, expected = sharded["fp32"]["moments"], single.state_dict()
    assert [group["params"] for group in moments["param_groups"]] == [g["params"] for g in expected["param_groups"]]
    assert moments["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        for key, value in state.items():
            torch.testing.assert_close(moments["state"][number][key], value, rtol=1e-3, atol=1e-6)
    other = updater(toy(sharded["fp32"]["saved"]), clip=1.0)
    other.load_state_dict(moments)
    train(single, 4, 8)
    train(other, 4, 8)
    assert not {key for key in differences(other.model_state(), single.model_state(), 1e-4) if "qkv.bias" not in key}


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_averages_of_two_processes_are_exact_when_resumed_and_equal_those_of_one(sharded, sharding, tmp_path):
    found = sharded["averages"][sharding]
    single = averaged_training.train_and_resume(tmp_path, optimizer="SGD")["uninterrupted"]
    for name, state in found["uninterrupted"].items():
        assert not differences(state, found["resumed"][name]), name
        assert not differences(state, single[name], 1e-6), name
    assert not differences(found["uninterrupted"]["restored"], found["uninterrupted"]["weights"])
    assert differences(found["uninterrupted"]["averages"], found["uninterrupted"]["weights"], 1e-4)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_learns(sharded, precision):
    losses = sharded["one batch"][precision]
    assert losses[-1] < 0.6 * losses[0]


def test_streams_wait_after_each_step():
    """An evaluation calls the root's methods, e.g. ``encode_image``, and not its forward pass, which waits."""
    engine = object.__new__(FsdpEngine)
    engine.module = Mock()
    engine.finish_step()
    engine.module._wait_for_previous_optim_step.assert_called_once_with()
