"""A loss of one process that is not finite: both skip the update, no weight moves, and its samples are named."""

import json
import math

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from mmf_flava.config.model import LOSSES
from mmf_flava.training.guard import LossGuard
from tests.training.toys import batch, toy, updater

KINDS = ("pmd", "imagenet", "ccnews_bookcorpus")
KIND_OF = {"flava_mim": "imagenet", "flava_mlm": "ccnews_bookcorpus"}  # the other losses are of pairs
VALUES = (math.nan, math.inf, -math.inf)


def update(trained, guard, kind, number, rows):
    samples = batch(kind, number, rows)
    samples.sample_id = [f"{number}-{row}" for row in range(rows.start, rows.stop)]
    guard.note(samples, trained.accumulate(samples))
    if guard.skips(number):
        trained.discard()
        return False
    return trained.step()


def moments(trained):
    return {
        f"{number}.{name}": value.clone()
        for number, state in trained.optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def injected(rank, rows, file, precision):
    """After a good update of each kind: every loss in turn with every value, on process 1 alone."""
    model = toy()
    trained = updater(model, clip=1.0, sharding="ddp", precision=precision)
    if precision == "fp16":
        trained.precision.load_state_dict({"loss_scale": 128.0})  # of which no gradient here overflows
    guard = LossGuard(file)
    for number, kind in enumerate(KINDS):
        assert update(trained, guard, kind, number, rows)
    weights, before = trained.model_state(), moments(trained)
    weights = {name: weight.clone() for name, weight in weights.items()}
    moved = []
    for place, name in enumerate(LOSSES):
        for value in VALUES:
            spoil = lambda _module, _inputs, found, value=value: {key: loss * 0 + value for key, loss in found.items()}  # noqa: E731
            hook = model.losses[place].register_forward_hook(spoil) if rank == 1 else None
            moved.append(update(trained, guard, KIND_OF.get(name, "pmd"), 100, rows))
            if hook is not None:
                hook.remove()
            guard.in_a_row = 0
    after = trained.model_state()
    same = all(torch.equal(weights[name], after[name]) for name in weights)
    same_moments = all(torch.equal(value, moments(trained)[name]) for name, value in before.items())
    return {"moved": moved, "same": same, "moments": same_moments, "goes on": update(trained, guard, "pmd", 3, rows)}


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    found = {
        precision: injected(rank, rows, f"{folder}/{precision}_{rank}.jsonl", precision)
        for precision in ("fp32", "fp16")
    }
    torch.save(found, f"{folder}/found_{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guard")
    multiprocessing.spawn(process, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_process_is_enough_for_both_to_skip(folder, precision):
    cases = len(LOSSES) * len(VALUES)
    for rank in range(2):
        found = torch.load(folder / f"found_{rank}")[precision]
        assert found == {"moved": [False] * cases, "same": True, "moments": True, "goes on": True}
        lines = [json.loads(line) for line in (folder / f"{precision}_{rank}.jsonl").read_text().splitlines()]
        assert len(lines) == cases
        assert {tuple(line["sample_ids"]) for line in lines} == {tuple(f"100-{3 * rank + row}" for row in range(3))}
        spoilt = [sorted(name for name, value in line["losses"].items() if isinstance(value, str)) for line in lines]
        assert spoilt == ([[name] for name in LOSSES for _ in VALUES] if rank == 1 else [[]] * cases)
