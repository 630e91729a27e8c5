"""Imports MMF with all its models and datasets, in one thread: the process that forks those of tests imports this."""

import torch

torch.set_num_threads(1)  # first: a forked process cannot use its parent's threads

from mmf.utils.env import setup_imports  # noqa: E402

setup_imports()
