"""All wrong keys of a recipe and of the command line. A run stops at the first one."""

import contextlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmf.utils.configuration import resolve_cache_dir, resolve_dir
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import mmf_flava
from mmf_flava.compat import early_config
from mmf_flava.compat.source_names import read_names_of
from mmf_flava.errors import UserError

MAX_PROBLEMS = 50
UNKNOWN = re.compile(r"'([\w.-]+)' is not a key of ([\w.]*\w)")
KEY = re.compile(r"([a-z_]+(?:\.\w+)+)(?:\[\d+\])?(?::| is | must | was | =|=)")


def find_wrong_keys(recipe: str, overrides: Sequence[str]) -> tuple[list[str], Any]:
    """Return a message for each wrong key, and the config without them.

    A wrong value is replaced by MMF's default, and an unknown key is removed, so that the next problem is found.

    Returns:
        The messages, and the complete config; None if it cannot be built, e.g. because the recipe was not found.
    """
    problems: list[str] = []
    mmf, torch = (Path(str(importlib.util.find_spec(name).origin)).parent for name in ("mmf", "torch"))  # type: ignore[union-attr]
    names = read_names_of(mmf, Path(mmf_flava.__file__).parent)
    given = list(overrides)
    with _resolvers():
        config = None
        while config is None and len(problems) < MAX_PROBLEMS:
            try:
                config = early_config.build([f"config={recipe}", *given], mmf, names)
            except UserError as error:
                problems.append(str(error))
                wrong = [option for option in given if option in str(error) or option.partition("=")[0] in str(error)]
                if not wrong:
                    return problems, None
                given.remove(wrong[0])
            else:
                if config is None:  # a run with env.user_dir, whose keys are checked after its import
                    return problems, None
        while config is not None and len(problems) < MAX_PROBLEMS:
            try:
                early_config.check_config(config, names, mmf, torch)
                break
            except UserError as error:
                if str(error) in problems or not _repair(config, str(error)):
                    problems += [str(error)] * (str(error) not in problems)
                    break
                problems.append(str(error))
        return problems, None if config is None else config.values


def _repair(config: early_config.Config, message: str) -> bool:
    """Remove the key that a message names, or set it to its default. Return whether the config has changed."""
    if match := UNKNOWN.search(message):
        section, key = OmegaConf.select(config.values, match[2]), match[1]
        if OmegaConf.is_dict(section) and key in section.keys():  # noqa: SIM118 (also keys without a value)
            del section[key]
            return True
        return False
    if (match := KEY.match(message)) is None:
        return False
    parent, _, name = match[1].rpartition(".")
    section = OmegaConf.select(config.values, parent)
    if not OmegaConf.is_dict(section) or name not in section:
        return False
    default = OmegaConf.select(config.defaults, match[1])
    with contextlib.suppress(OmegaConfBaseException):
        if default is not None and default != section.get(name):
            section[name] = default
            return True
    del section[name]
    return True


@contextlib.contextmanager
def _resolvers() -> Any:
    """Context manager: register MMF's resolvers, which MMF registers with its first config."""
    for name, resolver in (("resolve_cache_dir", resolve_cache_dir), ("resolve_dir", resolve_dir)):
        if not OmegaConf.has_resolver(name):
            OmegaConf.register_new_resolver(name, resolver)
    for name in ("env", "device_count"):
        if not OmegaConf.has_resolver(name):
            OmegaConf.register_new_resolver(name, early_config.RESOLVERS[name])
    yield
