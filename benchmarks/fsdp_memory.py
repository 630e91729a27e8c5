"""What memory a process needs with ``sharding: fsdp`` and with ``ddp``: two AdamW updates on pairs, fp32, gloo.

State is weights + gradients + both moments of AdamW, as the process holds them between backward pass and step, counted
tensor by tensor: 16 bytes a parameter with ddp; with fsdp the process's share of that, shards padded to one length.
Peak is the most resident memory during the updates beyond what the process had before it built the model: state,
activations, gathered weights, DDP's buckets of 4 bytes a parameter.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from processes import forget_peak, processes, resident
from targets import Row, megabytes

RANKS = (2, 4)
PADDING = 1.01  # the share of the state times the number of processes: shards are padded to the same length
LAYERS, WORDS = (2, 2, 1), 8192  # else flava_base: as large as four whole models fit into 8 GB


def fsdp_memory(folder: Path) -> list[Row]:
    rows = []
    for ranks in RANKS:
        found = {}
        for sharding in ("ddp", "fsdp"):
            parts = processes(_updates, ranks, folder, sharding)
            found[sharding] = {key: max(part[key] for part in parts) for key in parts[0]}
        ddp, fsdp = found["ddp"], found["fsdp"]
        model = f"{ddp['parameters'] / 1e6:.1f} M parameters"
        share, limit = fsdp["state"] / ddp["state"], PADDING / ranks
        figure = f"{megabytes(fsdp['state'])} of ddp's {megabytes(ddp['state'])}, {share:.4f}"
        rows.append(Row(f"fsdp on {ranks}, {model}, state", figure, f"below {limit:.4f}", share < limit))
        figure = f"{megabytes(fsdp['peak'])} of ddp's {megabytes(ddp['peak'])}, {fsdp['peak'] / ddp['peak']:.3f}"
        rows.append(Row(f"fsdp on {ranks}, peak", figure))
    return rows


def _updates(rank: int, ranks: int, sharding: str) -> dict[str, int]:
    """Parameters of the whole model; bytes of this process's state and peak."""
    from batches import make_batch
    from omegaconf import OmegaConf
    from peers import pretraining, sample_list

    from mmf_flava.config import model as sizes
    from mmf_flava.config.run import TrainingConfig
    from mmf_flava.training.update import Updater

    torch.manual_seed(0)
    settings = sizes.FlavaConfig(
        image_encoder=sizes.ImageEncoderConfig(num_layers=LAYERS[0]),
        text_encoder=sizes.TextEncoderConfig(num_layers=LAYERS[1], vocab_size=WORDS),
        multimodal_encoder=sizes.MultimodalEncoderConfig(num_layers=LAYERS[2]),
        # pairs feed every head of these, so that everything has gradients and moments
        losses=[sizes.LossConfig(name) for name in sizes.LOSSES if name not in ("flava_mim", "flava_mlm")],
    )
    batch = make_batch(1, 77, seed=rank)
    for ids in (batch.ids, batch.ids_masked, batch.labels):
        ids.clamp_(max=WORDS - 1)
    samples = sample_list("pair", batch, cached=True)
    training = {"clip_gradients": True, "lr_scheduler": False}
    recipe = OmegaConf.create({"training": training, "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}})

    before = forget_peak()
    model = pretraining(settings)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    updater = Updater(model, recipe, TrainingConfig(sharding=sharding, max_grad_l2_norm=1.0), torch.device("cpu"))
    updater.engine.module.train()
    forget_peak()
    for _ in range(2):
        updater.accumulate(samples)
        weights = updater.engine.weights
        kept = _bytes(weights) + _bytes(weight.grad for weight in weights if weight.grad is not None)
        assert updater.step()
    kept += _bytes(value for state in updater.optimizer.state.values() for value in state.values() if value.ndim)
    return {"parameters": parameters, "state": kept, "peak": resident("VmHWM") - before}


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
