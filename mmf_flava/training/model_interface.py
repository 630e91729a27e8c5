"""Methods that a model may define for the trainer ``flava``, and what is done for a model without them.

Any registered MMF model can be trained. It returns ``losses`` by name, or ``scores``, from which MMF computes the
losses of the config. All methods are optional:

``shard_units() -> list[str]``
    Paths of the modules whose weights are gathered together with ``training.sharding: fsdp``, inner modules first. A
    model with this method must also work with fp16 weights, and its batches may leave parameters unused. A model
    without it is a stock model: it is not sharded, and its precision is fp32 or bf16.
``replicated_modules() -> list[str]``
    Names of frozen modules that are neither sharded nor cast, because they are equal on all processes.
``checkpoint_activations() -> None``
    Enable activation checkpointing (``training.activation_checkpointing``).
``plan_updates(total: int, per_epoch: int) -> None``
    Called once before training, with the number of updates of the run and the number of complete updates of an epoch
    (at least 1), for schedules of the model.
``start_update(update: int) -> None``
    Called before the first forward pass of every update, with the number of completed updates. If the update is
    skipped, the next call has the same number. It is also called after ``plan_updates``, with 0, and when a run
    resumes, with the number that the last completed update had: an evaluation before the next update then equals one
    of the uninterrupted run.
``fixed_parameters() -> list[str]``
    Names of trained parameters that the optimizer leaves unchanged in this update, together with their moments and step
    counts. Called after the backward passes, before the norm of the gradients is computed.
``after_step(weights: Mapping[str, Tensor]) -> None``
    Change trained weights after an optimizer step, see ``Engine.after_step``.
``averaged_modules() -> list[str]``
    Names of modules that the optimizer does not train but ``after_step`` changes, such as a teacher whose weights are
    averages. Each must have the structure of a trained module.
``metadata() -> dict[str, str]``
    Header of the weights file, e.g. the configuration that is needed to load it.
``fingerprints() -> dict[str, str]``
    Hashes of files that determine the targets of the losses, by key of the model's config. A run resumes only with the
    same files.
``load_pretrained(allow_missing, allow_extra, cache_dir) -> list[str]``
    Load the pretrained weights of the config, and return log messages. It is not called if a checkpoint is loaded.
``loss_counts(batch) -> dict[str, int]``
    Numbers of values that losses are means over, see ``losses.counts``; by default the number of samples.
``encode_image``, ``encode_text``, ``image_features``, ``image_attention``
    As those of ``Flava``, for ``evaluation.zero_shot``, ``retrieval``, ``linear_probe``, ``knn``, ``attention_maps``
    and ``examples``.
``output_statistics() -> dict[str, float]``
    Statistics of the model's outputs in the last update, for the log, e.g. of ``flava_dino``. Called by all processes.
``batch_flops(batch, num_processes: int) -> float``
    Floating-point operations of the forward and backward pass of a batch on the CPU, for the log.
"""

from collections.abc import Mapping
from typing import Any

from mmf.common.registry import registry
from torch import Tensor

from mmf_flava.config.run import EvaluationConfig, TrainingConfig
from mmf_flava.errors import UserError

# section of the config -> method of the model that it needs
EVALUATION_METHODS = {
    "zero_shot": "encode_text",
    "retrieval": "encode_text",
    "linear_probe": "image_features",
    "knn": "image_features",
    "attention_maps": "image_attention",
    "examples": "encode_text",
}


def _call(model: Any, name: str, default: Any, *args: Any) -> Any:
    # looked up in the class, because a module or a buffer of this name is no method
    return getattr(model, name)(*args) if callable(getattr(type(model), name, None)) else default


def is_stock(model_class: Any) -> bool:
    """Return whether a model does not say how it is sharded."""
    return not callable(getattr(model_class, "shard_units", None))


def check_stock_model(name: str, training: TrainingConfig) -> None:
    """Check that the model supports sharding, precision and activation checkpointing, before it is built.

    Args:
        name: registered name of the model.

    Raises:
        UserError: it is a stock model, which does not support one of them.
    """
    model_class = registry.get_model_class(name)
    if model_class is None:
        return  # building the model raises the error
    if is_stock(model_class):
        if training.sharding == "fsdp":
            raise UserError(
                f"training.sharding: fsdp needs a model that defines shard_units, which {name} does not. Set "
                "training.sharding: ddp, or define the method (mmf_flava/training/model_interface.py)."
            )
        if training.precision == "fp16":
            raise UserError(
                f"training.precision: fp16 needs a model that defines shard_units, which {name} does not. Set "
                "training.precision: bf16 or fp32."
            )
    if training.activation_checkpointing and not hasattr(model_class, "checkpoint_activations"):
        raise UserError(
            f"training.activation_checkpointing needs a model that defines checkpoint_activations, which {name} does "
            "not. Set it to false."
        )


def check_evaluations(name: str, evaluation: EvaluationConfig) -> None:
    """Check that the model has the methods that the evaluations of the config call, before it is built.

    Raises:
        UserError: the model lacks a method.
    """
    model_class = registry.get_model_class(name)
    for section, method in EVALUATION_METHODS.items():
        if getattr(evaluation, section) is not None and model_class is not None and not hasattr(model_class, method):
            raise UserError(
                f"evaluation.{section} needs a model that defines {method}, which {name} does not. Remove it; "
                "evaluation.metrics lists metrics for any model."
            )


def check_losses(model: Any, batch: Any, losses: Mapping[str, Any]) -> None:
    """Check the losses of a training batch. Models with ``loss_counts`` may have none for the batches of a dataset.

    Raises:
        UserError: there are no losses, or a loss is no tensor with a gradient.
    """
    if callable(getattr(type(model), "loss_counts", None)):
        return
    name = type(model).__name__
    if not losses:
        raise UserError(
            f"{name} has no losses for dataset '{batch['dataset_name']}': MMF computes the losses of the config only "
            "for batches with the field targets. Add the field, or return losses from the model's forward."
        )
    for key, loss in losses.items():
        if not (isinstance(loss, Tensor) and loss.requires_grad):
            raise UserError(f"{name}: the loss {key} is no tensor with a gradient. Return such a tensor.")


def shard_units(model: Any) -> list[str]:
    """Return the paths of the modules that become FSDP units, except the root; inner modules come first."""
    return _call(model, "shard_units", [])


def replicated_modules(model: Any) -> list[str]:
    """Return the names of the frozen modules that are neither sharded nor cast."""
    return _call(model, "replicated_modules", [])


def plan_updates(model: Any, total: int, per_epoch: int) -> None:
    """Tell the model the number of updates of the run and of an epoch, and that the first update follows."""
    _call(model, "plan_updates", None, total, per_epoch)
    start_update(model, 0)


def start_update(model: Any, update: int) -> None:
    """Tell the model the number of completed updates before the forward passes of an update."""
    _call(model, "start_update", None, update)


def fixed_parameters(model: Any) -> list[str]:
    """Return the names of the trained parameters that the current update leaves unchanged."""
    return _call(model, "fixed_parameters", [])


def averaged_modules(model: Any) -> list[str]:
    """Return the names of the modules that the optimizer does not train but the model's ``after_step`` changes."""
    return _call(model, "averaged_modules", [])


def after_step(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Let the model change its weights after an optimizer step."""
    _call(model, "after_step", None, weights)


def metadata(model: Any) -> dict[str, str]:
    """Return the header of the model's weights file."""
    return _call(model, "metadata", {})


def fingerprints(model: Any) -> dict[str, str]:
    """Return the hashes of the files that determine the targets of the losses, by key of the model's config."""
    return _call(model, "fingerprints", {})


def load_pretrained(model: Any, allow_missing: list[str], allow_extra: list[str], cache_dir: str | None) -> list[str]:
    """Load the pretrained weights that the model's config selects, and return log messages."""
    return _call(model, "load_pretrained", [], allow_missing, allow_extra, cache_dir)


def output_statistics(model: Any) -> dict[str, float]:
    """Return statistics of the model's outputs in the last update, by name."""
    return _call(model, "output_statistics", {})


def batch_flops(model: Any, batch: Any, num_processes: int) -> float:
    """Return the floating-point operations of a batch, or 0 if the model does not count them."""
    return _call(model, "batch_flops", 0.0, batch, num_processes)
