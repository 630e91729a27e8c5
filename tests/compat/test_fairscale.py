"""fairseq's FSDP on two gloo processes equals a single process; a batch of eight is split in halves."""

import contextlib
import gc

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import clip_grad_norm_

from mmf_flava.compat.defects import fairscale
from mmf_flava.compat.patch import PATCHES, overlay
from tests.processes import run_ranks

STEPS, MAX_NORM = 3, 0.1


def build_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 4, generator=generator), torch.randn(8, 3, generator=generator)


def train_single_process() -> tuple[list[float], nn.Module]:
    model, losses = build_model(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for step in range(STEPS):
        inputs, targets = batch(step)
        loss = (model(inputs) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        losses.append(loss.item())
    return losses, model


def train_sharded(rank: int, options: dict) -> dict:
    from fairseq.distributed.fully_sharded_data_parallel import FullyShardedDataParallel

    model, losses = FullyShardedDataParallel(build_model(), **options), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for step in range(STEPS):
        inputs, targets = (tensor.chunk(2)[rank] for tensor in batch(step))
        outputs = model(inputs)
        loss = (outputs.float() - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        model.clip_grad_norm_(MAX_NORM)
        optimizer.step()
        total = loss.detach().clone()
        dist.all_reduce(total)
        losses.append(total.item() / 2)
    state = model.state_dict()
    model.load_state_dict(state)  # broadcasts it with torch.load: fairseq's placeholder must be a safe global
    shard = sum(parameter.numel() for parameter in model.parameters())
    return {"losses": losses, "state": dict(state), "dtype": outputs.dtype, "shard": shard}


def process(rank: int, rendezvous: str, results: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    precisions = {"fp32": {}, "bf16": {"mixed_precision": True, "compute_dtype": torch.bfloat16}}
    out = {name: train_sharded(rank, options) for name, options in precisions.items()}
    if rank == 0:
        torch.save(out, results)
    # reference cycles keep FSDP's process groups alive, but gloo's threads must end before the other process does
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


class RecordedStream:
    """A stream that records the streams that it waits for and the operations that run on it."""

    current: "RecordedStream"

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def wait_stream(self, other):
        self.calls.append(f"{self.name} waits for {other.name}")

    @contextlib.contextmanager
    def use(self):
        previous, RecordedStream.current = RecordedStream.current, self
        yield
        RecordedStream.current = previous


def test_cast_of_inner_units_waits_for_the_step_if_the_root_is_in_fp32(monkeypatch):
    """The forward pass after a step: first the root's wait, then an inner unit's cast."""
    from fairscale.nn.data_parallel import fully_sharded_data_parallel as module

    calls: list[str] = []
    streams = {name: RecordedStream(name, calls) for name in ("fp32_to_fp16", "all_gather")}
    RecordedStream.current = RecordedStream("compute", calls)
    cuda = {
        "current_stream": lambda: RecordedStream.current,
        "stream": RecordedStream.use,
        "is_available": lambda: True,
    }
    monkeypatch.setattr(module, "torch", overlay(torch, cuda=overlay(torch.cuda, **cuda)))
    monkeypatch.setattr(module, "alloc_storage_", lambda data, size: calls.append("cast"))

    def build_unit(mixed_precision):
        unit = object.__new__(module.FullyShardedDataParallel)
        vars(unit).update(mixed_precision=mixed_precision, move_params_to_cpu=False, _streams=streams, params=[])
        return unit

    root, inner = build_unit(mixed_precision=False), build_unit(mixed_precision=True)
    shard = nn.Parameter(torch.ones(2))
    shard._fp32_shard, shard._fp16_shard = torch.ones(2), torch.zeros(2)
    inner.params.append(shard)
    root._wait_for_previous_optim_step()
    with streams["all_gather"].use():
        inner._cast_fp32_param_shards_to_fp16()
    assert calls == [
        "all_gather waits for compute",
        "fp32_to_fp16 waits for all_gather",
        "cast",
        "all_gather waits for fp32_to_fp16",
    ]


@pytest.mark.parametrize(("device", "patched"), [("cpu", True), ("cuda", False)])
def test_cpu_patches_look_at_the_device_of_the_run(device, patched, global_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    global_config.training.device = device
    needed = {one.name: one.needed(None) for one in PATCHES[fairscale.FSDP] if one.needed is fairscale._on_cpu}
    (buckets,) = PATCHES["fairscale.internal.reduce_scatter_bucketer"]
    assert buckets.needed(None)  # gloo reduces CUDA tensors as well
    assert needed == dict.fromkeys(("fairscale.streams", "fairscale.record_stream", "fairscale.norm_on_cpu"), patched)


def test_fsdp_equals_a_single_process(tmp_path):
    run_ranks(process, (str(tmp_path / "rendezvous"), str(tmp_path / "results")), 2)
    results = torch.load(tmp_path / "results", weights_only=False)
    losses, model = train_single_process()

    assert losses[0] != losses[-1]
    torch.testing.assert_close(results["fp32"]["losses"], losses, rtol=0, atol=1e-6)
    torch.testing.assert_close(results["fp32"]["state"], dict(model.state_dict()), rtol=0, atol=1e-6)
    assert results["fp32"]["shard"] < sum(parameter.numel() for parameter in model.parameters()), "nothing was sharded"

    assert results["bf16"]["dtype"] is torch.bfloat16
    torch.testing.assert_close(results["bf16"]["losses"], losses, rtol=0, atol=0.02)
