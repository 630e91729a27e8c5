"""The device that a process trains and evaluates on."""

import torch
from mmf.common.registry import registry

from mmf_flava.config.run import TrainingConfig


def prepare_device(wanted: str, training: TrainingConfig) -> torch.device:
    """Sets torch's threads and its search for NaN as the recipe has them, and tells MMF the device.

    Args:
        wanted: MMF's ``training.device``; without CUDA it is the CPU.
    """
    if training.num_threads is not None:
        torch.set_num_threads(training.num_threads)
    torch.autograd.set_detect_anomaly(training.detect_anomaly)
    cuda = torch.cuda.is_available() and "cuda" in wanted
    # MMF has set the current device, and compat the one of the local rank
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    registry.register("current_device", device)
    return device
