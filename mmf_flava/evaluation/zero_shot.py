"""Zero-shot classification with CLIP's protocol (FLAVA paper, §4 and B.1).

The weight vector of a class is the normalised mean of the text embeddings of its prompts.

Shapes: E = projection size, C = number of classes, N = number of images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from mmf_flava.command import bar_interval
from mmf_flava.config.flava_trainers import check_evaluated_dataset
from mmf_flava.config.run import ZeroShotConfig, check_templates
from mmf_flava.errors import UserError
from mmf_flava.evaluation.features import FeatureExtractor, Features, hash_strings, interleave
from mmf_flava.files import atomic
from mmf_flava.processes import gather_objects, rank
from mmf_flava.weights.weight_files import read_safetensors

TOP = 5
MIN_PROMPTS_FOR_BAR = 10_000  # minimum number of prompts for which a progress bar is shown


@dataclass
class ZeroShotResult:
    """Predictions for N labelled images.

    Attributes:
        targets: (N,) class indices.
        best: (N, min(5, C)) class indices in descending order of probability.
        confidences: (N,) probability of the top class.
        ids: N sample ids.
        bad: number of bad records of the dataset, which are left out.
        captions_have_classes: whether the training captions contain the class names.
    """

    targets: Tensor
    best: Tensor
    confidences: Tensor
    ids: list[str]
    classes: list[str]
    templates: list[str]
    bad: int = 0
    captions_have_classes: bool = False

    @property
    def predictions(self) -> Tensor:
        """The (N,) predicted classes."""
        return self.best[:, 0]

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in [0, 1]."""
        return self.top_k_accuracy(1)

    def top_k_accuracy(self, k: int) -> float:
        """Return the top-k accuracy in [0, 1]."""
        return (self.best[:, :k] == self.targets[:, None]).any(1).float().mean().item()

    @property
    def confusion(self) -> Tensor:
        """The (C, C) confusion matrix of counts; rows are true classes, columns are predicted classes."""
        classes = len(self.classes)
        return torch.bincount(self.targets * classes + self.predictions, minlength=classes**2).view(classes, classes)

    def per_class(self) -> list[dict[str, Any]]:
        """Return the number of images and the accuracy of each class; without images, the accuracy is None."""
        counts, correct = self.confusion.sum(1).tolist(), self.confusion.diagonal().tolist()
        return [
            {"class": name, "count": count, "accuracy": hits / count if count else None}
            for name, count, hits in zip(self.classes, counts, correct, strict=True)
        ]

    def summary(self) -> dict[str, Any]:
        """Return the section ``zero_shot`` of ``evaluation.json``."""
        per_class = self.per_class()
        accuracies = [row["accuracy"] for row in per_class if row["accuracy"] is not None]
        return {
            "accuracy": self.accuracy,
            **({f"top{TOP}": self.top_k_accuracy(TOP)} if len(self.classes) > TOP else {}),
            "mean_per_class": sum(accuracies) / len(accuracies),
            "count": len(self.targets),
            "chance": 1 / len(self.classes),
            "classes": self.classes,
            "templates": self.templates,
            **({"captions_have_classes": True} if self.captions_have_classes else {}),
            "per_class": per_class,
            "confusion": self.confusion.tolist(),
        }

    def prediction_rows(self) -> list[dict[str, Any]]:
        """Return the predictions that ``mmf_predict`` writes: one dict per image."""
        columns = zip(
            self.ids, self.targets.tolist(), self.predictions.tolist(), self.confidences.tolist(), strict=True
        )
        return [
            {"id": name, "target": self.classes[t], "prediction": self.classes[p], "confidence": round(c, 4)}
            for name, t, p, c in columns
        ]


def check_config(config: ZeroShotConfig, datasets: Iterable[str]) -> None:
    """Check the recipe section ``evaluation.zero_shot``.

    Raises:
        UserError: there are no classes, a template has no placeholder for the class name, or the dataset is unknown.
    """
    where = "evaluation.zero_shot"
    check_evaluated_dataset("zero_shot", config.dataset, datasets)
    if not config.classes or not config.templates:
        raise UserError(f"{where}: classes or templates is empty. Set prompts, or at least one class and one template.")
    check_templates(config.templates, f"{where}.templates")


def classify(model: Any, dataset: Any, config: ZeroShotConfig, extractor: FeatureExtractor) -> ZeroShotResult:
    """Classify all labelled images of the dataset; all processes get the same result.

    Raises:
        UserError: no image has a label, or a label has no class name.
    """
    classifier = load_or_build_classifier(model, dataset.text_processor, config, extractor)
    chunks = [_classify_chunk(chunk, classifier) for chunk in extractor.chunks(model, dataset, "contrastive")]
    chunks = interleave(gather_objects(chunks))
    targets = torch.cat([chunk.targets for chunk in chunks])
    ids = [name for chunk in chunks for name in chunk.ids]
    _check_labels(targets, ids, config)
    best, confidences = (torch.cat([getattr(chunk, name) for chunk in chunks]) for name in ("best", "confidences"))
    bad = sum(chunk.bad for chunk in chunks)
    prompts = list(config.classes), list(config.templates)
    return ZeroShotResult(targets, best, confidences, ids, *prompts, bad, config.captions_have_classes)


@dataclass
class _ChunkPredictions:
    """Predictions for the labelled images of one chunk; the fields are the same as in ``ZeroShotResult``."""

    targets: Tensor
    best: Tensor
    confidences: Tensor
    ids: list[str]
    bad: int


def _classify_chunk(chunk: Features, classifier_CE: Tensor) -> _ChunkPredictions:
    labelled = chunk.targets >= 0
    # a chunk without samples has no width
    embeddings = torch.from_numpy(chunk.embeddings[labelled].reshape(-1, classifier_CE.shape[1]))
    embeddings = embeddings.to(classifier_CE.device)
    probabilities = (100 * embeddings @ classifier_CE.T).softmax(-1).cpu()
    top = probabilities.topk(min(TOP, len(classifier_CE)), dim=-1)
    ids = [name for name, keep in zip(chunk.ids, labelled, strict=True) if keep]
    targets = torch.from_numpy(chunk.targets[labelled])
    return _ChunkPredictions(targets, top.indices, top.values[:, 0], ids, len(chunk.bad))


def _check_labels(targets: Tensor, ids: list[str], config: ZeroShotConfig) -> None:
    if not len(targets):
        raise UserError(
            f"evaluation.zero_shot: dataset '{config.dataset}' has no labelled images. Choose another dataset."
        )
    out_of_range = (targets >= (classes := len(config.classes))).nonzero().flatten().tolist()
    if out_of_range:
        examples = ", ".join(f"{ids[n]} has label {int(targets[n])}" for n in out_of_range[:3])
        raise UserError(
            f"evaluation.zero_shot.classes has {classes} classes (labels 0 to {classes - 1}), but dataset "
            f"'{config.dataset}' has other labels: {examples}. List one class name per label, in label order."
        )


# ---------------------------------------------------------------------- prompts


def load_or_build_classifier(
    model: Any, text_processor: Any, config: ZeroShotConfig, extractor: FeatureExtractor
) -> Tensor:
    """Return the zero-shot classifier (see ``build_classifier``), cached in ``extractor.folder``.

    The cache key depends on the weights, the vocabulary, the maximum text length, the classes and the templates.
    """
    if extractor.folder is None:
        return build_classifier(model, text_processor, config, extractor)
    text = [str(getattr(text_processor, name, "")) for name in ("vocabulary_hash", "max_length")]
    key = hash_strings([extractor.weights_sha256(model), *text, *config.classes, "", *config.templates])
    path = extractor.folder / f"classifier-{key}.safetensors"
    cached = None
    if rank() == 0 and path.is_file():
        try:
            cached = read_safetensors(path)[0].get("classifier")
        except UserError:
            cached = None  # damaged file: rebuild
    cached = gather_objects(cached)[0]
    if cached is not None:
        return cached.to(extractor.device)
    classifier = build_classifier(model, text_processor, config, extractor)
    if rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replace_file(path) as file:
            save_file({"classifier": classifier.cpu().contiguous()}, file)
    return classifier


@torch.no_grad()
def build_classifier(model: Any, text_processor: Any, config: ZeroShotConfig, extractor: FeatureExtractor) -> Tensor:
    """Return the zero-shot classifier, (C, projection size).

    The weight vector of a class is the normalised mean of the normalised text embeddings of its prompts. The classes
    are dealt to the processes.
    """
    device, prompts = extractor.device, len(config.classes) * len(config.templates)
    bar = tqdm(
        extractor.rounds.deal(config.classes),
        total=len(extractor.rounds.own(config.classes)),
        desc="class names",
        unit="class",
        disable=rank() > 0 or prompts < MIN_PROMPTS_FOR_BAR,
        mininterval=bar_interval(),
    )
    weights = {}
    for name, _ in bar:
        if name is None:
            continue
        ids, mask = text_processor.encode([template.replace("{}", name) for template in config.templates])
        weights[name] = normalize(model.encode_text(ids.to(device), mask.to(device)).float(), dim=-1).mean(0).cpu()
    weights = {name: embedding for local in gather_objects(weights) for name, embedding in local.items()}
    return normalize(torch.stack([weights[name] for name in config.classes]), dim=-1).to(device)
