"""A non-finite loss on one process: both skip the update, no weight changes, and the samples are recorded."""

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
KIND_OF = {"flava_mim": "imagenet", "flava_mlm": "ccnews_bookcorpus"}  # the other losses need pairs
VALUES = (math.nan, math.inf, -math.inf)


def update(trained, guard, kind, number, rows):
    samples = batch(kind, number, rows)
    samples.sample_id = [f"{number}-{row}" for row in range(rows.start, rows.stop)]
    losses = trained.accumulate(samples)
    guard.add_batch(samples, losses)
    if guard.should_skip(number, losses):
        trained.zero_grad()
        return False
    return trained.step()


def moments(trained):
    return {
        f"{number}.{name}": value.clone()
        for number, state in trained.optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def inject(rank, rows, file, precision):
    """After an update of each kind, set every loss to every invalid value on process 1 only."""
    model = toy()
    trained = updater(model, clip=1.0, sharding="ddp", precision=precision)
    if precision == "fp16":
        trained.precision.load_state_dict({"loss_scale": 128.0})  # no gradient overflows at this scale
    guard = LossGuard(file)
    for number, kind in enumerate(KINDS):
        assert update(trained, guard, kind, number, rows)
    weights, before = trained.model_state(), moments(trained)
    weights = {name: weight.clone() for name, weight in weights.items()}
    updated = []
    for index, name in enumerate(LOSSES):
        for value in VALUES:
            replace = lambda _module, _inputs, out, value=value: {key: loss * 0 + value for key, loss in out.items()}  # noqa: E731
            hook = model.losses[index].register_forward_hook(replace) if rank == 1 else None
            updated.append(update(trained, guard, KIND_OF.get(name, "pmd"), 100, rows))
            if hook is not None:
                hook.remove()
            guard.consecutive_skips = 0
    after = trained.model_state()
    same = all(torch.equal(weights[name], after[name]) for name in weights)
    same_moments = all(torch.equal(value, moments(trained)[name]) for name, value in before.items())
    continues = update(trained, guard, "pmd", 3, rows)
    return {"updated": updated, "same": same, "moments": same_moments, "continues": continues}


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    found = {
        precision: inject(rank, rows, f"{folder}/{precision}_{rank}.jsonl", precision) for precision in ("fp32", "fp16")
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
def test_invalid_loss_on_one_process_skips_the_update_on_both(folder, precision):
    cases = len(LOSSES) * len(VALUES)
    for rank in range(2):
        found = torch.load(folder / f"found_{rank}")[precision]
        assert found == {"updated": [False] * cases, "same": True, "moments": True, "continues": True}
        records = [json.loads(line) for line in (folder / f"{precision}_{rank}.jsonl").read_text().splitlines()]
        assert len(records) == cases
        assert {tuple(record["sample_ids"]) for record in records} == {
            tuple(f"100-{3 * rank + row}" for row in range(3))
        }
        invalid = [sorted(name for name, v in record["losses"].items() if isinstance(v, str)) for record in records]
        assert invalid == ([[name] for name in LOSSES for _ in VALUES] if rank == 1 else [[]] * cases)
