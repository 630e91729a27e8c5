"""key=value on MMF's command line: values may hold '=', and an unknown key is answered with the near miss."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure
from mmf_flava.config.nearness import did_you_mean, near
from mmf_flava.config.run import MOVED
from mmf_flava.errors import UserError

# MMF reads values as Python, so that `checkpoint.resume=true` is a word, and not the True that it asks for
WORDS = {"true": "True", "false": "False", "null": "None"}
FIELD = re.compile(r"([^\[\]]+)(?:\[(-?\d+)\])?")


@cure(
    "mmf.utils.configuration",
    when="after",
    what="a value may hold '=', true is True, a section can be null, and an unknown key is an error with the near miss",
    why="MMF splits at every '=', takes true for a word, forgets the value of a section, and names an unknown key "
    "without saying what there is",
    since="MMF 1.0.0rc1",
    until="MMF splits at the first '=', sets sections and suggests keys",
    needed=lambda module: (
        hasattr(module.Configuration, "_merge_with_dotlist") or hasattr(module, "_merge_with_dotlist")
    ),
)
def merge(module: ModuleType) -> None:
    def _convert_to_dot_list(self: Any, opts: list[str] | None) -> list[str]:
        return [f"{key}={value}" for key, value in split(opts or [])]

    module.Configuration._convert_to_dot_list = _convert_to_dot_list
    if hasattr(module.Configuration, "_merge_with_dotlist"):
        method = module.Configuration._merge_with_dotlist

        def _merge_with_dotlist(self: Any, config: Any, opts: list[str] | None) -> Any:
            return merged(config, opts, functools.partial(method, self))

        module.Configuration._merge_with_dotlist = _merge_with_dotlist
    else:  # MMF's main branch
        function = module._merge_with_dotlist

        def merge_with_dotlist(
            config: Any, opts: list[str] | None, skip_missing: bool = False, log_info: bool = True
        ) -> Any:
            if skip_missing:
                # of the defaults alone, before the model, the datasets and the YAML are known: all is checked later
                opts = _of_defaults(opts or [], module.OmegaConf.to_container(config, resolve=False))
            return merged(config, opts, functools.partial(function, skip_missing=skip_missing, log_info=log_info))

        vars(module)["_merge_with_dotlist"] = merge_with_dotlist


def merged(config: Any, opts: list[str] | None, merge_words: Callable[[Any, list[str]], Any]) -> Any:
    """``config`` with the options in it: sections as a whole by ourselves, the rest by MMF's ``merge_words``.

    Raises:
        UserError: an option is no key=value, its key is not in ``config``, or its value cannot be what is there.
    """
    from omegaconf import OmegaConf

    words: list[str] = []
    sections: set[str] = set()
    tree: Any = OmegaConf.to_container(config, resolve=False)
    for key, value in split(opts or []):
        check_key("datasets" if key == "dataset" else key, value, tree)
        if key in sections or isinstance(OmegaConf.select(config, key), Mapping):
            sections.add(key)
            # what was said of keys inside it stands before it on the command line
            config, words = merge_words(config, words), []
            OmegaConf.update(config, key, section(key, value, tree), merge=False)
            tree = OmegaConf.to_container(config, resolve=False)
        else:
            # MMF's other spelling of its options, "key value key value", leaves the values alone
            words += [key, WORDS.get(value, value)]
    return merge_words(config, words)


def _of_defaults(opts: list[str], defaults: Mapping[str, Any]) -> list[str]:
    """The options that set a value (no section) of the defaults."""
    found = []
    for key, value in split(opts):
        try:
            node = check_key("datasets" if key == "dataset" else key, value, defaults)
        except UserError:
            continue
        if not isinstance(node, Mapping):
            found.append(f"{key}={value}")
    return found


def split(opts: list[str]) -> list[tuple[str, str]]:
    """``["a.b=c=d"]`` -> ``[("a.b", "c=d")]``; also MMF's older ``["a.b", "c=d"]``, which the first word decides."""
    if opts and "=" not in opts[0]:
        if len(opts) % 2 or opts[0].endswith((".yaml", ".yml")):
            raise UserError(f"{opts[0]!r} on the command line is not of the form key=value{_config_hint(opts[0])}")
        return list(zip(opts[0::2], opts[1::2], strict=True))
    for opt in opts:
        if "=" not in opt:
            raise UserError(f"{opt!r} on the command line is not of the form key=value{_config_hint(opt)}")
    return [(key, value) for key, _, value in (opt.partition("=") for opt in opts)]


def _config_hint(word: str) -> str:
    return f"; did you mean config={word}?" if word.endswith((".yaml", ".yml")) else ""


def check_key(key: str, value: str, tree: Mapping[str, Any]) -> Any:
    """What ``key`` leads to in ``tree``, as MMF walks it; raises UserError where it leads to nothing."""
    node: Any = tree
    trodden: list[str] = []
    for field in key.split("."):
        match = FIELD.fullmatch(field)
        name = match[1] if match else field
        if not isinstance(node, Mapping):
            raise UserError(f"{_option(key, value)}: {'.'.join(trodden)} is a value, it has no {name!r} inside")
        if name not in node:
            place = f"in {'.'.join(trodden)}" if trodden else "in the configuration"
            misses = _near_keys(key, name, trodden, node, tree)
            moved = MOVED.get(".".join([*trodden, name]))
            hint = f"; say {moved}" if moved else f"; {did_you_mean(misses)}" if misses else ""
            raise UserError(f"{_option(key, value)}: there is no {name!r} {place}{hint}")
        node = node[name]
        trodden.append(field)
        if match and match[2] is not None:
            if not isinstance(node, Sequence) or isinstance(node, str):
                raise UserError(f"{_option(key, value)}: {name!r} is not a list")
            if not -len(node) <= int(match[2]) < len(node):
                raise UserError(f"{_option(key, value)}: the list {name!r} has {len(node)} entries")
            node = node[int(match[2])]
    return node


def section(key: str, value: str, tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a section is to be: ``{a: 1}`` as YAML or Python write it, or null.

    Raises:
        UserError: it is neither, or lacks the spaces after its colons.
    """
    import yaml

    found = yaml.safe_load("null" if value == "None" else value)
    if found is None or isinstance(found, dict):
        _check_colons(found or {}, f"{key}={value}")
        return found
    inside = next((leaf for leaf in _leaves(tree) if leaf.startswith(f"{key}.")), f"{key}.KEY")
    raise UserError(f"{key}={value} on the command line: {key} is a section; give its keys, as {inside}=..., or null")


def _check_colons(found: Mapping[Any, Any], option: str) -> None:
    for key, value in found.items():
        if isinstance(value, Mapping):
            _check_colons(value, option)
        elif value is None and ":" in str(key):  # to YAML {a:1} is the word 'a:1' without a value
            raise UserError(f"{option} on the command line: YAML wants a space after each colon, as in {{a: 1}}")


def _option(key: str, value: str) -> str:
    return f"unknown option {key}={value} on the command line"


def _near_keys(key: str, name: str, trodden: list[str], node: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """Full keys like ``key``: first with the wrong field mended in its place, then of the same name anywhere."""
    rest = key.split(".")[len(trodden) + 1 :]
    everything = list(_leaves(tree))
    here = [".".join([*trodden, match, *rest]) for match in near(name, node)]
    # if what follows the mended field is wrong too, offer the nearest key that exists
    mended = [known if not rest else (near(known, everything, 0.7) or [known])[0] for known in here]
    # (a section that ends where the key goes on is no remedy)
    everything = [leaf for leaf in everything if not key.startswith(f"{leaf}.")]
    elsewhere = [leaf for leaf in everything if leaf.rpartition(".")[2] == key.rpartition(".")[2]]
    found = mended or elsewhere or near(key, everything, 0.8)
    return list(dict.fromkeys(found))[:3]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
