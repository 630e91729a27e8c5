"""Removal of credentials from addresses and configs that are shown, logged or stored."""

import re
from typing import Any

MASK = "***"
ADDRESS = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)([^\s\"'<>]+)")
AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:]*)(:\d*)?")  # host and port
INTERPOLATION = r"\$\{[^{}]*\}"
INTERPOLATED = re.compile(rf"(([\w.-]*:|&?[\w.-]*=)?{INTERPOLATION})+")  # no literal password or parameter


def hide_secrets(text: object) -> str:
    """Return a text whose addresses have neither a user name and password nor a query and fragment.

    A query may be a token or a signature. ``https://user:word@host/x?token=y`` becomes ``https://***@host/x?***``.
    """
    return ADDRESS.sub(lambda match: match[1] + _hide(match[2]), str(text))


def hide_in(value: Any) -> Any:
    """Return a copy of nested dicts and lists with ``hide_secrets`` applied to every string."""
    if isinstance(value, dict):
        return {key: hide_in(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(entry) for entry in value]
    return hide_secrets(value) if isinstance(value, str) else value


def to_public(config: Any) -> Any:
    """Return a config as nested dicts and lists that may be stored and logged.

    Interpolations such as ``${oc.env:KEY}`` are not resolved, because environment variables may contain secrets.
    """
    from omegaconf import OmegaConf

    return hide_in(OmegaConf.to_container(config, resolve=False))


def to_public_yaml(config: Any) -> str:
    """Return the YAML text of ``to_public``."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(to_public(config)))


def _hide(rest: str) -> str:
    """Hide the secrets of an address without its scheme."""
    path, mark, query = _split(rest, "?#")
    authority, slash, path = _split(path, "/\\")
    user, at, host = authority.rpartition("@")
    if not AUTHORITY.fullmatch(re.sub(INTERPOLATION, "0", host)):  # a password with a slash would look like a port
        return MASK
    return _mask(user) + at + host + slash + path + mark + _mask(query)


def _mask(secret: str) -> str:
    return secret if not secret or INTERPOLATED.fullmatch(secret) else MASK


def _split(text: str, marks: str) -> tuple[str, str, str]:
    """Split a text at the first of several characters."""
    found = re.search(f"[{re.escape(marks)}]", text)
    return (text, "", "") if found is None else (text[: found.start()], found[0], text[found.end() :])
