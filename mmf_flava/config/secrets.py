"""Configs without credentials, to be shown, logged or stored."""

from typing import Any

from mmf_flava.errors import hide_address


def hide_in(value: Any) -> Any:
    """Return a copy of nested dicts and lists with ``hide_address`` applied to every string."""
    if isinstance(value, dict):
        return {key: hide_in(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [hide_in(entry) for entry in value]
    return hide_address(value) if isinstance(value, str) else value


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
