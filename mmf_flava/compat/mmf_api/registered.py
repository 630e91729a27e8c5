"""Validation of the names and params of registered classes: optimizers, losses, metrics, models, datasets."""

import contextlib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmf.common.registry import registry
from mmf.utils.configuration import load_yaml
from omegaconf import OmegaConf

from mmf_flava.compat.name_checks import check_names, check_section_names
from mmf_flava.compat.optimizer_check import check_class, check_optimizer, torch_optimizers
from mmf_flava.config.model import check_mean_over, check_needs
from mmf_flava.config.optimization import SCHEDULER_PARAMS
from mmf_flava.config.schema import check_keys, check_type, suggestion
from mmf_flava.errors import UserError

# keys that any dataset of MMF may have: splits, processors of FLAVA's inputs, and the keys of EntriesConfig
COMMON = {"train", "val", "test", "image_processor", "text_processor", "max_bad_share"}


def check_registered(config: Mapping[str, Any]) -> None:
    """Check the names of registered classes in a config, and the params and keys that these classes define.

    Args:
        config: the complete config as a dict, with its interpolations resolved.

    Raises:
        UserError: a class is not registered, or a param or key is unknown to its class.
    """
    known = {kind: registry.mapping[f"{kind}_name_mapping"] for kind in ("scheduler", "loss", "metric")}
    optimizers = registry.mapping["optimizer_name_mapping"]
    check_names(config, {**known, "optimizer": {*optimizers, *torch_optimizers()}})
    check_optimizer(config["optimizer"], optimizers)
    scheduler = config["scheduler"]
    if scheduler.get("type") and scheduler["type"] not in SCHEDULER_PARAMS:
        check_class(registry.get_scheduler_class(scheduler["type"]), scheduler.get("params") or {}, "scheduler.params")
    model = config["model"]
    section = (config["model_config"] or {}).get(model) or {}
    _check_losses(section.get("losses") or [], f"model_config.{model}.losses")
    _check_sections(config["model_config"], {model}, "model_config", registry.mapping["model_name_mapping"])
    datasets = config["datasets"]
    names = {name.strip() for name in (datasets.split(",") if isinstance(datasets, str) else datasets)}
    _check_sections(config["dataset_config"], names, "dataset_config", registry.mapping["builder_name_mapping"])


def _check_losses(losses: Any, where: str) -> None:
    """Check the params of losses: a list of names or of ``{type, params}``."""
    for number, entry in enumerate(losses if isinstance(losses, list) else []):
        name = entry.get("type") if isinstance(entry, Mapping) else entry
        params = (entry.get("params") or {}) if isinstance(entry, Mapping) else {}
        loss = registry.get_loss_class(name)
        if where == "model_config.flava.losses" and hasattr(loss, "needs"):
            check_needs(str(name), loss.needs)
            check_mean_over(str(name), getattr(loss, "mean_over", "samples"))
        if isinstance(params, Mapping) and "params" not in inspect.signature(loss).parameters:
            has_none = loss.__init__ is torch.nn.Module.__init__
            parameters = [] if has_none else list(inspect.signature(loss).parameters.values())
            if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
                check_keys(params, [parameter.name for parameter in parameters], f"{where}[{number}].params")
            if loss.__module__.startswith("mmf_flava."):
                loss(**params)  # checks the values


def _check_sections(sections: Mapping[str, Any], selected: set[str], where: str, registered: Mapping[str, Any]) -> None:
    """Check the names in ``model_config`` or ``dataset_config``, and the keys of classes outside of mmf_flava."""
    defaults: dict[str, Any] = {}
    for name in selected:
        path = registered[name].config_path() if name in registered else None
        if path is not None:
            content = OmegaConf.to_container(load_yaml(path), resolve=False)
            defaults.update((content.get(where) or {}) if isinstance(content, dict) else {})
    check_section_names({where: sections}, where, selected, {*registered, *defaults})
    for name in selected:
        if name in sections and name in defaults and not registered[name].__module__.startswith("mmf_flava."):
            read = functools.partial(_names_in_source, registered[name])
            _check_tree(sections[name], defaults[name], f"{where}.{name}", read)


def _check_tree(section: Any, default: Any, where: str, names_in_source: Callable[[], set[str]]) -> None:
    """Check the keys and the types of a section against the YAML file of its class.

    A key that is not in the file must occur in the source of the class. A mapping that is empty or null in the file,
    and ``params``, may have any keys. Values may be null.
    """
    if section is None or default is None:
        return
    if isinstance(default, Mapping):
        check_type(dict[str, Any], section, where)
        if not default or where.endswith(".params"):
            return
        for key, value in section.items():
            if key in default:
                _check_tree(value, default[key], f"{where}.{key}", names_in_source)
            elif key not in COMMON and key not in names_in_source():
                raise UserError(f"'{key}' is not a key of {where}.{suggestion(str(key), default)}")
    elif isinstance(default, bool | int | float):
        check_type(bool if isinstance(default, bool) else float, section, where)


@functools.cache
def _names_in_source(cls: type) -> set[str]:
    """Return attribute names and strings in the source of a class, its bases and the classes its module imports."""
    imported = [value for value in vars(sys.modules[cls.__module__]).values() if inspect.isclass(value)]
    modules = {base.__module__ for owner in (cls, *imported) for base in owner.__mro__}
    names: set[str] = set()
    for name in modules:
        if name.partition(".")[0] not in ("builtins", "abc", "collections", "torch", "typing", "omegaconf"):
            with contextlib.suppress(OSError, TypeError):
                names.update(re.findall(r"[.\"'](\w+)", inspect.getsource(sys.modules[name])))
    return names
