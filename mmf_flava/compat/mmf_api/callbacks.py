"""The user's callbacks, ``training.callbacks``, which MMF's main branch has and 1.0.0rc10 lacks."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmf.common.registry import registry

from mmf_flava.config.close_matches import close_matches
from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError

# of an entry; MMF ignores all other keys
KEYS = ("type", "params")


def check_callbacks(config: Any) -> None:
    """Check ``training.callbacks`` before anything is built.

    Raises:
        UserError: an entry without a type, a misspelt key, a type that is not registered, or params that its class
            does not accept.
    """
    for number, entry in enumerate(config.training.get("callbacks") or []):
        where = f"training.callbacks[{number}]"
        if not isinstance(entry, Mapping):
            raise UserError(f"{where}: expected {{type: my_callback, params: {{...}}}}, got {entry!r}.")
        for key in entry:
            if key not in KEYS and close_matches(str(key), KEYS, 0.8):
                raise UserError(f"'{key}' is not a key of {where}.{suggestion(str(key), KEYS)}")
        if not entry.get("type"):
            raise UserError(f"{where}.type must be given.")
        _check_entry(entry["type"], entry.get("params") or {}, where)


def _check_entry(name: str, params: Mapping[str, Any], where: str) -> None:
    callback = registry.get_callback_class(name)
    if callback is None:
        hint = suggestion(name, registry.mapping["callback_name_mapping"])
        raise UserError(
            f"{where}.type: no callback named '{name}' is registered. Set env.user_dir to the code that does.{hint}"
        )
    if not isinstance(params, Mapping):
        raise UserError(f"{where}.params: expected keys and values, got {params!r}.")
    signature = inspect.signature(callback)
    parameters = signature.parameters.values()
    # config and trainer are passed by position
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
    """Build the callbacks of a checked recipe in its order, as MMF's own trainer does."""
    entries = config.training.get("callbacks") or []
    return [
        registry.get_callback_class(entry.type)(config, trainer, **(entry.get("params") or {})) for entry in entries
    ]
