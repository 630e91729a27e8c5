"""Names for ``training.early_stop.criteria``: the values that the validation of a run computes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmf_flava.config.run import RetrievalConfig
from mmf_flava.config.schema import suggestion
from mmf_flava.errors import UserError

TOTAL = "total_loss"
# metrics of MMF and of mmf_flava of which a higher value is better
HIGHER_IS_BETTER = (
    "accuracy", "accuracy_f1", "ap", "binary_ap", "binary_f1", "caption_bleu4", "f1", "macro_ap", "macro_f1",
    "macro_roc_auc", "matthews", "micro_ap", "micro_f1", "micro_roc_auc", "multilabel_f1", "pearson", "r@1", "r@5",
    "r@10", "roc_auc", "spearman", "topk_accuracy", "vqa_accuracy", "vqa_evalai_accuracy",
)  # fmt: skip


def known_criteria(config: Mapping[str, Any]) -> dict[str, bool | None]:
    """Return the criteria that the validation computes, each mapped to True if lower is better, None if unknown.

    A loss or metric is named ``losses/NAME`` or ``metrics/NAME`` as in ``metrics.jsonl``, or ``DATASET/NAME`` as in
    MMF. A metric of another type than MMF's, such as a mean rank, may be a value of either kind. A name without the
    last part stands for all names that start with it.

    Args:
        config: the complete config. Losses and metrics must have been checked.
    """
    datasets = [name.strip() for name in str(config["datasets"]).split(",")]
    losses = (config["model_config"].get(config["model"]) or {}).get("losses") or []
    evaluation = config["evaluation"]
    metrics = evaluation.get("metrics", [])
    computes_losses = evaluation.get("losses", True)
    known: dict[str, bool | None] = {TOTAL: True} if computes_losses else {}
    if computes_losses and not losses:  # a model of MMF may compute losses of its own
        known |= dict.fromkeys(("losses", *datasets))
    for loss in losses if _is_list(losses) and computes_losses else []:
        name, _ = _name_and_type(loss)
        known |= {f"{prefix}/{name}": True for prefix in ("losses", *datasets)}
    for metric in metrics if _is_list(metrics) else [metrics] * bool(metrics):
        name, kind = _name_and_type(metric)
        known |= {f"{prefix}/{name}": False if kind in HIGHER_IS_BETTER else None for prefix in ("metrics", *datasets)}
    if metrics is None:  # set by the dataset, when it is built
        known |= dict.fromkeys(("metrics", *datasets))
    if evaluation.get("zero_shot") is not None:
        known["zero_shot/accuracy"] = False
    if (evaluation.get("linear_probe") or {}).get("at_validations"):
        known["linear_probe/accuracy"] = False
    if evaluation.get("knn") is not None:
        known["knn/accuracy"] = False
    if (retrieval := evaluation.get("retrieval")) is not None:
        for prefix in ("", "reranked_")[: 2 if retrieval.get("rerank") else 1]:
            for k in retrieval.get("recall_at", RetrievalConfig().recall_at):
                known |= {f"retrieval/{prefix}{name}_r{k}": False for name in ("image_to_text", "text_to_image")}
    return known


def check_criteria(criteria: str, minimize: bool, known: Mapping[str, bool | None]) -> str:
    """Return ``training.early_stop.criteria`` without MMF's prefix ``val/``.

    Args:
        known: see ``known_criteria``.

    Raises:
        UserError: the validation does not compute the criteria, or ``minimize`` would select the worst checkpoint.
    """
    criteria = criteria.removeprefix("val/")
    if not known:  # a run without validations has no best checkpoint
        return criteria
    # a metric may have several values, such as f1/macro
    if not any(criteria == name or criteria.startswith(f"{name}/") for name in known):
        raise UserError(unknown_criteria(criteria, known))
    if (lower := known.get(criteria)) not in (None, minimize):
        raise UserError(
            f"training.early_stop.minimize: {str(minimize).lower()} would keep the checkpoint with the worst "
            f"{criteria}. Set it to {str(lower).lower()}."
        )
    return criteria


def unknown_criteria(criteria: str, known: Iterable[str]) -> str:
    """Return the sentence about a criteria that the validation does not compute."""
    return f"training.early_stop.criteria: the validation does not compute '{criteria}'.{suggestion(criteria, known)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _name_and_type(entry: Any) -> tuple[Any, Any]:
    """Return the name and the type of a loss or metric of the config."""
    if isinstance(entry, Mapping):
        return entry.get("key") or entry.get("type"), entry.get("type")
    return entry, entry
