"""Patches of the loading of recipes and their includes, ``env.user_dir`` and ``--config_override``."""

import os
import sys
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap
from mmf_flava.errors import UserError

SINCE = "MMF 1.0.0rc1"


@patch(
    "mmf.utils.configuration",
    what="mmf_flava's recipes are found from any working directory, also as includes; a file that is missing, not a "
    "mapping, not valid YAML, not UTF-8, or that includes itself is a one-line error",
    why="the same command must work from a checkout and from an installed wheel",
    since=SINCE,
    until="MMF lets plugins add config folders, and reports invalid files",
)
def load_yaml(module: Any) -> None:
    @wrap(module, "load_yaml", only_if=flava_run.is_current)
    def load_yaml(original: Any, f: str) -> Any:
        from mmf_flava.config.recipes import load_recipe

        if "://" in str(f):
            try:
                return original(f)
            except Exception as error:
                raise UserError(
                    f"Config file {f} cannot be read ({error}). Download the file, and use its local path."
                ) from error
        config = module.registry.get("config", no_warning=True)
        user_dir = module.OmegaConf.select(config, "env.user_dir") if config else None
        root = module.get_mmf_root()
        places = [os.getcwd(), *([user_dir] if user_dir else []), os.path.dirname(root), root]
        return load_recipe(str(f), places, [root])


@patch(
    "mmf.utils.configuration",
    what="env.user_dir may begin with ~ and end with /; a folder that is not a package, or that has the name of "
    "another module, is an error",
    why="MMF raises a ModuleNotFoundError, or does not import the folder if another module has the same name",
    since=SINCE,
    until="MMF checks env.user_dir",
)
def user_dir(module: Any) -> None:
    @wrap(module, "import_user_module", only_if=flava_run.is_current)
    def import_user_module(original: Any, user_dir: str, *args: Any, **kwargs: Any) -> Any:
        if not user_dir:
            return original(user_dir, *args, **kwargs)
        folder = module.get_absolute_path(os.path.expanduser(str(user_dir))).rstrip("/")
        name = os.path.basename(folder).removesuffix(".py")
        if not os.path.exists(folder):
            raise UserError(f"env.user_dir: {user_dir} was not found. Set the folder of a Python package.")
        loaded = sys.modules.get(name)
        places = [*getattr(loaded, "__path__", ()), getattr(loaded, "__file__", None) or ""]
        if loaded is not None and folder not in map(os.path.abspath, places):
            raise UserError(f"env.user_dir: {user_dir} has the same name as another module, {name}. Rename the folder.")
        try:
            return original(folder, *args, **kwargs)
        except ModuleNotFoundError as error:
            if not error.name or not name.startswith(error.name):
                raise  # an import of the user's code
            raise UserError(f"env.user_dir: {user_dir} is not a Python package. Set the folder of a package.") from None


@patch(
    "mmf.utils.configuration",
    what="an invalid --config_override is a one-line error",
    why="MMF raises an error of its JSON parser",
    since=SINCE,
    until="MMF reports invalid JSON",
)
def config_override(module: Any) -> None:
    @wrap(module.Configuration, "_build_demjson_config", only_if=flava_run.is_current)
    def _build_demjson_config(original: Any, self: Any, demjson_string: str | None) -> Any:
        from mmf_flava.config.yaml_reader import parse_value

        if demjson_string is None:
            return module.OmegaConf.create()
        override = parse_value(demjson_string, f"--config_override {demjson_string}")
        if not isinstance(override, dict):
            raise UserError(
                f"--config_override {demjson_string}: must be a section, as in '{{training: {{seed: 1}}}}'."
            )
        return module.OmegaConf.create(override)
