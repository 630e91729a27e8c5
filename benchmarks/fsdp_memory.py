"""Memory per process with ``sharding: fsdp`` and with ``ddp``: two AdamW updates on pairs, fp32, gloo.

State: weights + gradients + both moments of AdamW between backward pass and step, summed over tensors. With ddp it is
16 bytes per parameter; with fsdp it is that divided by the number of processes, plus padding of the shards.
Peak: the peak of resident memory during the updates minus the memory before the model was built. It includes the state,
activations, gathered weights and DDP's buckets of 4 bytes per parameter.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from processes import reset_peak_memory, resident_memory, run_processes
from targets import BenchmarkResult, format_megabytes

WORLD_SIZES = (2, 4)
PADDING = 1.01  # upper limit of (fsdp state * processes) / ddp state; shards are padded to the same length
LAYERS, VOCAB_SIZE = (2, 2, 1), 8192  # otherwise flava_base; four complete models fit into 8 GB


def fsdp_memory(folder: Path) -> list[BenchmarkResult]:
    results = []
    for world_size in WORLD_SIZES:
        largest = {}
        for sharding in ("ddp", "fsdp"):
            processes = run_processes(_updates, world_size, folder, sharding)
            largest[sharding] = {key: max(process[key] for process in processes) for key in processes[0]}
        ddp, fsdp = largest["ddp"], largest["fsdp"]
        name = f"fsdp on {world_size} processes, {ddp['parameters'] / 1e6:.1f} M parameters"
        ratio, limit = fsdp["state"] / ddp["state"], PADDING / world_size
        measured = f"{format_megabytes(fsdp['state'])}, ddp {format_megabytes(ddp['state'])}, ratio {ratio:.4f}"
        results.append(BenchmarkResult(f"{name}, state", measured, f"ratio below {limit:.4f}", ratio < limit))
        ratio = fsdp["peak"] / ddp["peak"]
        measured = f"{format_megabytes(fsdp['peak'])}, ddp {format_megabytes(ddp['peak'])}, ratio {ratio:.3f}"
        results.append(BenchmarkResult(f"{name}, peak", measured))
    return results


def _updates(rank: int, world_size: int, sharding: str) -> dict[str, int]:
    """Run two updates. Return the parameters of the complete model, and bytes of this process's state and peak."""
    from batches import make_batch
    from omegaconf import OmegaConf
    from peers import build_pretraining, sample_list

    from mmf_flava.config import model as sizes
    from mmf_flava.config.run import TrainingConfig
    from mmf_flava.training.update import Updater

    torch.manual_seed(0)
    settings = sizes.FlavaConfig(
        image_encoder=sizes.ImageEncoderConfig(num_layers=LAYERS[0]),
        text_encoder=sizes.TextEncoderConfig(num_layers=LAYERS[1], vocab_size=VOCAB_SIZE),
        multimodal_encoder=sizes.MultimodalEncoderConfig(num_layers=LAYERS[2]),
        # pairs train every head of these losses, so that all parameters have gradients and moments
        losses=[sizes.LossConfig(name) for name in sizes.LOSSES if name not in ("flava_mim", "flava_mlm")],
    )
    batch = make_batch(1, 77, seed=rank)
    for ids in (batch.ids, batch.ids_masked, batch.labels):
        ids.clamp_(max=VOCAB_SIZE - 1)
    samples = sample_list("pair", batch, cached=True)
    training = {"clip_gradients": True, "lr_scheduler": False}
    recipe = OmegaConf.create({"training": training, "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}})

    before = reset_peak_memory()
    model = build_pretraining(settings)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    updater = Updater(model, recipe, TrainingConfig(sharding=sharding, max_grad_l2_norm=1.0), torch.device("cpu"))
    updater.engine.module.train()
    reset_peak_memory()
    for _ in range(2):
        updater.accumulate(samples)
        weights = updater.engine.weights
        state = _bytes(weights) + _bytes(weight.grad for weight in weights if weight.grad is not None)
        assert updater.step()
    moments = updater.optimizer.state.values()
    state += _bytes(value for values in moments for value in values.values() if value.ndim)
    return {"parameters": parameters, "state": state, "peak": resident_memory("VmHWM") - before}


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
