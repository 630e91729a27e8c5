"""Part ``trainer``: the real ``mmf_run`` with flava_base, the loader and shards of JPEGs; its own rates."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from device.context import Context
from device.models import TINY, TINY_LAYERS
from device.runs import MmfRun
from device.shards import find_or_write_shards
from device.timing import compute_utilisation, measure_square_gemm

CODES = 8192
CENTROID_SIZE = 192  # values of a patch of the codebook's view: 8 x 8 pixels, 3 channels
LOSSES = ("flava_global_contrastive", "flava_mmm_image", "flava_mmm_text", "flava_itm")


@dataclass(frozen=True)
class Case:
    """A run: its name and options."""

    name: str
    options: tuple[str, ...] = ()


LARGE = ("model_config.flava.compile=true", "training.batch_size=256", "training.max_updates=60")
CASES = (
    Case("default options"),
    Case("foreach AdamW", ("optimizer.params.foreach=true",)),
    Case("compiled, batch 256", LARGE),
)


def run(context: Context) -> None:
    """Report every case: rates of the log records after the first, and of the last one."""
    codebook = context.work / "centroids.safetensors"
    save_file({"centroids": torch.rand(context.pick(CODES, 64), CENTROID_SIZE)}, codebook)
    gemm = measure_square_gemm(context)
    recipe = write_recipe(context, codebook)
    for number, case in enumerate(context.pick(CASES, CASES[:2])):
        with context.attempt(case.name):
            name = f"trainer_{number}"
            one = MmfRun(context, name, case.options, recipe=recipe)
            one.run()
            records = one.records()
            first, last = records[0], records[-1]
            utilisation = compute_utilisation(context, last["flops_per_second"] / 1e12, gemm)
            rates = [record["samples_per_second"] for record in records[1:] or records]
            context.report(
                case.name,
                samples_per_s=statistics.median(rates),
                first_samples_per_s=first["samples_per_second"],
                last_samples_per_s=last["samples_per_second"],
                **utilisation,
                data_wait=last["data_wait"],
            )


def write_recipe(context: Context, codebook: Path) -> Path:
    """Write a recipe that pretrains flava_base on pairs, and return its path."""
    flava: dict[str, Any] = {
        "codebook": {"type": "kmeans", "path": str(codebook), "vocab_size": context.pick(CODES, 64)},
        "losses": [{"type": name} for name in LOSSES],
    }
    if context.tiny:
        encoders = ("image_encoder", "text_encoder", "multimodal_encoder")
        flava |= {name: {**TINY, "num_layers": n} for name, n in zip(encoders, TINY_LAYERS, strict=True)}
        flava |= {"projection_size": TINY["hidden_size"]}
    text = {"params": {"tokenizer": "tokenizer", "pad_to_multiple": 8}}
    pmd = {"data_dir": str(find_or_write_shards(context)), "splits": {"train": ["."]}}
    never = 100_000
    training = {
        "seed": 1,
        "batch_size": context.pick(64, 4),
        "num_workers": context.pick(15, 1),
        "pin_memory": context.cuda,
        "max_updates": context.pick(120, 3),
        "log_interval": context.pick(20, 1),
        "evaluation_interval": never,
        "checkpoint_interval": never,
        "clip_gradients": True,
        "max_grad_l2_norm": 1.0,
        "precision": "bf16",
    }
    recipe = {
        "includes": [],
        "model": "flava",
        "dataset": "pmd",
        "model_config": {"flava": flava},
        "dataset_config": {"pmd": {**pmd, "processors": {"text_processor": text}}},
        "training": training,
        "evaluation": {"losses": False},
        "scheduler": {"params": {"num_warmup_steps": 10}},
        "optimizer": {"params": {"lr": 1e-3}},
    }
    path = context.work / "trainer.yaml"
    OmegaConf.save(OmegaConf.create(recipe), path)
    return path
