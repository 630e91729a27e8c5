"""Zero-shot classification: a class is the mean of its prompts' text embeddings (CLIP's protocol; §4, B.1).

Shapes: B batch, E projection, C classes, N images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.config.schema import near_miss
from mmf_flava.errors import UserError


@dataclass
class ZeroShotResult:
    """targets, predictions: (N,) class numbers; confidences: (N,) probability of the prediction; ids: N names."""

    targets: Tensor
    predictions: Tensor
    confidences: Tensor
    ids: list[str]
    classes: list[str]
    templates: list[str]

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in [0, 1]."""
        return (self.predictions == self.targets).float().mean().item()

    @property
    def confusion(self) -> Tensor:
        """(C, C) counts; rows are the true classes, columns the predicted ones."""
        classes = len(self.classes)
        return torch.bincount(self.targets * classes + self.predictions, minlength=classes**2).view(classes, classes)

    def summary(self) -> dict[str, Any]:
        """What goes into ``evaluation.json``."""
        return {
            "accuracy": self.accuracy,
            "count": len(self.targets),
            "chance": 1 / len(self.classes),
            "classes": self.classes,
            "templates": self.templates,
            "confusion": self.confusion.tolist(),
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row per image, what ``mmf_predict`` writes."""
        columns = zip(
            self.ids, self.targets.tolist(), self.predictions.tolist(), self.confidences.tolist(), strict=True
        )
        return [
            {"id": name, "target": self.classes[t], "prediction": self.classes[p], "confidence": round(c, 4)}
            for name, t, p, c in columns
        ]


def check(config: ZeroShotConfig, datasets: Iterable[str]) -> None:
    """Refuses a section that cannot be run.

    Raises:
        UserError: no classes, a template without a place for the class, or an unknown dataset.
    """
    where = "evaluation.zero_shot"
    if config.dataset not in (names := list(datasets)):
        raise UserError(
            f"{where}.dataset: '{config.dataset}' is not a dataset of this run.{near_miss(config.dataset, names)}"
        )
    if not config.classes or not config.templates:
        raise UserError(f"{where} needs prompts, or at least one entry in classes and one in templates.")
    for template in config.templates:
        if "{}" not in template:
            raise UserError(f"{where}.templates: '{template}' has no {{}} where the class name goes.")


@torch.no_grad()
def text_classifier(model: Any, text_processor: Any, config: ZeroShotConfig, device: torch.device) -> Tensor:
    """(C, E) unit vectors: each prompt embedded and normalised, their mean per class normalised again."""
    weights = []
    for name in config.classes:
        ids, mask = text_processor.encode([template.format(name) for template in config.templates])
        weights.append(normalize(model.encode_text(ids.to(device), mask.to(device)).float(), dim=-1).mean(0))
    return normalize(torch.stack(weights), dim=-1)


@torch.no_grad()
def classify(
    model: Any, batches: Iterable[Any], text_processor: Any, config: ZeroShotConfig, device: torch.device
) -> ZeroShotResult:
    """Classifies every image that has a label.

    Raises:
        UserError: no image has a label, or a label has no class name.
    """
    classifier = text_classifier(model, text_processor, config, device)
    targets, predictions, confidences, ids = [], [], [], []
    for batch in batches:
        labelled = batch["targets"] >= 0
        embedded = normalize(model.encode_image(batch["image"][labelled].to(device)).float(), dim=-1)
        probabilities = (100 * embedded @ classifier.T).softmax(-1).cpu()
        best = probabilities.max(-1)
        targets.append(batch["targets"][labelled])
        predictions.append(best.indices)
        confidences.append(best.values)
        ids += [name for name, keep in zip(batch["sample_id"], labelled.tolist(), strict=True) if keep]
    target = torch.cat(targets) if targets else torch.empty(0)
    if not len(target):
        raise UserError(f"evaluation.zero_shot: no image of dataset '{config.dataset}' has a label.")
    if target.max() >= len(config.classes):
        raise UserError(
            f"evaluation.zero_shot.classes names {len(config.classes)} classes, dataset '{config.dataset}' has a label "
            f"{int(target.max())}; list one class name per label, in the labels' order."
        )
    return ZeroShotResult(
        target, torch.cat(predictions), torch.cat(confidences), ids, list(config.classes), list(config.templates)
    )
