"""Validation of the names of registered classes: trainer, optimizer, scheduler, losses and metrics."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.config import mmf_trainer
from mmf_flava.config.close_matches import close_matches, did_you_mean
from mmf_flava.config.criteria import check_criteria, known_criteria
from mmf_flava.config.optimization import SCHEDULER_PARAMS
from mmf_flava.config.schema import check_keys, check_type, suggestion
from mmf_flava.errors import UserError


def check_names(config: Mapping[str, Any], known: Mapping[str, Collection[str]]) -> None:
    """Check the names of registered classes in a config, except those of model, datasets, processors and trainer.

    Args:
        config: the complete config as a dict, with its interpolations resolved.
        known: kind (``optimizer``, ``scheduler``, ``loss``, ``metric``) -> registered names.

    Raises:
        UserError: a name is not registered, a metric is neither a name nor a section, or
            ``training.early_stop.criteria`` is none of the losses and metrics.
    """
    for kind, others in {"optimizer": (), "scheduler": SCHEDULER_PARAMS}.items():
        name = (config.get(kind) or {}).get("type")
        if name and name not in others:
            _check_known(name, known[kind], f"{kind}.type", kind)
    where = f"model_config.{config['model']}.losses"
    section = (config.get("model_config") or {}).get(config["model"]) or {}
    for name in _loss_names(section.get("losses")):
        _check_known(name, known["loss"], where, "loss")
    metrics = (config.get("evaluation") or {}).get("metrics") or []
    for number, entry in enumerate(metrics if isinstance(metrics, list) else [metrics]):
        where = f"evaluation.metrics[{number}]" if isinstance(metrics, list) else "evaluation.metrics"
        _check_known(_metric_name(entry, where), known["metric"], where, "metric")
    if config["training"]["trainer"] in flava_run.TRAINERS and "train" in config["run_type"]:
        early_stop = config["training"]["early_stop"]
        check_criteria(str(early_stop["criteria"]), early_stop["minimize"], known_criteria(config))


def check_section_names(config: Mapping[str, Any], where: str, selected: Iterable[str], known: Collection[str]) -> None:
    """Check the names in ``model_config`` or ``dataset_config`` (``where``).

    Args:
        selected: names of the run's model or datasets, for the suggestion.
        known: all valid names.
    """
    for name in config.get(where) or ():
        if name not in known:
            raise UserError(f"'{name}' is not a key of {where}.{suggestion(str(name), selected)}")


def check_trainer(name: Any, known: Collection[str]) -> None:
    """Raise UserError if a trainer is not registered in the installed version of MMF."""
    if name in known:
        return
    if name in flava_run.REMOVED_TRAINERS:
        raise UserError(f"training.trainer: {name} was removed. Use training.trainer: flava.")
    # MMF's trainer has different names in the two versions of MMF
    is_mmf = name in mmf_trainer.NAMES
    matches = sorted({*mmf_trainer.NAMES} & {*known}) if is_mmf else close_matches(str(name), known)
    hint = did_you_mean(matches) if matches else f"known: {', '.join(sorted(known))}"
    raise UserError(f"training.trainer: unknown name {name!r} in this version of MMF; {hint}")


def _loss_names(losses: Any) -> Iterator[str]:
    for entry in losses if isinstance(losses, list) else []:
        yield str(entry.get("type") if isinstance(entry, Mapping) else entry)


def _metric_name(entry: Any, where: str) -> str:
    if isinstance(entry, Mapping):
        check_keys(entry, ("type", "key", "params", "datasets"), where)
        if "type" not in entry:
            raise UserError(f"{where}.type must be given: the name of a metric.")
        check_type(str, entry["type"], f"{where}.type")
        return str(entry["type"])
    check_type(str, entry, where)
    return str(entry)


def _check_known(name: str, known: Collection[str], where: str, kind: str) -> None:
    if name not in known:
        raise UserError(f"{where}: unknown {kind} '{name}'.{suggestion(name, known)}")
