"""User callbacks (``training.callbacks``). MMF's main branch supports them; MMF 1.0.0rc10 does not."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmf.common.registry import registry

from mmf_flava.config.close_matches import close_matches
from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError

# keys of an entry of training.callbacks; MMF ignores other keys
KEYS = ("type", "params")


def check_callbacks(config: Any) -> None:
    """Validate ``training.callbacks`` before datasets and model are built.

    Raises:
        UserError: an entry has no type, a misspelt key, a type that is not registered, or params that the callback's
            class does not accept.
    """
    for number, entry in enumerate(config.training.get("callbacks") or []):
        where = f"training.callbacks[{number}]"
        if not isinstance(entry, Mapping):
            raise UserError(f"{where}: expected {{type: my_callback, params: {{...}}}}, got {entry!r}.")
        for key in entry:
            if key not in KEYS and close_matches(str(key), KEYS, 0.8):
                raise UserError(f"'{key}' is not a key of {where}.{suggestion(str(key), KEYS)}")
        if not entry.get("type"):
            raise UserError(f"{where}.type is not set. Set it to the name of a registered callback.")
        _check_entry(entry["type"], entry.get("params") or {}, where)


def _check_entry(name: str, params: Mapping[str, Any], where: str) -> None:
    callback = registry.get_callback_class(name)
    if callback is None:
        hint = suggestion(name, registry.mapping["callback_name_mapping"])
        raise UserError(
            f"{where}.type: no callback named '{name}' is registered. Set env.user_dir to the package that registers "
            f"it.{hint}"
        )
    if not isinstance(params, Mapping):
        raise UserError(f"{where}.params: expected keys and values, got {params!r}.")
    signature = inspect.signature(callback)
    parameters = signature.parameters.values()
    # config and trainer are positional arguments
    positional = signature.bind_partial(None, None).arguments
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [parameter for parameter in named if parameter not in positional]
    if all(parameter.kind != parameter.VAR_KEYWORD for parameter in parameters):
        for key in params:
            if key not in known:
                raise UserError(f"'{key}' is not a key of {where}.params ({name}).{suggestion(str(key), known)}")
    try:
        signature.bind(None, None, **params)
    except TypeError as error:
        raise UserError(f"{where}.params: {name} is {error}.") from None


def build_callbacks(config: Any, trainer: Any) -> list[Any]:
    """Build the callbacks of a validated config, in the same way and order as MMF's trainer."""
    entries = config.training.get("callbacks") or []
    return [
        registry.get_callback_class(entry.type)(config, trainer, **(entry.get("params") or {})) for entry in entries
    ]
