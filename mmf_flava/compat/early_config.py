"""Check of the config of a run before torch and MMF are imported, which takes seconds.

``build`` merges the same files and options as MMF's patched ``Configuration``, with the same functions. Names that MMF
registers are read from its source. What depends on ``env.user_dir`` is left to the check after the import of MMF.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import mmf_flava
from mmf_flava.compat import flava_run
from mmf_flava.compat.behaviour.configuration import check_registered_name, check_sections, join_names, read_names
from mmf_flava.compat.behaviour.overrides import merge_options, read_early_options
from mmf_flava.compat.command_line import split_options
from mmf_flava.compat.dataset_config import check_datasets, dataset_names, fill_defaults, set_model_defaults
from mmf_flava.compat.imports.omegaconf import quote_empty_defaults, read_variable
from mmf_flava.compat.iteration_strategies import STRATEGIES, STRATEGIES_HINT
from mmf_flava.compat.multitasking import parse_multitasking
from mmf_flava.compat.name_checks import check_names, check_section_names, check_trainer
from mmf_flava.compat.source_names import SourceNames, optimizer_names, read_names_of
from mmf_flava.config.dataset_base import EntriesConfig
from mmf_flava.config.datasets import DATASETS
from mmf_flava.config.device import parse_device
from mmf_flava.config.environment import decode_variables
from mmf_flava.config.merging import check_containers, clear_replaced
from mmf_flava.config.paths import expand_home_folders
from mmf_flava.config.recipe_check import check_recipe
from mmf_flava.config.recipes import MODEL_DEFAULTS, load_recipe

# keys that MMF's Configuration.upgrade moves
MOVED = {
    "training.resume_file": "checkpoint.resume_file",
    "training.resume": "checkpoint.resume",
    "training.resume_best": "checkpoint.resume_best",
    "training.load_pretrained": "checkpoint.resume_pretrained",
    "training.pretrained_state_mapping": "checkpoint.pretrained_state_mapping",
    "training.run_type": "run_type",
}
# stand-ins of MMF's resolvers, which import torch and create folders
RESOLVERS: dict[str, Callable[..., Any]] = {
    "device_count": lambda: 1,
    "resolve_cache_dir": lambda *_: "cache",
    "resolve_dir": lambda *_: "folder",
    "env": read_variable,
}


@dataclass(frozen=True)
class Config:
    """A complete config.

    Attributes:
        values: the config.
        defaults: MMF's default config.
        sections: ``model_config`` or ``dataset_config`` -> names in the default files of the run's model or datasets.
        has_user_dir: whether ``env.user_dir`` is set.
    """

    values: Any
    defaults: Any
    sections: dict[str, set[str]]
    has_user_dir: bool


def check(opts: Sequence[str], mmf: Path, torch: Path) -> None:
    """Check the config of a run as far as this is possible without torch, MMF and ``env.user_dir``.

    Args:
        opts: the options of the command line.
        mmf, torch: the folders of the packages.

    Raises:
        UserError: see ``config.recipe_check.check_recipe``.
    """
    names = read_names_of(mmf, Path(mmf_flava.__file__).parent)
    with resolvers():
        if (config := build(opts, mmf, names)) is not None:
            check_config(config, names, mmf, torch)


@contextlib.contextmanager
def resolvers() -> Iterator[None]:
    """Context manager: register the resolvers in ``RESOLVERS`` that are not registered yet."""
    missing = [name for name in RESOLVERS if not OmegaConf.has_resolver(name)]
    for name in missing:
        OmegaConf.register_new_resolver(name, RESOLVERS[name])
    try:
        yield
    finally:
        for name in missing:
            OmegaConf.clear_resolver(name)


def build(opts: Sequence[str], mmf: Path, names: SourceNames) -> Config | None:
    """Build the complete config of a run, inside ``resolvers()``.

    Returns:
        None if the config cannot be known before ``env.user_dir`` is imported, or is downloaded.

    Raises:
        UserError: a recipe cannot be read, the model or a dataset is unknown, or an option is invalid.
    """
    root, opts = str(mmf), list(opts)
    defaults = load_recipe("configs/defaults.yaml", [root], [root])
    quote_empty_defaults(defaults.env)
    defaults.setdefault("learning_rate", None)
    defaults.training.setdefault("max_grad_l2_norm", None)
    early = read_early_options(opts)
    user_dir = (early.get("env") or {}).get("user_dir") or os.environ.get("MMF_USER_DIR")
    places = [os.getcwd(), *([user_dir] if user_dir else []), os.path.dirname(root), root]
    if "://" in str(early.config):
        return None
    recipe = OmegaConf.create() if early.config is None else load_recipe(early.config, places, [root])
    check_containers(defaults, recipe)
    read_names(recipe, early)
    check_sections(recipe, {*defaults, "dataset", "includes"}, early.config)
    has_user_dir = bool(user_dir or (recipe.get("env") or {}).get("user_dir"))

    datasets = join_names(early.datasets or early.dataset or "")
    for kind, key, value in [
        ("model", "model", early.model),
        *(("dataset", "builder", n) for n in datasets.split(",")),
    ]:
        if has_user_dir and value and value not in names.of(key):
            return None
        check_registered_name(kind, value, names.of(key), early.config)
    early.datasets = datasets
    paths = [
        _defaults_path(names, "model", early.model),
        *(_defaults_path(names, "builder", n) for n in datasets.split(",")),
    ]
    if None in paths:
        return None
    model, dataset_defaults = _split_defaults([load_recipe(str(path), places, [root]) for path in paths])
    files = {"model_config": model, "dataset_config": dataset_defaults}
    sections = {key: {str(name) for name in file.get(key) or ()} for key, file in files.items()}
    clear_replaced(model, recipe)
    clear_replaced(dataset_defaults, recipe)
    config: Any = OmegaConf.merge(model, dataset_defaults, recipe)
    fill_defaults(config, dataset_names(early), dataset_defaults, recipe, dict(split_options(opts)))
    if has_user_dir and not _processors_are_known(config, names.of("processor")):
        return None
    config = expand_home_folders(merge_options(OmegaConf.merge(defaults, config), opts, log=False))
    set_model_defaults(config)
    _move_keys(config)
    return Config(config, defaults, sections, has_user_dir)


def _split_defaults(configs: Sequence[Any]) -> tuple[Any, Any]:
    """Return the default config of the model, the first of ``configs``, and that of all datasets."""
    model, *others = configs
    datasets: Any = OmegaConf.merge(OmegaConf.create(), *others)
    for name, section in (datasets.get("dataset_config") or {}).items():
        if name not in DATASETS:
            section.setdefault("max_bad_share", EntriesConfig.max_bad_share)
    return model, datasets


def _move_keys(config: Any) -> None:
    """Copy the values of keys that MMF reads from other keys."""
    if config.learning_rate and "params" in (config.get("optimizer") or {}):
        config.optimizer.params.lr = config.learning_rate
    for old, new in MOVED.items():
        if value := OmegaConf.select(config, old):
            OmegaConf.update(config, new, value)


def _defaults_path(names: SourceNames, kind: str, name: str) -> str | None:
    """Return the path of the YAML file with the defaults of a model or dataset, or None if it is not known."""
    if kind == "model" and name in MODEL_DEFAULTS:
        return f"projects/flava/configs/{MODEL_DEFAULTS[name]}.yaml"
    if kind == "builder" and name in DATASETS:
        return f"projects/flava/configs/datasets/{name}.yaml"
    return names.config_paths.get((kind, name))


def _processors_are_known(config: Any, known: Collection[str]) -> bool:
    """Return whether all processors are known. The class of another processor may have defaults of its own."""
    datasets: Any = OmegaConf.to_container(config.get("dataset_config") or OmegaConf.create(), resolve=False)
    for section in datasets.values():
        processors = section.get("processors") if isinstance(section, Mapping) else None
        for entry in processors.values() if isinstance(processors, Mapping) else ():
            if isinstance(entry, Mapping) and entry.get("type") not in known:
                return False
    return True


def check_config(config: Config, names: SourceNames, mmf: Path, torch: Path) -> None:
    values = config.values
    if config.has_user_dir:
        try:
            OmegaConf.to_container(values, resolve=True)
        except OmegaConfBaseException:
            return  # an interpolation may use a resolver that env.user_dir registers
    device = str(values.training.device)
    if values.training.trainer in flava_run.TRAINERS or device != "xla":
        parse_device(device)
    if not config.has_user_dir:
        check_trainer(values.training.trainer, names.of("trainer"))

    def check_values() -> dict[str, Any]:
        resolved = check_recipe(values, config.defaults)
        if not config.has_user_dir:
            check_datasets(values, names.of("processor"))
        return resolved

    resolved = decode_variables(values, check_values)
    if config.has_user_dir:
        return
    datasets = dataset_names(values)
    if not (mmf / "trainers" / "mmf_trainer.py").exists() and values.training.trainer == "flava":  # MMF 1.0.0rc10
        schemas: dict[str, type] = {name: strategy.Config for name, strategy in STRATEGIES.items()}
        parse_multitasking(values.get("multitasking") or {}, datasets, schemas, STRATEGIES_HINT)
    for where, kind, selected in (("model_config", "model", [values.model]), ("dataset_config", "builder", datasets)):
        check_section_names(resolved, where, selected, names.of(kind) | config.sections[where])
    optimizers = names.of("optimizer") | optimizer_names(torch)
    known = {kind: names.of(kind) for kind in ("scheduler", "loss", "metric")}
    check_names(resolved, {**known, "optimizer": optimizers})
    from mmf_flava.compat.optimizer_check import check_optimizer

    check_optimizer(resolved["optimizer"], {})
