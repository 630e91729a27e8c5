"""Environment variables in a config. ``${oc.env:N}`` is a string; ``${env:N}`` is a number if the text is a number."""

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from omegaconf import OmegaConf

from mmf_flava.config.schema import WrongType
from mmf_flava.config.yaml_reader import parse_value
from mmf_flava.errors import UserError

T = TypeVar("T")
VARIABLE = re.compile(r"\$\{(?:oc\.)?env:\s*(\w+)[^{}]*\}")
STEP = re.compile(r"[^.\[\]]+")


def decode_variables(config: Any, check: Callable[[], T]) -> T:
    """Return the result of ``check``. Values that are environment variables get the type that ``check`` expects.

    If ``check`` refuses the type of a value that the config takes from an environment variable, a string is replaced by
    the value that YAML reads without quotes, and a number by the text of the variable. Then ``check`` is called again.

    Args:
        config: the complete config, changed in place.
        check: raises ``WrongType`` for a value of the wrong type.

    Raises:
        UserError: raised by ``check``.
    """
    converted: set[str] = set()
    while True:
        try:
            return check()
        except WrongType as error:
            if error.key in converted or not _convert(config, error.key):
                raise
            converted.add(error.key)


def _convert(config: Any, key: str) -> bool:
    """Convert the value of a key between text and number if it is an environment variable; return whether it was."""
    *parents, name = STEP.findall(key)
    section = config
    for step in parents:
        section = section[int(step) if OmegaConf.is_list(section) else step]
    plain: Any = OmegaConf.to_container(section, resolve=False)
    step = int(name) if isinstance(plain, list) else name
    variable = VARIABLE.fullmatch(plain[step]) if isinstance(plain[step], str) else None
    if variable is None:
        return False
    value = section[step]
    if isinstance(value, str):
        try:
            section[step] = parse_value(value, f"{key}={value}")
        except UserError:
            return False
    else:
        section[step] = os.environ.get(variable[1], str(value))
    return True
