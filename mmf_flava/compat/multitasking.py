"""Validation of the config section ``multitasking`` against the registered iteration strategies."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from mmf_flava.config.run import MultitaskingConfig
from mmf_flava.config.schema import parse_section, suggestion
from mmf_flava.errors import UserError


def parse_multitasking(
    section: Any, names: Sequence[str], schemas: Mapping[str, type], hint: str
) -> MultitaskingConfig:
    """Validate the section ``multitasking``, and remove ``params`` of other iteration strategies.

    Args:
        names: the datasets of the run.
        schemas: config class of each registered iteration strategy.
        hint: advice for the error message about an unknown strategy.
    """
    config = parse_section(MultitaskingConfig, section, "multitasking")
    if config.type not in schemas:
        raise UserError(f"multitasking.type: {config.type!r} is not one of {', '.join(sorted(schemas))}; {hint}.")
    # recipes are merged key by key, so the params of the included recipe's type may remain
    all_params = {field.name for schema in schemas.values() for field in fields(schema)}
    type_params = {field.name for field in fields(schemas[config.type])}
    config.params = {key: value for key, value in config.params.items() if key in type_params or key not in all_params}
    parse_section(schemas[config.type], {"name": config.type, **config.params}, "multitasking.params")
    if config.type == "ratios" and config.enabled and len(names) > 1:
        _check_ratios(config.params["sampling_ratios"], names)
    return config


def _check_ratios(ratios: Mapping[str, float], names: Sequence[str]) -> None:
    for name in ratios:
        if name not in names:
            raise UserError(
                f"multitasking.params.sampling_ratios: '{name}' is not a dataset of this run.{suggestion(name, names)}"
            )
    if missing := [name for name in names if ratios.get(name, 0) <= 0]:
        raise UserError(f"multitasking.params.sampling_ratios: the weight of '{missing[0]}' must be positive.")
