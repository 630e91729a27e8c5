"""Mutations of the shipped recipes, each with the outcome that the types and ranges of the config classes prescribe.

A mutation is a recipe that includes a shipped recipe and changes one key of the complete config. The expected outcome
follows from the annotations and ranges of the dataclasses, MMF's defaults and the tables of MMF's keys: an unknown key
and a value of another type or out of range must raise a UserError with the key; another valid value must be read back.
"""

import copy
import random
import tempfile
import time
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from mmf.common.registry import registry
from omegaconf import OmegaConf

from mmf_flava.config.mmf_keys import REFUSED, SCHEDULE
from mmf_flava.config.mmf_sections import ADDED
from mmf_flava.config.ranges import Range
from mmf_flava.errors import UserError
from tests.config.recipe_keys import Key, complete, keys_of, load, mmf_defaults

CONFIGS = Path(__file__).parents[2] / "projects" / "flava" / "configs"
RECIPES = [path for path in sorted(CONFIGS.rglob("*.yaml")) if "mmf_run" in path.read_text().partition("\nmodel")[0]]
KINDS = ("unknown key", "wrong type", "out of range", "valid")
LIMIT = 5.0  # seconds of CPU time, which does not depend on other processes
VALUES = ("text", True, 3, 2.5, [1], ["a"], None, 1e308, -7)
# keys whose valid values depend on other keys: a valid value may be refused with a sentence that names the key
RELATED = {
    "hidden_size", "num_heads", "image_size", "patch_size", "vocab_size", "pad_token_id", "max_length", "block_size",
    "logit_scale_init", "logit_scale_max", "codebook_size", "target", "min_block", "max_epochs", "clip_gradients",
    "fp16", "enabled", "num_labels", "precision", "compile", "resume_best",
    "minimize", "type", "ema", "momentum", "final_momentum",
    *(key.rpartition(".")[2] for key in REFUSED | SCHEDULE),
}  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    recipe: Path
    kind: str
    path: tuple[str, ...]
    value: Any

    def __str__(self) -> str:
        name = str(self.recipe.relative_to(CONFIGS)) if self.recipe.is_relative_to(CONFIGS) else str(self.recipe)
        return f"{name}: {self.kind}: {'.'.join(self.path)} = {self.value!r}"


# ---------------------------------------------------------------------- rules


def accepts(hint: Any, value: Any) -> bool:
    """Return whether a value is of the annotated type; integers are numbers, bools are not."""
    if isinstance(hint, types.UnionType):
        return any(accepts(kind, value) for kind in get_args(hint))
    if hint is Any:
        return True
    if hint is types.NoneType or hint is None:
        return value is None
    if get_origin(hint) is list:
        return isinstance(value, list) and all(accepts(get_args(hint)[0], item) for item in value)
    if get_origin(hint) is dict or is_dataclass(hint):
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def outside(limits: Range, hint: Any, pick: random.Random) -> Any:
    """Return a value of the right type that is out of range."""
    is_list = any(get_origin(kind) is list for kind in (hint, *get_args(hint)))
    if limits.choices is not None:
        value: Any = f"{pick.choice(limits.choices)}x"
        return [value] if is_list else value
    if limits.length is not None and limits.at_least is None and limits.above is None:
        return [0.5] * (limits.length + 1)
    wrong = []
    if limits.at_least is not None:
        wrong += [limits.at_least - 1, -99]
    if limits.above is not None:
        wrong += [limits.above, limits.above - 1]
    if limits.at_most is not None:
        wrong.append(limits.at_most + 1)
    if limits.below is not None:
        wrong += [limits.below, limits.below + 1]
    if float in (hint, *get_args(hint)):
        wrong += [float("nan"), float("inf")]
    value = pick.choice(wrong or [-1])
    kinds = [item for kind in (hint, *get_args(hint)) for item in (kind, *get_args(kind))]
    value = value if float in kinds or isinstance(value, int) else int(value)
    return [value] * (limits.length or 1) if is_list and float not in get_args(hint) else value


def inside(key: Key, value: Any, pick: random.Random) -> Any:
    """Return another valid value, or None if the rules give none."""
    limits = key.limits or Range()
    if isinstance(value, bool):
        return not value
    if limits.choices is not None:
        other = pick.choice([choice for choice in limits.choices if choice != value])
        return [other] if isinstance(value, list) else other
    if isinstance(value, int | float):
        whole = not accepts(key.hint, 0.5)
        low = limits.at_least if limits.at_least is not None else limits.above if limits.above is not None else 0
        high = next((limit for limit in (limits.at_most, limits.below) if limit is not None), low + 100)
        found = low + (min(high, low + 1000) - low) * pick.uniform(0.1, 0.9)
        return int(found) + 1 if whole else found
    return None


# ---------------------------------------------------------------------- mutations


def mutate(seed: int, recipes: list[Path] = RECIPES) -> Mutation:
    """Return the mutation of this number."""
    pick = random.Random(seed)
    while True:
        recipe, kind = pick.choice(recipes), pick.choice(KINDS)
        keys, sections = keys_of(recipe)
        config = complete(recipe)
        if kind == "unknown key":
            path = pick.choice(sections)
            section = select(config, path)
            name = misspell(pick.choice(list(section) or ["key"]), pick)
            if name not in section and name not in known_names(recipe, path):
                return Mutation(recipe, kind, (*path, name), pick.choice(VALUES))
            continue
        key = pick.choice(keys)
        if kind == "wrong type":
            wrong = [value for value in VALUES if not accepts(key.hint, value)]
            if wrong:
                return Mutation(recipe, kind, key.path, pick.choice(wrong))
        elif kind == "out of range" and key.limits is not None:
            return Mutation(recipe, kind, key.path, outside(key.limits, key.hint, pick))
        elif kind == "valid" and (value := inside(key, select(config, key.path), pick)) is not None:
            return Mutation(recipe, kind, key.path, value)


def known_names(recipe: Path, path: tuple[str, ...]) -> set[str]:
    """Return the keys of a section that the recipe does not set."""
    name = ".".join(path)
    defaults: Any = select(mmf_defaults(), path) or {}
    known = {*defaults, "type", "params", "last_epoch", "num_cycles", "maximize", "foreach", "fused", "eps", "amsgrad"}
    if name in ADDED:
        known |= {field.name for field in fields(ADDED[name])}
    return known


def misspell(name: str, pick: random.Random) -> str:
    position = pick.randrange(len(name))
    return pick.choice([
        name[:position] + name[position] + name[position:],
        name[:position] + name[position + 1 :] + "q",
        f"{name}s",
        f"my_{name}",
        "".join(pick.choices("abcdefghijklmnopqrstuvwxyz", k=8)),
    ])  # fmt: skip


def select(config: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def write(mutation: Mutation, folder: Path) -> Path:
    content: Any = copy.deepcopy(mutation.value)
    for name in reversed(mutation.path):
        content = {name: content}
    file = folder / "mutated.yaml"
    file.write_text(yaml.safe_dump({"includes": [str(mutation.recipe)], **content}))
    return file


def read_back(config: Any, path: tuple[str, ...]) -> Any:
    """Read a value from the object that the run would build from its section."""
    if path[0] == "model_config":
        settings: Any = registry.get_model_class(path[1])(config.model_config[path[1]]).settings
    elif path[0] == "optimizer" and path[1] == "params":
        import torch

        from mmf_flava.compat import mmf_api

        optimizer = mmf_api.build_optimizer([{"params": [torch.zeros(1, requires_grad=True)]}], config)
        return optimizer.defaults[path[2]]
    elif config.training.trainer == "flava" and path[0] in ("training", "checkpoint", "evaluation"):
        from mmf_flava.training.settings import read_settings

        settings = getattr(read_settings(config), path[0])
        if not hasattr(settings, path[1]):
            return select(config, path)
        path = path[:1] + path
    else:
        return select(OmegaConf.to_container(config, resolve=True), path)
    for name in path[2:]:
        settings = getattr(settings, name)
    return settings


def check(mutation: Mutation) -> Iterator[str]:
    """Yield what is wrong with the outcome of a mutation: nothing if it is as the rules say."""
    started, name = time.process_time(), mutation.path[-1]
    with tempfile.TemporaryDirectory() as folder:
        try:
            config = load(write(mutation, Path(folder)))
            seconds, message = time.process_time() - started, None
            value = read_back(config, mutation.path) if mutation.kind == "valid" else None
        except UserError as error:
            seconds, message = time.process_time() - started, str(error)
        except Exception as error:
            yield f"{mutation}: {type(error).__name__}: {str(error)[:300]}"
            return
    if seconds > LIMIT:
        yield f"{mutation}: took {seconds:.1f} s"
    if message is None and mutation.kind != "valid":
        yield f"{mutation}: accepted"
    elif message is not None and (name not in message or "\n" in message):
        yield f"{mutation}: the message does not name the key: {message}"
    elif message is not None and mutation.kind == "valid" and name not in RELATED:
        yield f"{mutation}: refused: {message}"
    elif message is None and mutation.kind == "valid" and value != mutation.value:
        yield f"{mutation}: read back as {value!r}"
