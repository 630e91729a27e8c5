"""Part ``embedding``: images per second of the image encoder in several precisions, and of ``mmf_flava.embed``."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from device.context import ERROR_LENGTH, Context
from device.models import flava_settings
from device.shards import count_records, find_or_write_shards
from device.timing import compute_rates, measure_square_gemm, seconds_per_call
from mmf_flava.models.flava import Flava
from mmf_flava.models.pretrained import load_pretrained
from mmf_flava.training.device import set_tf32
from mmf_flava.weights.configs import CONFIG_KEY, config_to_dict

LEAST_COSINE = 0.99  # of embeddings in bf16 and fp32
COMMANDS = {"default options": [], "16 workers, batch 256": ["--workers", "16", "--batch-size", "256"]}


def run(context: Context) -> None:
    """Report the encoder alone, then the command."""
    weights = write_weights(context)
    with context.attempt("encoder"):
        report_encoder(context, weights)
    shards = find_or_write_shards(context)
    for name, options in COMMANDS.items():
        with context.attempt(f"mmf_flava.embed, {name}"):
            report_command(context, name, shards, weights, context.pick(options, options[:0]))


def write_weights(context: Context) -> Path:
    """Write a FLAVA with random weights and return the file."""
    torch.manual_seed(0)
    settings = flava_settings(context)
    file = context.work / "weights.safetensors"
    state = {f"flava.{name}": value for name, value in Flava(settings).state_dict().items()}
    save_file(state, file, metadata={CONFIG_KEY: json.dumps(config_to_dict(settings))})
    return file


def report_encoder(context: Context, weights: Path) -> None:
    """Report ``encode_image`` in fp32, TF32 and bf16, and the agreement of bf16 with fp32."""
    model: Any = load_pretrained(weights).to(context.device).eval()
    size, gemm = context.pick(256, 2), measure_square_gemm(context)
    image = torch.randn(size, 3, 224, 224, device=context.device)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.encode_image(image[:2])
    flop = counter.get_total_flops() / 2 * size

    def encode_bf16() -> Tensor:
        with torch.autocast(context.device, torch.bfloat16):
            return model.encode_image(image).float()

    def report(name: str, encode: Callable[[], Tensor]) -> None:
        with context.attempt(name), torch.no_grad():
            values = compute_rates(context, seconds_per_call(context, encode), size, flop, gemm, "images")
            context.report(name, batch=size, **values)

    for name in ("TF32", "fp32"):
        set_tf32(name == "TF32")
        report(f"encode_image, {name}", lambda: model.encode_image(image))
    report("encode_image, bf16", encode_bf16)
    with torch.no_grad():
        cosine = (encode_bf16() * model.encode_image(image)).sum(-1).min().item()
    values = {"least_cosine": cosine, "distance": 1 - cosine}
    context.report_limited("embeddings in bf16 and fp32", "distance", 1 - LEAST_COSINE, **values)
    model.image_encoder.compile_blocks()
    report("encode_image, bf16, compiled", encode_bf16)


def report_command(context: Context, name: str, shards: Path, weights: Path, options: list[str]) -> None:
    """Report ``python -m mmf_flava.embed`` on all images of the shards, including its start.

    Raises:
        RuntimeError: the command failed.
    """
    command = [sys.executable, "-m", "mmf_flava.embed", str(shards), "--weights", str(weights), "--what", "image"]
    command += ["--out", str(context.work / "embeddings"), "--force", "--device", context.device, *options]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=context.run_seconds)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-ERROR_LENGTH:]}")
    seconds = time.perf_counter() - start
    context.report(f"mmf_flava.embed, {name}", images_per_s=count_records(context) / seconds, seconds=seconds)
