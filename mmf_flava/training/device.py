"""The device that a process trains and evaluates on, and torch's options for it."""

import os

import torch
from mmf.common.registry import registry

from mmf_flava.compat import mmf_api
from mmf_flava.config.device import parse_device
from mmf_flava.config.run import TrainingConfig
from mmf_flava.processes import world_size


def prepare_device(requested: str, training: TrainingConfig) -> torch.device:
    """Return this process's device and register it with MMF; set torch's options.

    Args:
        requested: MMF's ``training.device``; the CPU is used if CUDA is not available.
    """
    if training.num_threads is not None:
        torch.set_num_threads(training.num_threads)
    torch.autograd.set_detect_anomaly(training.detect_anomaly)
    cuda = parse_device(requested)[0] == "cuda" and torch.cuda.is_available()
    # MMF or compat has already set the current CUDA device: the local rank, or N for training.device=cuda:N
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    _set_numerics(training, device)
    registry.register("current_device", device)
    return device


def _set_numerics(training: TrainingConfig, device: torch.device) -> None:
    """Configure torch's TF32, deterministic algorithms and attention kernels. On CUDA, log the settings.

    By default, torch uses TF32 in convolutions but not in matrix products.
    """
    torch.use_deterministic_algorithms(training.deterministic)
    torch.backends.cudnn.benchmark = training.cudnn_benchmark
    if training.deterministic:
        # cuBLAS reads this variable when its first handle is created
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    if device.type == "cuda":
        set_tf32(training.tf32)
        # cuDNN attention creates a new plan for every new shape, and the lengths of texts and masks vary
        torch.backends.cuda.enable_cudnn_sdp(False)
        mmf_api.log(
            f"fp32 matrix products and convolutions on {device} {'use' if training.tf32 else 'do not use'} TF32 "
            f"(training.tf32); algorithms are {'' if training.deterministic else 'not '}deterministic."
        )


def set_tf32(enabled: bool) -> None:
    """Enable or disable TF32 for fp32 matrix products and convolutions on CUDA."""
    # not torch.backends.*.fp32_precision: torch raises errors if code that reads the older flags runs after it
    torch.set_float32_matmul_precision("high" if enabled else "highest")
    torch.backends.cudnn.allow_tf32 = enabled


def log_unused_gpus(requested: str, device: torch.device) -> None:
    """Log how to train on all GPUs if a run with ``training.device: cuda`` uses only one of several GPUs."""
    count = torch.cuda.device_count() if requested == "cuda" and device.type == "cuda" and world_size() == 1 else 1
    if count > 1:
        mmf_api.log(f"Training on 1 of {count} GPUs. To use all of them, set training.sharding=ddp or fsdp.")
