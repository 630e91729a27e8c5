"""What is built alike on both of MMF's lines."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import omegaconf
import torch
from mmf.utils.build import build_model as mmf_build_model
from mmf.utils.build import build_optimizer as mmf_build_optimizer
from mmf.utils.build import build_scheduler
from mmf.utils.configuration import get_mmf_env
from mmf.utils.logger import TensorboardLogger
from torch import nn
from tqdm.contrib.logging import logging_redirect_tqdm

__all__ = [
    "TensorboardLogger",
    "build_model",
    "build_optimizer",
    "build_scheduler",
    "quiet_console",
    "save_dir",
]


def build_model(config: Any) -> nn.Module:
    """The model of the recipe (``model: name`` with ``model_config.name``), its losses included."""
    attributes = config.model_config[config.model]
    with omegaconf.open_dict(attributes):
        attributes.model = config.model
    return mmf_build_model(attributes)


class _Groups(nn.Module):
    """What MMF asks for its optimizer's parameters."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__()
        self.groups = groups

    def get_optimizer_parameters(self, config: Any) -> list[dict[str, Any]]:
        return self.groups


def build_optimizer(groups: list[dict[str, Any]], config: Any) -> torch.optim.Optimizer:
    """The optimizer of the recipe (``optimizer.type`` and ``params``) over these parameter groups."""
    return mmf_build_optimizer(_Groups(groups), config)


@contextmanager
def quiet_console() -> Iterator[None]:
    """Lets log lines pass above a progress bar instead of through it."""
    named = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    # of a logger without a handler for the terminal tqdm would make one that has
    with logging_redirect_tqdm([logger for logger in (logging.root, *named) if _speaks(logger)]):
        yield


def _speaks(logger: logging.Logger) -> bool:
    terminal = (sys.stdout, sys.stderr)
    return any(isinstance(handler, logging.StreamHandler) and handler.stream in terminal for handler in logger.handlers)


def save_dir() -> str:
    """The folder of this run, ``env.save_dir``."""
    return str(get_mmf_env(key="save_dir"))
