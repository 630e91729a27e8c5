"""MMF on today's Python and OmegaConf, and the door through which our plugin enters it."""

from __future__ import annotations

import collections
import functools
import importlib.util
import os
import sys
import warnings
from types import ModuleType
from typing import Any

from mmf_flava.compat import (  # noqa: F401 - the other files of cures for MMF register theirs when they are imported
    checkpoint,
    command_line,
    configuration,
    datasets,
    distributed,
    multitasking,
    overrides,
    splits,
    trainers,
    training,
    transformers,
    updates,
    vanished,
)
from mmf_flava.compat.cure import cure, source_has

PLUGIN = "mmf_flava.plugin"


@cure(
    "mmf.utils.env",
    when="after",
    what="setup_imports() imports mmf_flava.plugin too",
    why="MMF has no entry points: FLAVA must be registered however MMF was started, without env.user_dir",
    since="MMF 1.0.0rc1",
    until="MMF finds plugins by entry points",
)
def plugin(module: ModuleType) -> None:
    setup_imports = module.setup_imports

    @functools.wraps(setup_imports)
    def setup_imports_with_plugin() -> None:
        setup_imports()
        if PLUGIN not in sys.modules and not _importing_ourselves() and importlib.util.find_spec(PLUGIN):
            importlib.import_module(PLUGIN)

    vars(module)["setup_imports"] = setup_imports_with_plugin


def _importing_ourselves() -> bool:
    # `import mmf_flava.models.x` imports MMF, which ends up here before x is complete: the plugin would import x half
    # made. MMF's run() calls setup_imports again, and then it is whole.
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("mmf_flava.")]
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in modules)


@cure(
    "mmf.utils.env",
    when="after",
    what="env.user_dir=name is found in the working directory",
    why="MMF puts a module's folder on sys.path only where there is a folder in its name, and mmf_run's own path lacks "
    "the working directory",
    since="MMF's main branch",
    until="MMF always puts it there",
    needed=source_has("module_name != dot_path", "import_user_module"),
)
def user_dir(module: ModuleType) -> None:
    import_by_name = module.import_user_module

    @functools.wraps(import_by_name)
    def import_user_module(user_dir: str) -> None:
        if user_dir and os.sep not in user_dir and os.path.exists(user_dir) and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        import_by_name(user_dir)

    vars(module)["import_user_module"] = import_user_module


@cure(
    "mmf.utils.logger",
    when="after",
    what="collections.Mapping is found in collections.abc",
    why="Python dropped the old name, and MMF asks for it at every line of the log",
    since="Python 3.10",
    until="MMF says collections.abc.Mapping",
    needed=source_has("collections.Mapping", "Logger.log_progress"),
)
def mapping(module: ModuleType) -> None:
    vars(module)["collections"] = collections.abc


def _env(key: str, default: Any = None) -> Any:
    """OmegaConf 2.0's ``env`` resolver: numbers and booleans are read as such."""
    value = os.environ.get(key, default)
    if value is None:
        raise ValueError(f"the environment variable {key} is not set, and the configuration gives no default for it")
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


@cure(
    "mmf.utils.configuration",
    when="after",
    what="MMF's resolvers registered the present way, and ${env:...}",
    why="OmegaConf deprecates register_resolver and has no env resolver, which MMF's main branch writes oc.env; both "
    "lines clear everybody else's resolvers",
    since="OmegaConf 2.1, 2.3",
    until="MMF uses register_new_resolver, leaves other resolvers alone, and nobody's YAML says env",
    needed=source_has("OmegaConf.clear_resolvers", "Configuration._register_resolvers"),
)
def resolvers(module: ModuleType) -> None:
    import torch
    from omegaconf import OmegaConf

    def _register_resolvers(self: Any) -> None:
        ours = {
            "device_count": lambda: max(1, torch.cuda.device_count()),
            "resolve_cache_dir": module.resolve_cache_dir,
            "resolve_dir": module.resolve_dir,
            "env": _env,
        }
        for name, resolver in ours.items():
            OmegaConf.register_new_resolver(name, resolver, replace=True)

    build_default = module.Configuration._build_default_config

    def _build_default_config(self: Any) -> Any:
        config = build_default(self)
        for key, value in OmegaConf.to_container(config.env, resolve=False).items():  # type: ignore[union-attr]
            if isinstance(value, str) and value.endswith(",}"):
                # ${env:MMF_LOG_DIR,}: OmegaConf warns of a default that is empty and not quoted
                config.env[key] = value.removesuffix("}") + " ''}"
        return config

    module.Configuration._register_resolvers = _register_resolvers
    module.Configuration._build_default_config = _build_default_config


@cure(
    "mmf.utils.configuration",
    when="after",
    what="the keys that MMF reads without having set them are null",
    why="OmegaConf answers a missing key with an error; it used to answer None, and MMF counts on that",
    since="OmegaConf 2.1",
    until="MMF's defaults.yaml holds learning_rate and training.max_grad_l2_norm, and it asks opts with .get()",
    needed=source_has("opts.config", "Configuration._build_user_config"),
)
def missing_keys(module: ModuleType) -> None:
    build_opt_list, build_default = module.Configuration._build_opt_list, module.Configuration._build_default_config
    update_specific = module.Configuration._update_specific
    asks_first = source_has('"learning_rate" in config', "Configuration._update_specific")(module)

    def _build_opt_list(self: Any, opts: list[str] | None) -> Any:
        config = build_opt_list(self, opts or [])
        for key in ("config", "model", "dataset", "datasets"):
            config.setdefault(key, None)
        return config

    def _build_default_config(self: Any) -> Any:
        config = build_default(self)
        config.setdefault("learning_rate", None)
        config.training.setdefault("max_grad_l2_norm", None)
        return config

    def _update_specific(self: Any, config: Any) -> Any:
        if asks_first and config.learning_rate is None:  # or null would be taken for the learning rate
            del config["learning_rate"]
        return update_specific(self, config)

    module.Configuration._update_specific = _update_specific
    module.Configuration._build_opt_list = _build_opt_list
    module.Configuration._build_default_config = _build_default_config


@cure(
    "mmf.utils.configuration",
    when="after",
    what="training.device is cpu unless there is CUDA or the user asks for it",
    why="the default is cuda, so every run on a CPU begins with a warning about an option that nobody has set",
    since="MMF 1.0.0rc1",
    until="MMF's default follows the machine",
    needed=source_has("Device specified is 'cuda'", "Configuration._update_specific"),
)
def default_device(module: ModuleType) -> None:
    import torch

    build_default = module.Configuration._build_default_config

    def _build_default_config(self: Any) -> Any:
        config = build_default(self)
        if not torch.cuda.is_available():
            config.training.device = "cpu"
        return config

    module.Configuration._build_default_config = _build_default_config


@cure(
    "mmf.utils.checkpoint",
    when="after",
    what="config.yaml is written with OmegaConf.to_yaml",
    why="DictConfig.pretty is gone",
    since="OmegaConf 2.1",
    until="MMF uses OmegaConf.to_yaml",
    needed=source_has(".pretty(", "Checkpoint.save_config"),
)
def save_config(module: ModuleType) -> None:
    from omegaconf import OmegaConf

    def save_config(self: Any) -> None:
        with module.PathManager.open(os.path.join(self.ckpt_foldername, "config.yaml"), "w") as file:
            file.write(OmegaConf.to_yaml(self.config, resolve=True))

    module.Checkpoint.save_config = save_config


@cure(
    "mmf",
    when="before",
    what="silence about MMF's own outdated code",
    why="a newcomer can do nothing about these warnings, and they bury the ones that matter",
    since="Python 3.12",
    until="MMF writes its regular expressions as raw strings",
)
def silence(_: None) -> None:
    # while MMF's files are compiled; "invalid escape sequence" carries the file's name as its module
    for category in (DeprecationWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", message=r"invalid escape sequence|\"is( not)?\" with", category=category)
    # of its trainer, which says the update to torch's schedulers
    warnings.filterwarnings("ignore", message=r"The epoch parameter in `scheduler\.step")
