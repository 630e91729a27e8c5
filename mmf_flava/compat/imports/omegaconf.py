"""Patches of MMF's configuration for current versions of OmegaConf."""

import os
from typing import Any

from mmf_flava.compat.patch import patch, source_contains, wrap


def read_variable(key: str, default: Any = None) -> Any:
    """Resolve ``${env:KEY,default}`` as OmegaConf 2.0 did: numbers and booleans are converted."""
    value = os.environ.get(key, default)
    if value is None:
        raise ValueError(
            f"${{env:{key}}}: {key} is not set. Set the environment variable, or write ${{env:{key},DEFAULT}}."
        )
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


@patch(
    "mmf.utils.configuration",
    what="MMF's resolvers are registered with register_new_resolver, and ${env:...} is supported",
    why="OmegaConf deprecates register_resolver and has no env resolver (MMF's main branch uses oc.env); both versions "
    "of MMF remove the resolvers of other packages",
    since="OmegaConf 2.1, 2.3",
    until="MMF uses register_new_resolver, keeps other resolvers, and no recipe uses env",
    needed=source_contains("OmegaConf.clear_resolvers", "Configuration._register_resolvers"),
)
def resolvers(module: Any) -> None:
    import torch
    from omegaconf import OmegaConf

    def _register_resolvers(self: Any) -> None:
        resolvers = {
            "device_count": lambda: max(1, torch.cuda.device_count()),
            "resolve_cache_dir": module.resolve_cache_dir,
            "resolve_dir": module.resolve_dir,
            "env": read_variable,
        }
        for name, resolver in resolvers.items():
            OmegaConf.register_new_resolver(name, resolver, replace=True)

    module.Configuration._register_resolvers = _register_resolvers

    @wrap(module.Configuration, "_build_default_config")
    def _build_default_config(original: Any, self: Any) -> Any:
        config = original(self)
        quote_empty_defaults(config.env)
        return config


def quote_empty_defaults(section: Any) -> None:
    """Quote empty defaults of environment variables, as in ``${env:MMF_LOG_DIR,}``; OmegaConf warns otherwise."""
    from omegaconf import OmegaConf

    for key, value in OmegaConf.to_container(section, resolve=False).items():  # type: ignore[union-attr]
        if isinstance(value, str) and value.endswith(",}"):
            section[key] = value.removesuffix("}") + " ''}"


@patch(
    "mmf.utils.configuration",
    what="config keys that MMF reads but does not define are null",
    why="OmegaConf raises an error for a missing key; MMF expects None, which OmegaConf returned before",
    since="OmegaConf 2.1",
    until="MMF's defaults.yaml contains learning_rate and training.max_grad_l2_norm, and MMF reads opts with .get()",
    needed=source_contains("opts.config", "Configuration._build_user_config"),
)
def missing_keys(module: Any) -> None:
    @wrap(module.Configuration, "_build_opt_list")
    def _build_opt_list(original: Any, self: Any, opts: list[str] | None) -> Any:
        config = original(self, opts or [])
        for key in ("config", "model", "dataset", "datasets"):
            config.setdefault(key, None)
        return config

    if not source_contains('"learning_rate" in config', "Configuration._update_specific")(module):

        @wrap(module.Configuration, "_build_default_config")
        def _build_default_config(original: Any, self: Any) -> Any:
            config = original(self)
            config.setdefault("learning_rate", None)
            return config

    @wrap(module.Configuration, "_update_specific")
    def _update_specific(original: Any, self: Any, config: Any) -> Any:
        if config.training.get("clip_gradients"):
            config.training.setdefault("max_grad_l2_norm", None)
        return original(self, config)


@patch(
    "mmf.utils.checkpoint",
    what="config.yaml is written with OmegaConf.to_yaml",
    why="DictConfig.pretty was removed",
    since="OmegaConf 2.1",
    until="MMF uses OmegaConf.to_yaml",
    needed=source_contains(".pretty(", "Checkpoint.save_config"),
)
def save_config(module: Any) -> None:
    from omegaconf import OmegaConf

    def save_config(self: Any) -> None:
        with module.PathManager.open(os.path.join(self.ckpt_foldername, "config.yaml"), "w") as file:
            file.write(OmegaConf.to_yaml(self.config, resolve=True))

    module.Checkpoint.save_config = save_config
