"""MMF's configuration: the YAML alone is enough, our recipes are found anywhere, and a wrong key ends in a sentence."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure
from mmf_flava.config.nearness import did_you_mean, near
from mmf_flava.errors import UserError


@cure(
    "mmf.utils.configuration",
    when="after",
    what="a config that is in neither the working directory nor MMF is looked up among mmf_flava's recipes",
    why="the same command must work from a checkout and from an installed wheel; a missing file deserves a sentence",
    since="MMF 1.0.0rc1",
    until="MMF lets plugins add config roots",
)
def load_yaml(module: ModuleType) -> None:
    import yaml

    load = module.load_yaml

    @functools.wraps(load)
    def load_yaml(f: str) -> Any:
        try:
            return load(f)
        except yaml.YAMLError as error:
            raise UserError(f"{f} is not valid YAML: {' '.join(str(error).split())}") from None
        except (FileNotFoundError, IsADirectoryError) as error:
            found = _recipe(f)
            if found is None:
                places = f"the working directory, {module.get_mmf_root()} and the recipes of mmf_flava"
                if isinstance(error, IsADirectoryError):
                    raise UserError(f"the config {f} is a folder, not a YAML file") from None
                looked = "" if str(f).startswith("/") else f" (looked in {places})"
                raise UserError(f"there is no config file {f}{looked}") from None
        return load(found)

    vars(module)["load_yaml"] = load_yaml


def _recipe(path: str) -> str | None:
    import importlib

    try:
        recipes = importlib.import_module("mmf_flava.config.recipes")
    except ModuleNotFoundError:
        return None
    return recipes.locate(path)


@cure(
    "mmf.utils.configuration",
    when="after",
    what="model and dataset are read from the YAML when the command line does not name them",
    why="MMF reads them from the command line alone, so that config=x.yaml does not say what it runs",
    since="MMF 1.0.0rc1",
    until="MMF reads them from the merged configuration",
)
def model_and_dataset(module: ModuleType) -> None:
    build = module.Configuration._build_user_config

    def _build_user_config(self: Any, opts: Any) -> Any:
        user = build(self, opts)
        datasets = user.get("datasets") or user.get("dataset")
        if datasets:
            # MMF's models split this string themselves; `dataset` would go stale when the command line names another
            user.datasets = _comma_separated(datasets)
            user.pop("dataset", None)
        if opts.model is None:
            opts.model = user.get("model")
        if opts.dataset is None and opts.datasets is None:
            opts.datasets = user.get("datasets")
        return user

    module.Configuration._build_user_config = _build_user_config


def _comma_separated(datasets: Any) -> str:
    names = datasets.split(",") if isinstance(datasets, str) else datasets
    return ",".join(str(name).strip() for name in names)


@cure(
    "mmf.utils.configuration",
    when="after",
    what="an unnamed or unknown model or dataset is an error that names the near misses",
    why="MMF warns, goes on, and ends in a KeyError far from the cause",
    since="MMF 1.0.0rc1",
    until="MMF refuses unknown names itself",
)
def unknown_names(module: ModuleType) -> None:
    build_model, build_dataset = (
        module.Configuration._build_model_config,
        module.Configuration._build_dataset_config,
    )

    def _build_model_config(self: Any, config: Any) -> Any:
        _check_name("model", config.model, "model_name_mapping", module.registry, self.config_path)
        return build_model(self, config)

    def _build_dataset_config(self: Any, config: Any) -> Any:
        names = config.datasets if config.datasets is not None else config.dataset
        for name in _comma_separated(names or "").split(","):
            _check_name("dataset", name, "builder_name_mapping", module.registry, self.config_path)
        config.datasets = _comma_separated(names)
        return build_dataset(self, config)

    module.Configuration._build_model_config = _build_model_config
    module.Configuration._build_dataset_config = _build_dataset_config


def _check_name(kind: str, name: str | None, mapping: str, registry: Any, config_path: str | None) -> None:
    known = registry.mapping[mapping]
    if not name:
        where = f"in {config_path}" if config_path else "in the file that config= names"
        raise UserError(f"no {kind} is named: write `{kind}: NAME` {where}, or {kind}=NAME on the command line")
    if name not in known:
        near_misses = near(str(name), known)
        hint = did_you_mean(near_misses) if near_misses else f"known are {', '.join(sorted(known))}"
        raise UserError(f"no {kind} is called {name!r}: {hint}")


@cure(
    "mmf.utils.configuration",
    when="after",
    what="a misspelt top-level section of the user's YAML is an error",
    why="MMF merges `traning:` beside `training:` and trains with the defaults",
    since="MMF 1.0.0rc1",
    until="MMF checks the keys of a config",
)
def misspelt_section(module: ModuleType) -> None:
    build = module.Configuration._build_user_config

    def _build_user_config(self: Any, opts: Any) -> Any:
        user = build(self, opts)
        known = {*self._default_config, "dataset", "includes"}
        text = module.OmegaConf.to_yaml(user) if user else ""
        for key in user:
            # users may add sections of their own, so only a near miss that nothing refers to is refused
            if key not in known and f"${{{key}" not in text and (misses := near(str(key), known, 0.8)):
                raise UserError(f"{self.config_path} has an unknown section {key!r}: {did_you_mean(misses)}")
        return user

    module.Configuration._build_user_config = _build_user_config
