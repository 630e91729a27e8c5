"""Shards of two gloo processes against one process that has the whole model; six samples are dealt out in threes."""

import copy
import gc

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from tests.training.toys import batch, toy, updater

KINDS = ("pmd", "imagenet", "ccnews_bookcorpus")


def train(trained, first, last, rows=slice(None), frequency=1):
    """The losses of these updates, of which each is on another kind of batch."""
    losses = []
    for number in range(first, last):
        for part in range(frequency):
            found = trained.accumulate(batch(KINDS[number % 3], 10 * number + part, rows), part == frequency - 1)
            losses.append(torch.stack(list(found.values())))
        assert trained.step()
    return losses


def mean_over_ranks(losses):
    for value in losses:
        dist.all_reduce(value)
        value /= 2
    return losses


def equals_one_process(rows):
    """SGD, for Adam divides gradients, rounding noise among them, by their own size."""
    trained = updater(toy(), optimizer="SGD", lr=0.1, clip=0.5, sharding="fsdp")
    losses = mean_over_ranks(train(trained, 0, 9, rows))
    encoded = trained.engine.evaluated.eval().encode_image(batch("pmd")["image"])
    kept = sum(weight.numel() for weight in trained.engine.weights)
    return {"losses": losses, "weights": trained.model_state(), "encoded": encoded.detach(), "kept": kept}


def checkpointed(rows):
    """With activations recomputed: the same to the bit."""
    trained = updater(toy(), optimizer="SGD", lr=0.1, clip=0.5, sharding="fsdp", activation_checkpointing=True)
    train(trained, 0, 9, rows)
    return {"weights": trained.model_state()}


def accumulated(rows):
    """Three batches an update, and how often the processes reduced gradients."""
    from fairscale.internal import reduce_scatter_bucketer as bucketer

    calls, reduce = [], bucketer.dist._reduce_scatter_base

    def count(output, input, group=None):
        calls.append(len(output))
        return reduce(output, input, group=group)

    bucketer.dist._reduce_scatter_base = count
    counts = {}
    for frequency in (1, 3):
        trained = updater(toy(), optimizer="SGD", sharding="fsdp", update_frequency=frequency)
        calls.clear()
        train(trained, 0, 3, rows, frequency)
        counts[frequency] = len(calls)
    bucketer.dist._reduce_scatter_base = reduce
    return {"weights": trained.model_state(), "calls": counts}


def resumed(rows, precision):
    """AdamW, 4 updates and 4 more: in one go, and with everything saved and loaded between."""
    wishes = {"clip": 1.0, "sharding": "fsdp", "precision": precision}
    whole = updater(toy(), **wishes)
    if precision == "fp16":
        whole.precision.load_state_dict({"loss_scale": 128.0})
    train(whole, 0, 4, rows)
    weights, moments, schedule = whole.model_state(), whole.state_dict(), whole.schedule_state()
    train(whole, 4, 8, rows)
    box = copy.deepcopy([weights, moments])  # the first process has them, as it has what it reads from a file
    dist.broadcast_object_list(box)
    other = updater(toy(box[0]), **wishes)
    other.load_state_dict(box[1])
    other.restore_schedule(schedule)
    train(other, 4, 8, rows)
    return {"saved": weights, "moments": moments, "whole": whole.model_state(), "resumed": other.model_state()}


def learning(rows, precision):
    trained = updater(toy(), clip=1.0, sharding="fsdp", precision=precision)
    losses = []
    while len(losses) < 30:
        found = trained.accumulate(batch("pmd", 0, rows))
        if trained.step():
            losses.append(sum(found.values()))
    return mean_over_ranks(losses)


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    results = {
        "equals": equals_one_process(rows),
        "checkpointed": checkpointed(rows),
        "accumulated": accumulated(rows),
        "fp32": resumed(rows, "fp32"),
        "fp16": resumed(rows, "fp16"),
        "learning": {precision: learning(rows, precision) for precision in ("fp16", "bf16")},
    }
    if rank == 0:
        torch.save(results, f"{folder}/results")
    gc.collect()  # FSDP holds process groups in cycles
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("fsdp"))
    multiprocessing.spawn(process, (folder,), nprocs=2)
    return torch.load(f"{folder}/results")


def far(ours, theirs, limit=0.0):
    assert ours.keys() == theirs.keys()
    return {key: d for key in ours if (d := (ours[key].float() - theirs[key].float()).abs().max().item()) > limit}


def test_two_processes_equal_one(sharded):
    model = toy()
    alone = updater(model, optimizer="SGD", lr=0.1, clip=0.5)
    losses = train(alone, 0, 9)
    found = sharded["equals"]
    for ours, theirs in zip(found["losses"], losses, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    assert not far(found["weights"], alone.model_state(), 1e-6)
    assert far(found["weights"], toy().state_dict(), 1e-2)
    torch.testing.assert_close(found["encoded"], model.eval().encode_image(batch("pmd")["image"]), rtol=0, atol=1e-5)
    assert found["kept"] < 0.6 * sum(parameter.numel() for parameter in model.parameters())


def test_recomputed_activations_change_nothing(sharded):
    assert not far(sharded["checkpointed"]["weights"], sharded["equals"]["weights"])


def test_accumulation_reduces_gradients_once_an_update(sharded):
    alone = updater(toy(), optimizer="SGD", update_frequency=3)
    train(alone, 0, 3, frequency=3)
    assert not far(sharded["accumulated"]["weights"], alone.model_state(), 1e-6)
    assert sharded["accumulated"]["calls"] == {1: 3, 3: 3}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_going_on_equals_not_having_stopped(sharded, precision):
    found = sharded[precision]
    assert not far(found["resumed"], found["whole"])
    assert {value.dtype for value in found["saved"].values()} == {torch.float32}


def test_one_process_goes_on_from_two(sharded):
    """What shards save is what one process would have saved, its optimizer's state included."""
    alone = updater(toy(), clip=1.0)
    train(alone, 0, 4)
    moments, expected = sharded["fp32"]["moments"], alone.state_dict()
    assert [group["params"] for group in moments["param_groups"]] == [g["params"] for g in expected["param_groups"]]
    assert moments["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        for key, value in state.items():
            torch.testing.assert_close(moments["state"][number][key], value, rtol=1e-3, atol=1e-6)
    other = updater(toy(sharded["fp32"]["saved"]), clip=1.0)
    other.load_state_dict(moments)
    train(alone, 4, 8)
    train(other, 4, 8)
    assert not {key for key in far(other.model_state(), alone.model_state(), 1e-4) if "qkv.bias" not in key}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precisions_learn(sharded, precision):
    losses = sharded["learning"][precision]
    assert losses[-1] < 0.6 * losses[0]
