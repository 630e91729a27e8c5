"""Patch of ``key=value`` options: values may contain '=', and an unknown key is an error with close matches."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.command_line import split_options
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.config.close_matches import close_matches, did_you_mean
from mmf_flava.config.run import REPLACED_KEYS
from mmf_flava.errors import UserError

# MMF parses values as Python literals: `true` would be a string instead of True
PYTHON_WORDS = {"true": "True", "false": "False", "null": "None"}
FIELD = re.compile(r"([^\[\]]+)(?:\[(-?\d+)\])?")


@patch(
    "mmf.utils.configuration",
    what="a value may contain '=', true is True, a section can be null, and an unknown key is an error with close "
    "matches",
    why="MMF splits at every '=', parses true as a string, ignores the value of a section, and reports an unknown key "
    "without known keys",
    since="MMF 1.0.0rc1",
    until="MMF splits at the first '=', sets sections and suggests keys",
)
def merge(module: Any) -> None:
    @wrap(module.Configuration, "_convert_to_dot_list", only_if=flava_run.is_current)
    def _convert_to_dot_list(original: Any, self: Any, opts: list[str] | None) -> list[str]:
        return [f"{key}={value}" for key, value in split_options(opts or [])]

    if hasattr(module.Configuration, "_merge_with_dotlist"):

        @wrap(module.Configuration, "_merge_with_dotlist", only_if=flava_run.is_current)
        def _merge_method(original: Any, self: Any, config: Any, opts: list[str] | None) -> Any:
            return merge_options(config, opts, functools.partial(original, self))

    else:  # MMF's main branch

        @wrap(module, "_merge_with_dotlist", only_if=flava_run.is_current)
        def _merge_function(
            original: Any, config: Any, opts: list[str] | None, skip_missing: bool = False, log_info: bool = True
        ) -> Any:
            if skip_missing:
                # MMF first merges options into its defaults only; later it merges all options into the complete config
                opts = _options_of_defaults(opts or [], module.OmegaConf.to_container(config, resolve=False))
            merge_words = functools.partial(original, skip_missing=skip_missing, log_info=log_info)
            return merge_options(config, opts, merge_words)


def merge_options(config: Any, opts: list[str] | None, merge_words: Callable[[Any, list[str]], Any]) -> Any:
    """Merge the options into ``config``. MMF's ``merge_words`` merges all options except those that set a section.

    Raises:
        UserError: an option is not key=value, its key is not in ``config``, or its value has the wrong type.
    """
    from omegaconf import OmegaConf

    words: list[str] = []
    sections: set[str] = set()
    tree: Any = OmegaConf.to_container(config, resolve=False)
    for key, value in split_options(opts or []):
        check_key(_canonical(key), value, tree)
        if key in sections or isinstance(OmegaConf.select(config, key), Mapping):
            sections.add(key)
            # earlier options for keys inside the section are applied first
            config, words = merge_words(config, words), []
            OmegaConf.update(config, key, parse_section_value(key, value, tree), merge=False)
            tree = OmegaConf.to_container(config, resolve=False)
        else:
            # the form "key value key value" of MMF's options preserves '=' in values
            words += [key, PYTHON_WORDS.get(value, value)]
    return merge_words(config, words)


def _canonical(key: str) -> str:
    return "datasets" if key == "dataset" else key


def _options_of_defaults(opts: list[str], defaults: Mapping[str, Any]) -> list[str]:
    """Return the options that set an existing value, not a section, of the defaults."""
    found = []
    for key, value in split_options(opts):
        try:
            node = check_key(_canonical(key), value, defaults)
        except UserError:
            continue
        if not isinstance(node, Mapping):
            found.append(f"{key}={value}")
    return found


def check_key(key: str, value: str, tree: Mapping[str, Any]) -> Any:
    """Return the value of ``key`` in ``tree``. MMF's syntax ``key[0]`` for list entries is supported.

    Raises:
        UserError: the key does not exist.
    """
    node: Any = tree
    parents: list[str] = []
    for field in key.split("."):
        match = FIELD.fullmatch(field)
        name = match[1] if match else field
        if not isinstance(node, Mapping):
            raise UserError(f"{_option(key, value)}: {'.'.join(parents)} is a value and has no key {name!r}")
        if name not in node:
            section = ".".join(parents) if parents else "the configuration"
            replaced = REPLACED_KEYS.get(".".join([*parents, name]))
            matches = _close_keys(key, name, parents, node, tree)
            hint = f"; use {replaced}" if replaced else f"; {did_you_mean(matches)}" if matches else ""
            raise UserError(f"{_option(key, value)}: {section} has no key {name!r}{hint}")
        node = node[name]
        parents.append(field)
        if match and match[2] is not None:
            if not isinstance(node, Sequence) or isinstance(node, str):
                raise UserError(f"{_option(key, value)}: {name!r} is not a list")
            if not -len(node) <= int(match[2]) < len(node):
                raise UserError(f"{_option(key, value)}: the list {name!r} has {len(node)} entries")
            node = node[int(match[2])]
    return node


def parse_section_value(key: str, value: str, tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """Parse null or a section such as ``{a: 1}`` in YAML or Python syntax.

    Raises:
        UserError: the value is not a section or null, or has no space after a colon.
    """
    import yaml

    section = yaml.safe_load("null" if value == "None" else value)
    if section is None or isinstance(section, dict):
        _check_colons(section or {}, f"{key}={value}")
        return section
    example = next((leaf for leaf in _leaves(tree) if leaf.startswith(f"{key}.")), f"{key}.KEY")
    raise UserError(f"{key}={value}: {key} is a section. Set one of its keys, such as {example}=..., or null.")


def _check_colons(section: Mapping[Any, Any], option: str) -> None:
    for key, value in section.items():
        if isinstance(value, Mapping):
            _check_colons(value, option)
        elif value is None and ":" in str(key):  # YAML parses {a:1} as the key 'a:1' without a value
            raise UserError(f"{option}: YAML requires a space after each colon, as in {{a: 1}}.")


def _option(key: str, value: str) -> str:
    return f"Unknown option {key}={value}"


def _close_keys(key: str, name: str, parents: list[str], node: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """Return up to three known keys close to ``key``: with the wrong field corrected, or with the same last field.

    Args:
        name: the wrong field.
        parents: the fields before ``name``.
        node: the section without ``name``.
    """
    rest = key.split(".")[len(parents) + 1 :]
    leaves = list(_leaves(tree))
    candidates = [".".join([*parents, match, *rest]) for match in close_matches(name, node)]
    # if a later field is wrong too, use the closest existing key
    corrected = [known if not rest else (close_matches(known, leaves, 0.7) or [known])[0] for known in candidates]
    # a prefix of the key is not a correction
    leaves = [leaf for leaf in leaves if not key.startswith(f"{leaf}.")]
    same_name = [leaf for leaf in leaves if leaf.rpartition(".")[2] == key.rpartition(".")[2]]
    return list(dict.fromkeys(corrected or same_name or close_matches(key, leaves, 0.8)))[:3]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
