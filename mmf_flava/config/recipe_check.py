"""Validation of the complete config, before models and datasets are built."""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmf_flava.config.flava_trainers import check_finetuning, check_flava
from mmf_flava.config.mmf_sections import check_mmf_sections
from mmf_flava.config.model import ClassificationConfig, FlavaConfig
from mmf_flava.config.optimization import check_optimization, check_optimization_sections
from mmf_flava.config.schema import parse_section
from mmf_flava.errors import UserError

MODELS = {"flava": FlavaConfig, "flava_classification": ClassificationConfig}


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
    values = resolve(config)
    plain: dict[str, Any] = OmegaConf.to_container(defaults, resolve=False)  # type: ignore[assignment]
    check_mmf_sections(values, plain)
    check_optimization_sections(values)
    trainer = values["training"]["trainer"]
    if trainer == "flava":
        check_flava(config)
    elif trainer == "flava_finetune":
        check_finetuning(config, plain)
    check_optimization(values)
    checkpoint = values["checkpoint"]
    if checkpoint["resume_best"] and not checkpoint["resume"]:
        raise UserError("checkpoint.resume_best has no effect without checkpoint.resume. Set checkpoint.resume: true.")
    if trainer != "flava" and checkpoint["reset"].get("data"):
        raise UserError("checkpoint.reset.data is only supported by training.trainer: flava. Set it to false.")
    model = values["model"]
    if model in MODELS:
        losses = check_model(model, (values.get("model_config") or {}).get(model) or {}).losses
        if not losses and "train" in values["run_type"]:
            raise UserError(
                f"model_config.{model}.losses is empty, so there is nothing to train. List at least one loss."
            )
    return values


def check_model(name: str, section: Mapping[str, Any]) -> Any:
    """Check ``model_config.<name>`` and return it as a config object; the key ``model``, added by MMF, is ignored."""
    keys = {key: value for key, value in section.items() if key != "model"}
    return parse_section(MODELS[name], keys, f"model_config.{name}")


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
