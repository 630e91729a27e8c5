"""Validation of the names and params of registered optimizers, schedulers, losses, models and datasets."""

import contextlib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mmf.common.registry import registry
from mmf.utils.configuration import load_yaml
from omegaconf import OmegaConf

from mmf_flava.config.model import check_needs
from mmf_flava.config.optimization import SCHEDULER_PARAMS, check_arguments
from mmf_flava.config.schema import check_keys, check_type, suggestion
from mmf_flava.errors import UserError

# keys that any dataset of MMF may have: splits, and processors of FLAVA's inputs
COMMON = {"train", "val", "test", "image_processor", "text_processor"}


def check_registered(config: Mapping[str, Any]) -> None:
    """Check the names of registered classes in a config, and the params and keys that these classes define.

    Args:
        config: the complete config as a dict, with its interpolations resolved.

    Raises:
        UserError: a class is not registered, or a param or key is unknown to its class.
    """
    _check_optimizer(config["optimizer"])
    _check_scheduler(config["scheduler"])
    model = config["model"]
    section = (config["model_config"] or {}).get(model) or {}
    _check_losses(section.get("losses") or [], f"model_config.{model}.losses")
    _check_sections(config["model_config"], {model}, "model_config", registry.mapping["model_name_mapping"])
    datasets = config["datasets"]
    names = {name.strip() for name in (datasets.split(",") if isinstance(datasets, str) else datasets)}
    _check_sections(config["dataset_config"], names, "dataset_config", registry.mapping["builder_name_mapping"])


def _check_optimizer(section: Mapping[str, Any]) -> None:
    name, params = section.get("type"), section.get("params") or {}
    if not name:
        return
    optimizer = getattr(torch.optim, name, None) or registry.get_optimizer_class(name)
    if not inspect.isclass(optimizer) or optimizer is torch.optim.Optimizer:
        known = {*registry.mapping["optimizer_name_mapping"], *_torch_optimizers()}
        raise UserError(f"optimizer.type: unknown optimizer '{name}'.{suggestion(name, known)}")
    _check_class(optimizer, params, "optimizer.params")


def _torch_optimizers() -> Iterator[str]:
    for name, value in vars(torch.optim).items():
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer:
            yield name


def _check_scheduler(section: Mapping[str, Any]) -> None:
    name = section.get("type")
    if not name or name in SCHEDULER_PARAMS:
        return
    scheduler = registry.get_scheduler_class(name)
    if scheduler is None:
        hint = suggestion(name, registry.mapping["scheduler_name_mapping"])
        raise UserError(f"scheduler.type: unknown scheduler '{name}'.{hint}")
    _check_class(scheduler, section.get("params") or {}, "scheduler.params")


def _check_class(cls: Any, params: Mapping[str, Any], where: str) -> None:
    """Check params against the arguments of an optimizer or scheduler class, except the first argument.

    If the class has ``**kwargs``, all names are accepted.
    """
    arguments = list(inspect.signature(cls).parameters.values())[1:]
    if any(argument.kind == argument.VAR_KEYWORD for argument in arguments):
        return
    named = [argument for argument in arguments if argument.kind != argument.VAR_POSITIONAL]
    missing = inspect.Parameter.empty
    check_arguments(params, {a.name: ... if a.default is missing else a.default for a in named}, where)


def _check_losses(losses: Any, where: str) -> None:
    """Check the types and params of losses: a list of names or of ``{type, params}``."""
    for number, entry in enumerate(losses if isinstance(losses, list) else []):
        name = entry.get("type") if isinstance(entry, Mapping) else entry
        params = (entry.get("params") or {}) if isinstance(entry, Mapping) else {}
        loss = registry.get_loss_class(name)
        if loss is None:
            hint = suggestion(str(name), registry.mapping["loss_name_mapping"])
            raise UserError(f"{where}: unknown loss '{name}'.{hint}")
        if where == "model_config.flava.losses" and hasattr(loss, "needs"):
            check_needs(str(name), loss.needs)
        if isinstance(params, Mapping) and "params" not in inspect.signature(loss).parameters:
            has_none = loss.__init__ is torch.nn.Module.__init__
            parameters = [] if has_none else list(inspect.signature(loss).parameters.values())
            if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
                check_keys(params, [parameter.name for parameter in parameters], f"{where}[{number}].params")


def _check_sections(sections: Mapping[str, Any], selected: set[str], where: str, registered: Mapping[str, Any]) -> None:
    """Check the names in ``model_config`` or ``dataset_config``, and the keys of classes outside of mmf_flava."""
    defaults: dict[str, Any] = {}
    for name in selected:
        path = registered[name].config_path() if name in registered else None
        if path is not None:
            content = OmegaConf.to_container(load_yaml(path), resolve=False)
            defaults.update((content.get(where) or {}) if isinstance(content, dict) else {})
    known = {*registered, *defaults}
    for name in sections or ():
        if name not in known:
            raise UserError(f"'{name}' is not a key of {where}.{suggestion(str(name), selected)}")
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
