"""Patches of MMF's configuration: default device, model and dataset, unknown names, and the check of the recipe."""

from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import OmegaConf

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, source_contains, wrap
from mmf_flava.config.close_matches import close_matches, did_you_mean
from mmf_flava.errors import UserError

SINCE = "MMF 1.0.0rc1"


@patch(
    "mmf.utils.configuration",
    what="before a configuration is merged, it is marked as the configuration of a FLAVA run or of another run",
    why="the other patches of kind behaviour are active only in FLAVA's runs",
    since=SINCE,
    until="mmf_flava has no other patches of kind behaviour",
)
def run_kind(module: Any) -> None:
    @wrap(module.Configuration, "__init__")
    def __init__(original: Any, self: Any, args: Any = None, default_only: bool = False) -> None:
        if args:  # without args MMF builds its default configuration, which is not the configuration of a run
            self._is_flava_run = flava_run.options_are_flava(args.opts or [])
            flava_run.set_current(self._is_flava_run)
        original(self, args, default_only)

    @wrap(module.Configuration, "get_config")
    def get_config(original: Any, self: Any) -> Any:
        # processes spawned by MMF receive the configuration and call this method first
        if hasattr(self, "_is_flava_run"):
            flava_run.set_current(self._is_flava_run)
        return original(self)


@patch(
    "mmf.utils.configuration",
    what="a recipe can replace a list in the section of a dataset or model by a section and vice versa; in MMF's own "
    "sections, this is an error",
    why="OmegaConf cannot merge a list with a section, and its error message does not contain the key",
    since=SINCE,
    until="OmegaConf can merge values of different types",
)
def replaced_containers(module: Any) -> None:
    from mmf_flava.config.merging import check_containers, clear_replaced

    @wrap(module.Configuration, "_build_user_config", only_if=flava_run.is_current)
    def _build_user_config(original: Any, self: Any, opts: Any) -> Any:
        user = original(self, opts)
        check_containers(self._default_config, user)
        return user

    @wrap(module.Configuration, "_build_model_config", only_if=flava_run.is_current)
    def _build_model_config(original: Any, self: Any, config: Any) -> Any:
        defaults = original(self, config)
        clear_replaced(defaults, self._user_config)
        return defaults

    @wrap(module.Configuration, "_build_dataset_config", only_if=flava_run.is_current)
    def _build_dataset_config(original: Any, self: Any, config: Any) -> Any:
        defaults = original(self, config)
        clear_replaced(defaults, self._user_config)
        return defaults


@patch(
    "mmf.utils.configuration",
    what="training.device is cpu unless CUDA is available or the user sets it",
    why="MMF's default is cuda; without CUDA, each run logs a warning about an option that the user has not set",
    since=SINCE,
    until="MMF's default depends on the machine",
    needed=source_contains("Device specified is 'cuda'", "Configuration._update_specific"),
)
def default_device(module: Any) -> None:
    import torch

    @wrap(module.Configuration, "_build_default_config", only_if=flava_run.is_current)
    def _build_default_config(original: Any, self: Any) -> Any:
        config = original(self)
        if not torch.cuda.is_available():
            config.training.device = "cpu"
        return config


@patch(
    "mmf.utils.configuration",
    what="learning_rate and training.max_grad_l2_norm can be set on the command line",
    why="MMF reads these keys, but its defaults do not contain them",
    since=SINCE,
    until="MMF's defaults.yaml contains both keys",
)
def optional_keys(module: Any) -> None:
    @wrap(module.Configuration, "_build_default_config", only_if=flava_run.is_current)
    def _build_default_config(original: Any, self: Any) -> Any:
        config = original(self)
        config.setdefault("learning_rate", None)
        config.training.setdefault("max_grad_l2_norm", None)
        return config

    # MMF's main branch would use null as the learning rate
    if source_contains('"learning_rate" in config', "Configuration._update_specific")(module):

        @wrap(module.Configuration, "_update_specific", only_if=flava_run.is_current)
        def _update_specific(original: Any, self: Any, config: Any) -> Any:
            if config.get("learning_rate") is None:
                config.pop("learning_rate", None)
            return original(self, config)


@patch(
    "mmf.utils.configuration",
    what="model and dataset are read from the recipe if the command line does not set them",
    why="MMF reads model and dataset only from the command line, so that config=x.yaml alone does not define a run",
    since=SINCE,
    until="MMF reads them from the merged configuration",
)
def model_and_dataset(module: Any) -> None:
    @wrap(module.Configuration, "_build_user_config", only_if=flava_run.is_current)
    def _build_user_config(original: Any, self: Any, opts: Any) -> Any:
        user = original(self, opts)
        read_names(user, opts)
        return user


@patch(
    "mmf.utils.configuration",
    what="all keys of the complete configuration are checked before models and datasets are built",
    why="MMF ignores unknown keys, and wrong values raise exceptions in the code that uses them or are not reported",
    since=SINCE,
    until="MMF checks the keys and values of a config",
)
def complete_check(module: Any) -> None:
    from omegaconf.errors import OmegaConfBaseException

    from mmf_flava.compat.dataset_config import check_datasets
    from mmf_flava.compat.name_checks import check_trainer
    from mmf_flava.config.environment import decode_variables
    from mmf_flava.config.recipe_check import check_recipe, interpolation_error

    @wrap(module.Configuration, "__init__")
    def __init__(original: Any, self: Any, args: Any = None, default_only: bool = False) -> None:
        try:
            original(self, args, default_only)
        except OmegaConfBaseException as error:
            if not flava_run.is_current():
                raise
            raise interpolation_error(self.config, error) from None
        # before setup_imports() no names are registered, and the defaults of model and datasets are missing
        if args and flava_run.is_current() and module.registry.get("imports_setup", no_warning=True):
            from mmf_flava.compat import mmf_api
            from mmf_flava.compat.mmf_api.registered import check_registered

            check_trainer(self.config.training.trainer, module.registry.mapping["trainer_name_mapping"])
            is_flava = self.config.training.trainer == "flava"
            if is_flava:
                mmf_api.check_callbacks(self.config)

            # not self._default_config, into which MMF's main branch merges the options
            defaults = OmegaConf.create(mmf_api.defaults())

            def check() -> None:
                values = check_recipe(self.config, defaults)
                check_datasets(self.config, module.registry.mapping["processor_name_mapping"])
                check_registered(values)

            decode_variables(self.config, check)
            if is_flava:
                mmf_api.read_multitasking(self.config)


def read_names(recipe: Any, opts: Any) -> None:
    """Set the model and the datasets in ``opts``, the options that MMF reads early, to those of the recipe if missing.

    In the recipe, ``datasets`` becomes a string, because MMF's models split it, and ``dataset`` is removed, because it
    would be outdated if the command line sets ``datasets``.
    """
    if datasets := recipe.get("datasets") or recipe.get("dataset"):
        recipe.datasets = join_names(datasets)
        recipe.pop("dataset", None)
    if opts.model is None:
        opts.model = recipe.get("model")
    if opts.dataset is None and opts.datasets is None:
        opts.datasets = recipe.get("datasets")


def join_names(datasets: Any) -> str:
    """Return the names of datasets as a string: ``[a, b]`` and ``"a, b"`` become ``a,b``."""
    if isinstance(datasets, Mapping):
        raise UserError(f"datasets: must be names, as in `dataset: pmd,imagenet`, got {datasets}.")
    names = datasets.split(",") if isinstance(datasets, str) else datasets
    return ",".join(str(name).strip() for name in names)


@patch(
    "mmf.utils.configuration",
    what="a missing or unknown model or dataset is an error that suggests similar names",
    why="MMF logs a warning, continues, and later raises a KeyError",
    since=SINCE,
    until="MMF rejects unknown names itself",
)
def unknown_names(module: Any) -> None:
    def check_name(self: Any, kind: str, name: str | None, mapping: str) -> None:
        if module.registry.get("imports_setup", no_warning=True):  # otherwise no names are registered, and MMF warns
            check_registered_name(kind, name, module.registry.mapping[mapping], self.config_path)

    @wrap(module.Configuration, "_build_model_config", only_if=flava_run.is_current)
    def _build_model_config(original: Any, self: Any, config: Any) -> Any:
        check_name(self, "model", config.model, "model_name_mapping")
        return original(self, config)

    @wrap(module.Configuration, "_build_dataset_config", only_if=flava_run.is_current)
    def _build_dataset_config(original: Any, self: Any, config: Any) -> Any:
        names = config.datasets if config.datasets is not None else config.dataset
        for name in join_names(names or "").split(","):
            check_name(self, "dataset", name, "builder_name_mapping")
        if names:
            config.datasets = join_names(names)
        return original(self, config)


def check_registered_name(kind: str, name: str | None, known: Collection[str], config_path: str | None) -> None:
    """Raise UserError if the name of a model or dataset is missing or not in ``known``."""
    if not name:
        place = f"in {config_path}" if config_path else "in the recipe (config=PATH)"
        raise UserError(f"{kind} is not set. Add `{kind}: NAME` {place}, or {kind}=NAME to the command line.")
    if name not in known:
        matches = close_matches(str(name), known)
        hint = did_you_mean(matches) if matches else f"known: {', '.join(sorted(known))}"
        raise UserError(f"{kind}: unknown name {name!r}; {hint}")


@patch(
    "mmf.utils.configuration",
    what="a misspelt top-level section of the recipe is an error",
    why="MMF adds a misspelt section `traning:` to the configuration and trains with the defaults of `training:`",
    since=SINCE,
    until="MMF checks the keys of a config",
)
def misspelt_section(module: Any) -> None:
    @wrap(module.Configuration, "_build_user_config", only_if=flava_run.is_current)
    def _build_user_config(original: Any, self: Any, opts: Any) -> Any:
        user = original(self, opts)
        check_sections(user, {*self._default_config, "dataset", "includes"}, self.config_path)
        return user


def check_sections(recipe: Any, known: set[str], path: str) -> None:
    """Raise UserError if the recipe has a top-level key with a dot, or a section that resembles a known one.

    The key ``config`` and a name as ``trainer``, which MMF would ignore, are errors too.
    """
    if recipe.get("config") is not None and "config_version" in recipe:
        raise UserError(
            f"{path} is the complete config of a run, no recipe. Use the recipe of that run, config={recipe.config}. "
            "To resume the run, add checkpoint.resume=true."
        )
    if recipe.get("config") is not None:
        raise UserError(f"{path}: config is an option of the command line. Use `includes: [{recipe.config}]`.")
    if isinstance(trainer := recipe.get("trainer"), str):
        raise UserError(f"{path}: trainer is a section. Set `training: {{trainer: {trainer}}}`.")
    text = OmegaConf.to_yaml(recipe) if recipe else ""
    for key in recipe:
        if key not in known and (section := str(key).partition("."))[0] in known:
            raise UserError(f"{path}: {key} is not a key. Nest it as `{section[0]}: {{{section[2]}: ...}}`.")
        # users may add sections: only sections that resemble known ones and that no interpolation uses are errors
        if key not in known and f"${{{key}" not in text and (matches := close_matches(str(key), known, 0.8)):
            raise UserError(f"{path}: unknown section {key!r}; {did_you_mean(matches)}")
