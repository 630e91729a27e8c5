"""Validation of the complete config, before models and datasets are built."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmf_flava.config.datasets import DATASETS
from mmf_flava.config.flava_trainers import check_flava
from mmf_flava.config.mmf_keys import check_mmf_keys
from mmf_flava.config.mmf_sections import check_mmf_sections
from mmf_flava.config.model import NULL_IS_SET_BY_DATA, check_labels_are_set
from mmf_flava.config.optimization import check_optimization, check_optimization_sections
from mmf_flava.config.registered_models import MODELS
from mmf_flava.config.schedule import INTERVALS
from mmf_flava.config.schema import parse_section
from mmf_flava.errors import UserError


def check_recipe(config: Any, defaults: Any) -> dict[str, Any]:
    """Check all keys that can be checked without torch and MMF: names, types, ranges and combinations.

    Args:
        config: the complete config, merged from MMF's defaults, the defaults of the model and the datasets, the recipe
            and the command line.
        defaults: MMF's default config.

    Returns:
        The complete config as a dict, with its interpolations resolved.

    Raises:
        UserError: a key is unknown, or a value has the wrong type, is out of range or does not fit another key.
    """
    plain: dict[str, Any] = OmegaConf.to_container(defaults, resolve=False)  # type: ignore[assignment]
    is_flava = OmegaConf.select(config, "training.trainer") == "flava"
    if is_flava and config.training.get("max_epochs") is not None:
        config = deepcopy(config)
        config.training.max_updates = 1  # set when the training data are known, see config.schedule
    values = resolve(config)
    if is_flava:
        check_mmf_keys(values, plain)
    check_mmf_sections(values, plain)
    check_optimization_sections(values)
    if is_flava:
        check_flava(config)
    check_optimization(values)
    checkpoint = values["checkpoint"]
    if checkpoint["resume_best"] and not checkpoint["resume"]:
        raise UserError("checkpoint.resume_best has no effect without checkpoint.resume. Set checkpoint.resume: true.")
    if not is_flava and checkpoint["reset"].get("data"):
        raise UserError("checkpoint.reset.data is only supported by training.trainer: flava. Set it to false.")
    for name in INTERVALS if not is_flava else ():
        if values["training"].get(name, 1) is None:
            raise UserError(
                f"training.{name} must be given: null, which means one epoch, is only supported by training.trainer: "
                "flava. Set a number of updates."
            )
    model = values["model"]
    sets_labels = _sets_labels(values)
    if not sets_labels and values["evaluation"].get("metrics", []) is None:
        raise UserError(f"evaluation.metrics must be given: {NULL_IS_SET_BY_DATA}")
    if model in MODELS:
        settings = check_model(model, (values.get("model_config") or {}).get(model) or {})
        if not sets_labels:
            check_labels_are_set(settings, f"model_config.{model}")
        if settings.losses is not None and not settings.losses and "train" in values["run_type"]:
            raise UserError(
                f"model_config.{model}.losses is empty, so there is nothing to train. List at least one loss."
            )
    return values


def check_model(name: str, section: Mapping[str, Any]) -> Any:
    """Check ``model_config.<name>`` and return it as a config object; the key ``model``, added by MMF, is ignored."""
    keys = {key: value for key, value in section.items() if key != "model"}
    return parse_section(MODELS[name], keys, f"model_config.{name}")


def _sets_labels(values: Mapping[str, Any]) -> bool:
    """Return whether a dataset of the run sets the number of labels, the loss and the metrics that are null."""
    names = [name.strip() for name in str(values.get("datasets") or "").split(",")]
    return any(name in DATASETS and DATASETS[name].SETS_LABELS for name in names)


def resolve(config: Any) -> dict[str, Any]:
    """Convert a config to a dict with its interpolations resolved.

    Raises:
        UserError: an interpolation has no value. The message names its key.
    """
    try:
        return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise interpolation_error(config, error) from None


def interpolation_error(config: Any, error: OmegaConfBaseException) -> UserError:
    """Return the error for an interpolation of the config that could not be resolved."""
    key = error.full_key or "the configuration"
    value = ""
    if OmegaConf.is_config(config) and error.full_key:
        node = OmegaConf.to_container(config, resolve=False)
        for name in str(error.full_key).replace("[", ".").replace("]", "").split("."):
            node = node.get(name) if isinstance(node, dict) else node[int(name)] if isinstance(node, list) else None
        value = f"{node!r} has no value: "
    reason = str(error).splitlines()[0].rstrip(".")
    if "Recursive" in reason:
        return UserError(
            f"{key}: the interpolation refers to this key itself, directly or through other keys. Set a value."
        )
    return UserError(f"{key}: {value}{reason}. Set the key or environment variable in the interpolation.")
