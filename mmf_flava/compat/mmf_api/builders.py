"""Builders and helpers that work with both supported versions of MMF."""

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
from mmf.utils.configuration import get_mmf_env, load_yaml
from mmf.utils.download import download_pretrained_model
from mmf.utils.logger import TensorboardLogger
from torch import nn
from tqdm.contrib.logging import logging_redirect_tqdm

from mmf_flava.config.close_matches import close_matches, did_you_mean
from mmf_flava.errors import UserError

__all__ = [
    "TensorboardLogger",
    "build_model",
    "build_optimizer",
    "build_scheduler",
    "find_in_mmf_zoo",
    "redirect_logging_to_tqdm",
    "save_dir",
]

FUSED_DEVICES = ("cpu", "cuda")


def build_model(config: Any) -> nn.Module:
    """Build the model of the config (``model: name`` with ``model_config.name``) and its losses."""
    attributes = config.model_config[config.model]
    with omegaconf.open_dict(attributes):
        attributes.model = config.model
    return mmf_build_model(attributes)


class _ParameterGroups(nn.Module):
    """Stand-in for a model: has parameter groups and the method that MMF's ``build_optimizer`` calls."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__()
        self.groups = groups

    def get_optimizer_parameters(self, config: Any) -> list[dict[str, Any]]:
        return self.groups


def build_optimizer(groups: list[dict[str, Any]], config: Any) -> torch.optim.Optimizer:
    """Build the optimizer of the config (``optimizer.type`` and ``optimizer.params``) for these parameter groups.

    Adam and AdamW use torch's fused kernel, unless ``optimizer.params`` or a group selects an implementation:
    ``foreach: true`` is torch's default on CUDA, ``fused: false`` its default on CPUs.
    """
    optimizer = mmf_build_optimizer(_ParameterGroups(groups), config)
    # not SGD: its fused kernel fails if a parameter has no gradient in the first update, or a sparse gradient
    if isinstance(optimizer, torch.optim.Adam):  # also AdamW
        for group in optimizer.param_groups:
            chosen = group["fused"] is not None or group["foreach"] is not None
            if not (chosen or group["capturable"] or group["differentiable"]):
                group["fused"] = all(p.is_floating_point() and p.device.type in FUSED_DEVICES for p in group["params"])
    return optimizer


def find_in_mmf_zoo(name: str) -> str:
    """Return the folder of a pretrained model of MMF's zoo, ``env.model_zoo``; MMF downloads it if it is missing.

    Raises:
        UserError: the zoo has no such name, or the model cannot be downloaded.
    """
    zoo: Any = omegaconf.OmegaConf.to_container(load_yaml(get_mmf_env(key="model_zoo")), resolve=True)
    names = sorted(_zoo_names(zoo))
    if name not in names:
        matches = close_matches(name, names)
        hint = did_you_mean(matches) if matches else "known names are in MMF's configs/zoo/models.yaml"
        raise UserError(f"checkpoint.resume_zoo: unknown name '{name}'; {hint}")
    try:
        return str(download_pretrained_model(name))
    except UserError:
        raise
    except Exception as error:  # MMF raises errors of several kinds
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise UserError(
            f"checkpoint.resume_zoo: {name} cannot be downloaded ({reason}). Check the network, or set "
            "checkpoint.resume_file to a local copy and checkpoint.resume_pretrained: true."
        ) from error


def _zoo_names(section: dict[str, Any], name: str = "") -> Iterator[str]:
    """Yield the names of MMF's zoo: of a model, or of a section with the model ``defaults``."""
    if name and ("resources" in section or "defaults" in section):
        yield name
    for key, value in section.items():
        if isinstance(value, dict) and "resources" not in section:
            yield from _zoo_names(value, f"{name}.{key}" if name else str(key))


@contextmanager
def redirect_logging_to_tqdm() -> Iterator[None]:
    """Context manager: log records are printed above a progress bar and do not break it."""
    loggers = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    # other loggers are excluded, because tqdm would add a terminal handler to them
    with logging_redirect_tqdm([logger for logger in (logging.root, *loggers) if _logs_to_terminal(logger)]):
        yield


def _logs_to_terminal(logger: logging.Logger) -> bool:
    terminal = (sys.stdout, sys.stderr)
    return any(isinstance(handler, logging.StreamHandler) and handler.stream in terminal for handler in logger.handlers)


def save_dir() -> str:
    """Return the run folder, ``env.save_dir``."""
    return str(get_mmf_env(key="save_dir"))
