"""Part ``collectives``: NCCL with one rank. Every collective that training uses, then updates with ddp and fsdp.

fairscale casts the weights of inner FSDP units on its own stream. If it did not wait for the optimizer's step, updates
with and without a synchronisation between them would give different weights. Two runs with synchronisation show how
much of a difference is due to the order of summation alone.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from omegaconf import OmegaConf
from peers import build_pretraining, sample_list
from torch import Tensor, distributed

from device.context import Context
from device.models import PAIR_LOSSES, build_batch, flava_settings, total_loss
from device.runs import find_free_port
from device.timing import synchronize
from mmf_flava.config.run import TrainingConfig
from mmf_flava.training import sharding
from mmf_flava.training.update import Updater

CASES = (("ddp", "fp32"), ("fsdp", "fp32"), ("fsdp", "bf16"), ("fsdp", "fp16"))
BACKENDS = {"cuda": "cpu:gloo,cuda:nccl", "cpu": "gloo"}
UPDATES, MAX_OVERFLOWS = 8, 16  # fp16 skips updates until the loss scale fits
LAYERS = (4, 4, 2)
RACE_FACTOR, RACE_OFFSET = 10, 1e-6  # largest mean difference: factor x that of two equal runs + offset


def run(context: Context) -> None:
    """Initialise a process group of one rank and run all checks."""
    backend = BACKENDS[context.device]
    if context.cuda:
        torch.cuda.set_device(0)
    method = f"tcp://127.0.0.1:{find_free_port()}"
    distributed.init_process_group(backend, init_method=method, rank=0, world_size=1)
    collectives = list_collectives(torch.device(context.device))
    for name, collective in collectives.items():
        with context.attempt(f"{backend}, {name}"):
            collective()
            synchronize(context)
    context.report(f"{backend}, collectives", tried=len(collectives), failed=context.failures)
    for strategy, precision in CASES:
        name = f"{strategy} {precision}, one rank"
        with context.attempt(name):
            compare_updates(context, name, strategy, precision)
    distributed.destroy_process_group()


def list_collectives(device: torch.device) -> dict[str, Callable[[], Any]]:
    """Return the collectives that mmf_flava, MMF and fairscale call, with tensors of their kinds."""
    scalar, vector = torch.tensor(1.0, device=device), torch.ones(3, device=device)
    images = torch.randn(8, 4, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
    return {
        "all_gather_object of the random state": lambda: torch.set_rng_state(gather_object(torch.get_rng_state())),
        "all_gather_object of an array": lambda: gather_object(np.zeros(3)),
        "broadcast_object_list": lambda: distributed.broadcast_object_list([1], src=0),
        "all_reduce of a scalar": lambda: distributed.all_reduce(scalar),
        "broadcast of a scalar": lambda: distributed.broadcast(scalar, 0),
        "broadcast of channels_last weights": lambda: distributed.broadcast(images, 0),
        "all_gather": lambda: distributed.all_gather([torch.empty_like(vector)], vector),
        "all_gather_into_tensor": lambda: distributed.all_gather_into_tensor(torch.empty_like(vector), vector),
        "reduce_scatter_tensor": lambda: distributed.reduce_scatter_tensor(torch.empty_like(vector), vector),
        "reduce of a CPU tensor, as of MMF's metrics": lambda: distributed.reduce(torch.ones(3), 0),
        "barrier": distributed.barrier,
    }


def gather_object(value: Any) -> Any:
    """Return the value after a gather of one rank."""
    gathered = [None]
    distributed.all_gather_object(gathered, value)
    return gathered[0]


def compare_updates(context: Context, name: str, strategy: str, precision: str) -> None:
    """Report the weights' differences of equal runs, with and without a synchronisation after each update."""
    losses, weights = train(context, strategy, precision, wait=True)
    _, repeated = train(context, strategy, precision, wait=True)
    _, unsynchronised = train(context, strategy, precision, wait=False)
    noise, difference = mean_difference(weights, repeated), mean_difference(weights, unsynchronised)
    values = {"losses": losses, "difference_of_two_equal_runs": noise, "difference_without_waiting": difference}
    context.report_limited(name, "difference_without_waiting", RACE_FACTOR * noise + RACE_OFFSET, **values)


def mean_difference(weights: list[Tensor], others: list[Tensor]) -> float:
    """Return the mean absolute difference of all weights."""
    total = sum((weight - other).abs().sum().item() for weight, other in zip(weights, others, strict=True))
    return total / sum(weight.numel() for weight in weights)


def train(context: Context, strategy: str, precision: str, wait: bool) -> tuple[list[float], list[Tensor]]:
    """Do some updates with mmf_flava's ``Updater``; the same weights and batch in every call.

    Args:
        wait: synchronise after each update.

    Returns:
        the total loss of each update, skipped ones included, and the weights after the last one.
    """
    device = torch.device(context.device)
    samples = sample_list("pair", build_batch(context, context.pick(16, 2), 20, 16), cached=True)
    torch.manual_seed(0)
    model = build_pretraining(flava_settings(context, layers=LAYERS, losses=PAIR_LOSSES)).to(device)
    training = {"clip_gradients": True, "lr_scheduler": False}
    recipe = OmegaConf.create({"training": training, "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}})
    settings = TrainingConfig(sharding=strategy, precision=precision, max_grad_l2_norm=1.0)
    with mock.patch.object(sharding, "world_size", lambda: 2):  # with one rank, mmf_flava uses neither ddp nor fsdp
        updater = Updater(model, recipe, settings, device)
    updater.engine.module.train()
    losses: list[dict[str, Tensor]] = []
    updates = context.pick(UPDATES, 2)
    for _ in range(updates + MAX_OVERFLOWS):
        losses.append(updater.accumulate(samples))
        updates -= updater.step()
        if wait:
            synchronize(context)
        if not updates:
            break
    synchronize(context)
    updater.state_dict()  # gathers the optimizer's state
    weights = [weight.detach().float().cpu().clone() for weight in updater.engine.weights]
    return [total_loss(loss).item() for loss in losses], weights
