"""Validation of the config sections ``optimizer`` and ``scheduler``.

This module checks the values of known params. ``compat.mmf_api.registered`` checks that the class of the optimizer or
scheduler has the params.
"""

from collections.abc import Mapping
from typing import Any

from mmf_flava.config.ranges import Range, check_value
from mmf_flava.config.schema import check_keys, check_type, suggestion
from mmf_flava.errors import UserError

FRACTION = Range(at_least=0, below=1)
# params of the optimizers of torch and of MMF: type and range
OPTIMIZER_PARAMS: dict[str, tuple[Any, Range]] = {
    "lr": (float, Range(at_least=0)),
    "betas": (list[float], Range(at_least=0, below=1, length=2)),
    "weight_decay": (float, Range(at_least=0)),
    "eps": (float | list[Any], Range(above=0)),
    "momentum": (float, FRACTION),
    "dampening": (float, Range(at_least=0, at_most=1)),
    "alpha": (float, Range(at_least=0, at_most=1)),
    "rho": (float, Range(at_least=0, at_most=1)),
    "lr_decay": (float, Range(at_least=0)),
    "momentum_decay": (float, Range(at_least=0)),
    "initial_accumulator_value": (float, Range(at_least=0)),
}
UPDATES = (int, Range(at_least=0))
# params of the scheduler of mmf_flava, and of MMF's schedulers, which pass them to functions of transformers
SCHEDULER_PARAMS: dict[str, dict[str, tuple[Any, Range]]] = {
    "pythia": {"last_epoch": (int, Range(at_least=-1))},
    "warmup_linear": {
        "num_warmup_steps": UPDATES,
        "num_training_steps": (int, Range(at_least=1)),
        "last_epoch": (int, Range(at_least=-1)),
    },
}
SCHEDULER_PARAMS["warmup_cosine"] = {
    **SCHEDULER_PARAMS["warmup_linear"],
    "num_cycles": (float, Range(above=0)),
}
SCHEDULER_PARAMS["flava_cosine"] = {
    "num_training_steps": (int, Range(at_least=1)),
    "num_warmup_steps": (int | None, Range(at_least=0)),
    "warmup_epochs": (int | None, Range(at_least=0)),
    "min_lr": (float, Range(at_least=0)),
    "weight_decay_end": (float | None, Range(at_least=0)),
}
# keys of ``optimizer`` on MMF's main branch
MMF_MAIN = ("allow_unused_parameters", "enable_state_sharding")
# params without a default
REQUIRED = {
    "warmup_linear": ("num_warmup_steps", "num_training_steps"),
    "warmup_cosine": ("num_warmup_steps", "num_training_steps"),
    "flava_cosine": ("num_training_steps",),
}


def check_optimization(config: Mapping[str, Any]) -> None:
    """Check the values of ``optimizer`` and ``scheduler``.

    Args:
        config: the complete config as a dict, with its interpolations resolved. ``check_optimization_sections`` must be
            called before.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or is out of range.
    """
    trains = "train" in str(config.get("run_type", "train"))
    optimizer, scheduler = config.get("optimizer") or {}, config.get("scheduler") or {}
    if trains and not optimizer.get("type"):
        raise UserError("optimizer.type must be given. Set it to a class of torch.optim, such as AdamW.")
    params = optimizer.get("params") or {}
    for name, value in params.items():
        if name in OPTIMIZER_PARAMS:
            _check_param(f"optimizer.params.{name}", value, OPTIMIZER_PARAMS[name])
    if trains and config.get("model") == "flava_classification" and "lr" not in params:
        raise UserError(
            "optimizer.params.lr must be given, because lr_multiplier of flava_classification multiplies it."
        )
    check_scheduler(scheduler, required=trains and bool(config["training"].get("lr_scheduler")))


def check_scheduler(scheduler: Mapping[str, Any], required: bool) -> None:
    """Check the params of ``flava_cosine`` and of MMF's own schedulers.

    Other schedulers are checked in ``compat.mmf_api.registered``.

    Args:
        required: whether a missing param that has no default is an error.
    """
    name, params = scheduler.get("type", "pythia"), scheduler.get("params") or {}
    if required and not name:
        raise UserError(
            "scheduler.type must be given. Set it, e.g. to warmup_cosine, or set training.lr_scheduler: false."
        )
    known = SCHEDULER_PARAMS.get(name)
    if known is None:
        return
    check_keys(params, known, "scheduler.params")
    for key, value in params.items():
        _check_param(f"scheduler.params.{key}", value, known[key])
    for key in REQUIRED.get(str(name), ()):
        if required and key not in params:
            raise UserError(f"scheduler.params.{key} must be given for scheduler.type: {name}.")


def check_optimization_sections(config: Mapping[str, Any]) -> None:
    """Check the keys of the sections ``optimizer`` and ``scheduler`` and the types of values, except the params."""
    optimizer = _check_keys(config, "optimizer", MMF_MAIN)
    for key in MMF_MAIN:
        check_type(bool | None, optimizer.get(key), f"optimizer.{key}")
    _check_keys(config, "scheduler")


def _check_keys(config: Mapping[str, Any], name: str, others: tuple[str, ...] = ()) -> Mapping[str, Any]:
    section = config.get(name) or {}
    check_type(dict[str, Any], section, name)
    check_keys(section, ("type", "params", *others), name)
    check_type(str | None, section.get("type"), f"{name}.type")
    check_type(dict[str, Any], section.get("params", {}), f"{name}.params")
    return section


def _check_param(key: str, value: Any, expected: tuple[Any, Range]) -> None:
    kind, limits = expected
    check_type(kind, value, key)
    check_value(value, limits, key)


def check_arguments(params: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> None:
    """Check params against the arguments of a class: unknown names, missing params, and values of the wrong type.

    Args:
        defaults: default of each argument; ``...`` for a required argument.
    """
    for name, value in params.items():
        if name not in defaults:
            raise UserError(f"'{name}' is not a key of {where}.{suggestion(str(name), defaults)}")
        default = defaults[name]
        if isinstance(default, bool | int | float | str):
            kind = float if isinstance(default, float) or type(default) is int else type(default)
            check_type(kind, value, f"{where}.{name}")
        elif isinstance(default, tuple):
            check_type(list[Any], value, f"{where}.{name}")
    for name, default in defaults.items():
        if default is ... and name not in params:
            raise UserError(f"{where}.{name} must be given.")
