"""Part ``environment``: card, driver, versions, commit; rates of copies and of bf16 matrix products."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from device.context import Context
from device.timing import SQUARE, measure_gemm, seconds_per_call

ROOT = Path(__file__).parents[2]
COMMIT_FILE = ROOT / "COMMIT"  # written by offline.sh, because a packed tree has no git folder
PACKAGES = ("torch", "torchvision", "timm", "transformers", "mmf", "fairseq", "fairscale", "triton", "numpy")
# (m, k, n) of flava_base at batch 128: 128 x 197 tokens of width 768
SHAPES = {
    "square": (SQUARE, SQUARE, SQUARE),
    "qkv": (25216, 768, 2304),
    "attention output": (25216, 768, 768),
    "first MLP layer": (25216, 768, 3072),
    "second MLP layer": (25216, 3072, 768),
    "weight gradient of the first MLP layer": (768, 25216, 3072),
}


def run(context: Context) -> None:
    """Report the environment, then the rates."""
    versions = {name: find_version(name) for name in PACKAGES}
    context.report("versions", commit=read_commit(), python=sys.version.split()[0], **versions)
    context.report("device", **describe_device(context))
    with context.attempt("memory copy"):
        context.report("memory copy", tb_per_s=measure_copy(context))
    for name, shape in SHAPES.items():
        with context.attempt(f"GEMM, {name}"):
            m, k, n = (context.pick(size, 64) for size in shape)
            context.report(f"GEMM, {name}", shape=f"{m} x {k} x {n}", tflops=measure_gemm(context, m, k, n))


def measure_copy(context: Context) -> float:
    """Return the TB/s, read and written, of a copy of 2 GB in the device's memory."""
    source = torch.empty(context.pick(2**31, 2**20), dtype=torch.uint8, device=context.device).random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds_per_call(context, lambda: target.copy_(source)) / 1e12


def find_version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def read_commit() -> str | None:
    """Return the commit of this tree, with ``-dirty`` if files differ from it; None if it is unknown."""
    if COMMIT_FILE.is_file():
        return COMMIT_FILE.read_text().strip()
    return run_command("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")


def describe_device(context: Context) -> dict[str, object]:
    """Return name, memory and driver of the card, or the number of cores of the CPU."""
    if not context.cuda:
        return {"card": f"{os.cpu_count()} CPU cores", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "card": properties.name,
        "memory_gb": properties.total_memory / 1e9,
        "multiprocessors": properties.multi_processor_count,
        "cpus": os.cpu_count(),
        "driver": run_command("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
    }


def run_command(*command: str) -> str | None:
    """Return the output of a command, or None if it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
