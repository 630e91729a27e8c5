"""A loss or gradient that is not finite on one process: both skip the update, and nothing changes."""

import copy
import itertools
import json
import math

import pytest
import torch
import torch.distributed as dist

from mmf_flava.config.model import LOSSES
from mmf_flava.training.guard import UpdateGuard
from tests.processes import run_ranks
from tests.training.toys import batch, toy, updater

KINDS = ("pmd", "imagenet", "ccnews_bookcorpus")
KIND_OF = {"flava_mim": "imagenet", "flava_mlm": "ccnews_bookcorpus"}  # the other losses need pairs
VALUES = (math.nan, math.inf, -math.inf)
HUGE = 1e30  # its square overflows
SCHEDULE = {"type": "warmup_linear", "params": {"num_warmup_steps": 5, "num_training_steps": 50}}
PRECISIONS = ("fp32", "bf16", "fp16")
CLIPS = (None, 1.0)


def update(trained, guard, kind, number, rows, corrupt=lambda: None):
    samples = batch(kind, number, rows)
    samples.sample_id = [f"{number}-{row}" for row in range(rows.start, rows.stop)]
    losses = trained.accumulate(samples)
    guard.add_batch(samples, losses)
    corrupt()
    norm = guard.check(number, losses, trained.squared_norm())
    if norm is None:
        trained.discard()
        return False
    return trained.step(norm)


def state_of(trained):
    """Return copies of this process's weights, masters, buffers, moments with step counts, and schedule."""
    model, masters = trained.engine.model, [master.detach() for master in trained.masters.values()]
    weights = [weight.detach() for weight in model.parameters()]
    moments, schedule = trained.optimizer.state_dict(), trained.scheduler.state_dict()
    return copy.deepcopy([weights, masters, [*model.buffers()], moments, schedule])


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def prepare(precision, sharding, clip, rows, file):
    """Return an updater and a guard after an update of each kind. Each forward pass of a head changes its buffer."""
    model = toy()
    model.heads["mim"].register_buffer("calls", torch.zeros(3))
    model.heads["mim"].register_forward_pre_hook(lambda module, _: setattr(module, "calls", module.calls + 1))
    trained = updater(model, clip=clip, scheduler=SCHEDULE, sharding=sharding, precision=precision)
    if precision == "fp16":
        trained.precision.load_state_dict({"loss_scale": 128.0})  # no gradient overflows at this scale
    guard = UpdateGuard(file, loss_scaling=precision == "fp16")
    for number, kind in enumerate(KINDS):
        assert update(trained, guard, kind, number, rows)
    return trained, guard


def inject_losses(rank, rows, file, precision):
    """Set every loss to every invalid value on process 1 only."""
    trained, guard = prepare(precision, "ddp", 1.0, rows, file)
    model, before, updated = trained.engine.model, state_of(trained), []
    for index, name in enumerate(LOSSES):
        for value in VALUES:
            replace = lambda _module, _inputs, out, value=value: {key: loss * 0 + value for key, loss in out.items()}  # noqa: E731
            hook = model.losses[index].register_forward_hook(replace) if rank == 1 else None
            updated.append(update(trained, guard, KIND_OF.get(name, "pmd"), 100, rows))
            if hook is not None:
                hook.remove()
            guard.consecutive_skips = 0
    unchanged = same(state_of(trained), before)
    return {"updated": updated, "unchanged": unchanged, "continues": update(trained, guard, "pmd", 3, rows)}


def set_gradient(trained, index, value):
    """Set one element of a gradient after it has been averaged over processes, as a memory fault would."""
    gradients = [weight.grad for weight in trained.engine.weights if weight.grad is not None and weight.grad.numel()]
    gradients[index].view(-1)[-1] = value


def inject_gradients(bad_rank, rows, file, precision, sharding, clip):
    """If ``bad_rank``, set one element of a gradient to every invalid value: of the first, a middle or the last one.

    In the last case, NaN enters a backward pass before the gradients are averaged.
    """
    trained, guard = prepare(precision, sharding, clip, rows, file)
    before, updated, scales = state_of(trained), [], []
    values = VALUES if precision == "fp16" else (*VALUES, HUGE)
    for index, value in zip(itertools.cycle((0, len(trained.engine.weights) // 2, -1)), values, strict=False):
        corrupt = lambda index=index, value=value: set_gradient(trained, index, value)  # noqa: E731
        updated.append(update(trained, guard, "pmd", 100, rows, corrupt if bad_rank else lambda: None))
        scales.append(trained.schedule_state()["precision"].get("loss_scale"))
        guard.consecutive_skips = 0
    spread = lambda _module, _inputs, out: out.register_hook(lambda gradient: gradient * math.nan) and None  # noqa: E731
    hook = trained.engine.model.heads["itm"].classifier.register_forward_hook(spread) if bad_rank else None
    updated.append(update(trained, guard, "pmd", 100, rows))
    if hook is not None:
        hook.remove()
    unchanged = same(state_of(trained), before)
    if precision == "fp16":
        trained.precision.load_state_dict({"loss_scale": 128.0})
    continues = update(trained, guard, "pmd", 3, rows)
    return {"updated": updated, "unchanged": unchanged, "continues": continues, "scales": scales}


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(3 * rank, 3 * rank + 3)
    found = {
        precision: inject_losses(rank, rows, f"{folder}/{precision}_{rank}.jsonl", precision)
        for precision in ("fp32", "fp16")
    }
    for case in itertools.product(PRECISIONS, ("ddp", "fsdp"), CLIPS):
        found[case] = inject_gradients(rank == 1, rows, f"{folder}/{case}_{rank}.jsonl", *case)
    torch.save(found, f"{folder}/found_{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guard")
    run_ranks(process, (str(folder),), 2)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_invalid_loss_on_one_process_skips_the_update_on_both(folder, precision):
    cases = len(LOSSES) * len(VALUES)
    for rank in range(2):
        found = torch.load(folder / f"found_{rank}")[precision]
        assert found == {"updated": [False] * cases, "unchanged": True, "continues": True}
        records = [json.loads(line) for line in (folder / f"{precision}_{rank}.jsonl").read_text().splitlines()]
        assert len(records) == cases
        assert {tuple(record["sample_ids"]) for record in records} == {
            tuple(f"100-{3 * rank + row}" for row in range(3))
        }
        invalid = [sorted(name for name, v in record["losses"].items() if isinstance(v, str)) for record in records]
        assert invalid == ([[name] for name in LOSSES for _ in VALUES] if rank == 1 else [[]] * cases)


def check_gradients(found, file, precision):
    cases = len(found["updated"])
    assert cases == (4 if precision == "fp16" else 5)
    assert found["updated"] == [False] * cases and found["unchanged"] and found["continues"]
    if precision == "fp16":  # overflows
        assert found["scales"] == [2.0 ** (6 - number) for number in range(cases - 1)] and not file.exists()
    else:
        records = [json.loads(line) for line in file.read_text().splitlines()]
        assert [record["reason"] for record in records] == ["gradient not finite"] * cases


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_invalid_gradient_on_one_process_skips_the_update_on_both(folder, precision, sharding, clip):
    case = (precision, sharding, clip)
    for rank in range(2):
        check_gradients(torch.load(folder / f"found_{rank}")[case], folder / f"{case}_{rank}.jsonl", precision)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_invalid_gradient_skips_the_update_of_one_process(tmp_path, precision, clip):
    found = inject_gradients(True, slice(0, 6), tmp_path / "skipped.jsonl", precision, "none", clip)
    check_gradients(found, tmp_path / "skipped.jsonl", precision)
