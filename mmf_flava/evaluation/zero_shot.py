"""Zero-shot classification: a class is the mean of its prompts' text embeddings (CLIP's protocol; §4, B.1).

Shapes: E projection, C classes, N images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from mmf_flava.config.run import ZeroShotConfig
from mmf_flava.config.schema import near_miss
from mmf_flava.errors import UserError
from mmf_flava.evaluation.features import Extraction, Features, bar_interval, by_turns, digest
from mmf_flava.ranks import gather_objects, rank, world_size

TOP = 5
MANY = 10_000  # prompts from which a progress bar is worth its place


@dataclass
class ZeroShotResult:
    """targets: (N,) class numbers; best: (N, up to 5) the likeliest classes, the likeliest first; confidences: (N,)
    probability of the likeliest; ids: N names."""

    targets: Tensor
    best: Tensor
    confidences: Tensor
    ids: list[str]
    classes: list[str]
    templates: list[str]

    @property
    def predictions(self) -> Tensor:
        """(N,) the likeliest class."""
        return self.best[:, 0]

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in [0, 1]."""
        return self.top(1)

    def top(self, k: int) -> float:
        """Share of images whose class is among the ``k`` likeliest."""
        return (self.best[:, :k] == self.targets[:, None]).any(1).float().mean().item()

    @property
    def confusion(self) -> Tensor:
        """(C, C) counts; rows are the true classes, columns the predicted ones."""
        classes = len(self.classes)
        return torch.bincount(self.targets * classes + self.predictions, minlength=classes**2).view(classes, classes)

    def per_class(self) -> list[dict[str, Any]]:
        """Accuracy of each class: the share of its images that were told right, None where there are none."""
        counts, right = self.confusion.sum(1).tolist(), self.confusion.diagonal().tolist()
        return [
            {"class": name, "count": count, "accuracy": hits / count if count else None}
            for name, count, hits in zip(self.classes, counts, right, strict=True)
        ]

    def summary(self) -> dict[str, Any]:
        """What goes into ``evaluation.json``."""
        table = self.per_class()
        return {
            "accuracy": self.accuracy,
            **({f"top{TOP}": self.top(TOP)} if len(self.classes) > TOP else {}),
            "mean_per_class": sum(known := [a for row in table if (a := row["accuracy"]) is not None]) / len(known),
            "count": len(self.targets),
            "chance": 1 / len(self.classes),
            "classes": self.classes,
            "templates": self.templates,
            "per_class": table,
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


def classify(model: Any, dataset: Any, config: ZeroShotConfig, extraction: Extraction) -> ZeroShotResult:
    """Classifies every image of the dataset that has a label; where processes share the work, each gets the result.

    Raises:
        UserError: no image has a label, or labels have no class name.
    """
    classifier = cached_classifier(model, dataset.text_processor, config, extraction)
    parts = [_classify(chunk, classifier) for chunk in extraction.chunks(model, dataset, "contrastive")]
    if extraction.shared:
        parts = by_turns(gather_objects(parts))
    targets = torch.cat([part.targets for part in parts])
    ids = [name for part in parts for name in part.ids]
    _check_labels(targets, ids, config)
    best, confidences = (torch.cat([getattr(part, name) for part in parts]) for name in ("best", "confidences"))
    return ZeroShotResult(targets, best, confidences, ids, list(config.classes), list(config.templates))


@dataclass
class _Part:
    """A chunk's part of a ZeroShotResult."""

    targets: Tensor
    best: Tensor
    confidences: Tensor
    ids: list[str]


def _classify(chunk: Features, classifier_CE: Tensor) -> _Part:
    labelled = chunk.targets >= 0
    vectors = torch.from_numpy(chunk.vectors[labelled]).to(classifier_CE.device)
    probabilities = (100 * vectors @ classifier_CE.T).softmax(-1).cpu()
    top = probabilities.topk(min(TOP, len(classifier_CE)), dim=-1)
    ids = [name for name, keep in zip(chunk.ids, labelled, strict=True) if keep]
    return _Part(torch.from_numpy(chunk.targets[labelled]), top.indices, top.values[:, 0], ids)


def _check_labels(targets: Tensor, ids: list[str], config: ZeroShotConfig) -> None:
    if not len(targets):
        raise UserError(f"evaluation.zero_shot: no image of dataset '{config.dataset}' has a label.")
    beyond = (targets >= (classes := len(config.classes))).nonzero().flatten().tolist()
    if beyond:
        found = ", ".join(f"{ids[n]} has label {int(targets[n])}" for n in beyond[:3])
        raise UserError(
            f"evaluation.zero_shot.classes names {classes} classes, labels 0 to {classes - 1}, but of dataset "
            f"'{config.dataset}' {found}; list one class name per label, in the labels' order."
        )


# ---------------------------------------------------------------------- prompts


def cached_classifier(model: Any, text_processor: Any, config: ZeroShotConfig, extraction: Extraction) -> Tensor:
    """``text_classifier`` of these weights, classes and templates, from the extraction's folder where it has one."""
    if extraction.folder is None:
        return text_classifier(model, text_processor, config, extraction.device, extraction.shared)
    vocabulary = str(getattr(text_processor, "vocabulary_hash", ""))
    key = digest([extraction.weights_sha256(model), vocabulary, *config.classes, "", *config.templates])
    path = extraction.folder / f"classifier-{key}.safetensors"
    known = None
    if rank() == 0 and path.is_file():
        try:
            known = load_file(path)["classifier"]
        except (SafetensorError, KeyError):
            known = None  # cut short: made again
    known = gather_objects(known)[0] if extraction.shared else known
    if known is not None:
        return known.to(extraction.device)
    made = text_classifier(model, text_processor, config, extraction.device, extraction.shared)
    if rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.writing")
        save_file({"classifier": made.cpu().contiguous()}, temporary)
        temporary.replace(path)
    return made


@torch.no_grad()
def text_classifier(
    model: Any, text_processor: Any, config: ZeroShotConfig, device: torch.device, shared: bool = False
) -> Tensor:
    """(C, E) unit vectors: each prompt embedded and normalised, their mean per class normalised again."""
    first, step = (rank(), world_size()) if shared else (0, 1)
    own = config.classes[first::step]
    prompts = len(config.classes) * len(config.templates)
    bar = tqdm(own, desc="class names", unit="class", disable=first > 0 or prompts < MANY, mininterval=bar_interval())
    weights = {}
    for name in bar:
        ids, mask = text_processor.encode([template.format(name) for template in config.templates])
        weights[name] = normalize(model.encode_text(ids.to(device), mask.to(device)).float(), dim=-1).mean(0).cpu()
    if shared:
        weights = {name: vector for part in gather_objects(weights) for name, vector in part.items()}
    return normalize(torch.stack([weights[name] for name in config.classes]), dim=-1).to(device)
