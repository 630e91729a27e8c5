"""fairseq's FSDP on two gloo processes equals a single process; a batch of eight is split in halves."""

import gc

import torch
import torch.distributed as dist
from torch import multiprocessing, nn
from torch.nn.utils import clip_grad_norm_

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


def test_fsdp_equals_a_single_process(tmp_path):
    multiprocessing.spawn(process, (str(tmp_path / "rendezvous"), str(tmp_path / "results")), nprocs=2)
    results = torch.load(tmp_path / "results", weights_only=False)
    losses, model = train_single_process()

    assert losses[0] != losses[-1]
    torch.testing.assert_close(results["fp32"]["losses"], losses, rtol=0, atol=1e-6)
    torch.testing.assert_close(results["fp32"]["state"], dict(model.state_dict()), rtol=0, atol=1e-6)
    assert results["fp32"]["shard"] < sum(parameter.numel() for parameter in model.parameters()), "nothing was sharded"

    assert results["bf16"]["dtype"] is torch.bfloat16
    torch.testing.assert_close(results["bf16"]["losses"], losses, rtol=0, atol=0.02)
