"""A user's own callbacks, ``training.callbacks`` of MMF's main branch; 1.0.0rc10 has none."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmf.common.registry import registry
from omegaconf import MISSING

from mmf_flava.config.schema import near_miss, parse
from mmf_flava.errors import UserError


@dataclass
class CallbackConfig:
    """One entry of ``training.callbacks``."""

    # as it was registered: @registry.register_callback("my_callback")
    type: str = MISSING
    params: dict[str, Any] = field(default_factory=dict)


def check_callbacks(config: Any) -> None:
    """Looks at ``training.callbacks`` before anything is built.

    Raises:
        UserError: an entry without a type, a type that is not registered, or params that its class does not take.
    """
    for number, given in enumerate(config.training.get("callbacks") or []):
        where = f"training.callbacks[{number}]"
        if not isinstance(given, Mapping):
            raise UserError(f"{where} is {given!r}; write {{type: my_callback, params: {{...}}}}.")
        _check(parse(CallbackConfig, given, where), where)


def _check(wish: CallbackConfig, where: str) -> None:
    callback = registry.get_callback_class(wish.type)
    if callback is None:
        hint = near_miss(wish.type, registry.mapping["callback_name_mapping"])
        raise UserError(
            f"{where}.type: no callback named '{wish.type}' is registered; env.user_dir names code that is.{hint}"
        )
    signature = inspect.signature(callback)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    known = list(signature.parameters)[2:]  # the first two are config and trainer
    for name in wish.params:
        if name not in known and inspect.Parameter.VAR_KEYWORD not in kinds:
            raise UserError(f"'{name}' is not a key of {where}.params ({wish.type}).{near_miss(str(name), known)}")
    try:
        signature.bind(None, None, **wish.params)
    except TypeError as error:
        raise UserError(f"{where}.params: {wish.type} is {error}.") from None


def user_callbacks(config: Any, trainer: Any) -> list[Any]:
    """The callbacks of a recipe that was checked, in its order, built as MMF's own trainer builds them."""
    wishes = config.training.get("callbacks") or []
    return [registry.get_callback_class(wish.type)(config, trainer, **(wish.get("params") or {})) for wish in wishes]
