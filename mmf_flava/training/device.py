"""The device that a process trains and evaluates on."""

import torch
from mmf.common.registry import registry

from mmf_flava.config.run import TrainingConfig


def prepare_device(requested: str, training: TrainingConfig) -> torch.device:
    """Return this process's device and register it with MMF; set torch's thread count and anomaly detection.

    Args:
        requested: MMF's ``training.device``; the CPU is used if CUDA is not available.
    """
    if training.num_threads is not None:
        torch.set_num_threads(training.num_threads)
    torch.autograd.set_detect_anomaly(training.detect_anomaly)
    cuda = torch.cuda.is_available() and "cuda" in requested
    # MMF or compat has already set the current device to the one of the local rank
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    registry.register("current_device", device)
    return device
