"""Patch of ``key=value`` options: values are YAML, and the error for an unknown key suggests similar keys."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.command_line import split_options
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.config.close_matches import close_matches, did_you_mean
from mmf_flava.config.paths import expand_home_folders
from mmf_flava.config.run import REPLACED_KEYS
from mmf_flava.errors import UserError, hide_secrets

# sections whose keys depend on another key, such as optimizer.type; the check of the complete config finds unknown keys
OPEN_SECTIONS = ("optimizer.params", "scheduler.params", "multitasking.params")
FIELD = re.compile(r"([^\[\]]+)((?:\[-?\d+\])*)")


@patch(
    "mmf.utils.configuration",
    what="values of options are YAML, paths may begin with ~, list entries can be set, and the error for an unknown "
    "key suggests similar keys",
    why="MMF splits at every '=', parses true as a string, ignores the value of a section or of a list entry that is a "
    "string, and suggests no keys for an unknown key; shells do not expand key=~/path",
    since="MMF 1.0.0rc1",
    until="MMF splits at the first '=', reads values as YAML, sets sections and entries, and suggests keys",
)
def merge(module: Any) -> None:
    @wrap(module.Configuration, "_build_opt_list", only_if=flava_run.is_current)
    def _build_opt_list(original: Any, self: Any, opts: list[str] | None) -> Any:
        return read_early_options(opts or [])

    if hasattr(module.Configuration, "_merge_with_dotlist"):

        @wrap(module.Configuration, "_merge_with_dotlist", only_if=flava_run.is_current)
        def _merge_method(original: Any, self: Any, config: Any, opts: list[str] | None) -> Any:
            return expand_home_folders(merge_options(config, opts or []))

    else:  # MMF's main branch

        @wrap(module, "_merge_with_dotlist", only_if=flava_run.is_current)
        def _merge_function(
            original: Any, config: Any, opts: list[str] | None, skip_missing: bool = False, log_info: bool = True
        ) -> Any:
            if skip_missing:
                # MMF first merges options into its defaults only; later it merges all options into the complete config
                opts = _options_of_defaults(opts or [], module.OmegaConf.to_container(config, resolve=False))
            return expand_home_folders(merge_options(config, opts or [], log_info))


# the options that MMF reads before the recipe
EARLY = ("config", "model", "dataset", "datasets", "env.user_dir")


def read_early_options(opts: Sequence[str]) -> Any:
    """Return a config with the options in ``EARLY``, which MMF reads before it merges all options.

    Raises:
        UserError: ``dataset`` and ``datasets`` have different values.
    """
    from omegaconf import OmegaConf

    config = OmegaConf.create({name: None for name in EARLY if "." not in name})
    for key, value in split_options(opts):
        if key in EARLY:
            parsed = parse_option(key, value)
            is_list = isinstance(parsed, list) and key in ("dataset", "datasets")
            OmegaConf.update(config, key, parsed if is_list or parsed is None else str(parsed))
    if None not in (config.dataset, config.datasets) and config.dataset != config.datasets:
        raise UserError(f"dataset={config.dataset} and datasets={config.datasets} are both set. Remove one of them.")
    return config


def merge_options(config: Any, opts: Sequence[str], log: bool = True) -> Any:
    """Set the options in ``config``, in the order of the command line, and return ``config``.

    Raises:
        UserError: an option is not key=value, its key is not in ``config``, or its value is not valid.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    options = list(split_options(opts))
    if dict(options).get("training.trainer", OmegaConf.select(config, "training.trainer")) == "flava":
        from mmf_flava.config.default_values import add_trainer_keys

        add_trainer_keys(config)
    for key, value in options:
        name = _canonical(key)
        tree: Any = OmegaConf.to_container(config, resolve=False)
        # an entry of a list may be a name or a section, such as a loss
        is_section = isinstance(check_key(name, value, tree), Mapping) and not name.endswith("]")
        parsed = parse_section_value(name, value, tree) if is_section else parse_option(key, value)
        if name == "datasets" and isinstance(parsed, list):
            parsed = ",".join(map(str, parsed))  # MMF splits a string
        if log:
            print(f"Overriding option {name} to {hide_secrets(value)}")
        try:
            _set(config, name, parsed)
        except OmegaConfBaseException as error:
            raise UserError(f"{key}={value}: {str(error).splitlines()[0]}. Correct the value.") from None
    return config


def parse_option(key: str, value: str) -> Any:
    """Return the value of an option that is not a section."""
    from mmf_flava.config.yaml_reader import parse_value

    return parse_value(value, f"{key}={value}")


def _set(config: Any, key: str, value: Any) -> None:
    """Set an existing key, or an entry of an existing list such as ``key[1]``, to a value of any type."""
    steps = [step for field in key.split(".") for step in _parse_field(field)]
    for step in steps[:-1]:
        config = config[step]
    config[steps[-1]] = value


def _parse_field(field: str) -> list[str | int]:
    """Split one part of a key into its name and indexes: ``a[0][-1]`` into a, 0 and -1."""
    match = FIELD.fullmatch(field)
    return [field] if match is None else [match[1], *map(int, re.findall(r"-?\d+", match[2]))]


def _canonical(key: str) -> str:
    return "datasets" if key == "dataset" else key


def _options_of_defaults(opts: list[str], defaults: Mapping[str, Any]) -> list[str]:
    """Return the options that set a key of MMF's defaults, except those that set a section."""
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
    """Return the value of ``key`` in the config ``tree``. MMF's syntax ``key[0]`` for list entries is supported.

    The value of a new key of a section in ``OPEN_SECTIONS`` is None.

    Raises:
        UserError: the key does not exist.
    """
    node: Any = tree
    parents: list[str] = []
    for field in key.split("."):
        name, *indexes = _parse_field(field)
        if not isinstance(node, Mapping):
            entry = f" Write {'.'.join(parents)}[{name}]." if _is_list(node) and str(name).isdigit() else ""
            kind = "a list" if _is_list(node) else "a value"
            raise UserError(f"{_option(key, value)}: {'.'.join(parents)} is {kind} and has no key {name!r}.{entry}")
        if name not in node and ".".join(parents) in OPEN_SECTIONS and key == ".".join([*parents, field]):
            return None
        if name not in node:
            raise UserError(f"{_option(key, value)}: {_unknown(key, str(name), parents, node, tree)}")
        node = node[name]
        parents.append(field)
        for index in indexes:
            whole = f"{'.'.join([*parents[:-1], str(name)])}=[...]"
            if not _is_list(node):
                raise UserError(f"{_option(key, value)}: {name!r} is not a list. Set the whole list with {whole}.")
            if not -len(node) <= int(index) < len(node):
                raise UserError(
                    f"{_option(key, value)}: index {index} is out of range: the list {name!r} has {len(node)} entries, "
                    f"counted from 0. Set the whole list with {whole}."
                )
            node = node[int(index)]
    return node


def _is_list(node: Any) -> bool:
    return isinstance(node, Sequence) and not isinstance(node, str | bytes)


def _unknown(key: str, name: str, parents: list[str], node: Mapping[str, Any], tree: Mapping[str, Any]) -> str:
    section = ".".join(parents) if parents else "the configuration"
    replaced = REPLACED_KEYS.get(".".join([*parents, name]))
    matches = _close_keys(key, name, parents, node, tree)
    hint = f"; use {replaced}" if replaced else f"; {did_you_mean(matches)}" if matches else ""
    return f"{section} has no key {name!r}{hint}"


def parse_section_value(key: str, value: str, tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """Parse null or a section such as ``{a: 1}`` in YAML or Python syntax.

    Raises:
        UserError: the value is neither a section nor null, or has a colon without a space after it.
    """
    section = parse_option(key, value)
    if section is None or isinstance(section, dict):
        return section
    example = next((leaf for leaf in _leaves(tree) if leaf.startswith(f"{key}.")), f"{key}.KEY")
    raise UserError(
        f"{key}={value}: {key} is a section. Set one of its keys, such as {example}=..., or set it to null."
    )


def _option(key: str, value: str) -> str:
    return f"Unknown option {key}={value}"


def _close_keys(key: str, name: str, parents: list[str], node: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """Return up to three known keys that are similar to ``key`` or have the same last field.

    Args:
        name: the wrong field.
        parents: the fields before ``name``.
        node: the section that does not contain ``name``.
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
