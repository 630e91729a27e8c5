"""Weighted k-nearest neighbours on frozen embeddings (Wu et al. 2018, section 3.4; DINO, sections 4.2 and F.1).

A test image gets the class with the largest weight among its k nearest training images by cosine similarity. A
neighbour of similarity s has the weight exp(s / temperature). There is nothing to fit, so the score follows a run at
little cost.

Shapes: N training images, M test images, D width of an embedding, k neighbours.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmf_flava.config.flava_trainers import check_evaluated_dataset
from mmf_flava.config.run import KnnConfig
from mmf_flava.errors import UserError
from mmf_flava.evaluation.linear_probe import LabelledEmbeddings, accuracy, mean_per_class

TEST_ROWS, TRAIN_ROWS = 1024, 16_384  # block of the similarity matrix: 64 MiB in fp32


@dataclass
class KnnResult:
    """Result of the nearest neighbours.

    Attributes:
        targets, predictions: (M,) labels of the test images.
        k: number of neighbours; fewer than configured if there are fewer training images.
        temperature: temperature of the weights.
        train: number of training images.
        classes: number of classes of the training images.
    """

    targets: np.ndarray
    predictions: np.ndarray
    k: int
    temperature: float
    train: int
    classes: int

    @property
    def remark(self) -> str:
        """Words about an accuracy that says nothing, for the log; empty if it does."""
        return " (all training images have the same class)" if self.classes == 1 else ""

    @property
    def accuracy(self) -> float:
        """Accuracy on the test images, in [0, 1]."""
        return accuracy(self.targets, self.predictions)

    def summary(self) -> dict[str, Any]:
        """Return the section ``knn`` of ``evaluation.json``."""
        return {
            "accuracy": self.accuracy,
            "mean_per_class": mean_per_class(self.targets, self.predictions),
            "count": len(self.targets),
            "k": self.k,
            "temperature": self.temperature,
            "samples": {"train": self.train, "test": len(self.targets)},
            "classes": self.classes,
        }


def check_config(config: KnnConfig, datasets: Iterable[str]) -> None:
    """Check the recipe section ``evaluation.knn``.

    Raises:
        UserError: the section names an unknown dataset.
    """
    check_evaluated_dataset("knn", config.dataset, datasets)


def run_knn(
    train: LabelledEmbeddings, test: LabelledEmbeddings, config: KnnConfig, device: torch.device | str = "cpu"
) -> KnnResult:
    """Predict the classes of ``test`` from the nearest images of ``train``. Images without a label are ignored.

    Raises:
        UserError: there are no labelled training images, or no labelled test images.
    """
    train, test = train.labelled(), test.labelled()
    for name, samples in (("training", train), ("test", test)):
        if not len(samples):
            raise UserError(
                f"evaluation.knn: dataset '{config.dataset}' has no labelled {name} images. Choose another dataset, or "
                "set evaluation.knn to null."
            )
    labels, classes = np.unique(train.targets, return_inverse=True)
    k = min(config.k, len(train))
    similarities, indices = nearest(train.embeddings, test.embeddings, k, device)
    weights = vote(similarities, torch.from_numpy(classes)[indices], len(labels), config.temperature)
    predictions = labels[weights.argmax(dim=1).numpy()]
    return KnnResult(test.targets, predictions, k, config.temperature, len(train), len(labels))


@torch.no_grad()
def nearest(
    train_ND: np.ndarray, test_MD: np.ndarray, k: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Return the cosine similarities (M, k) of the k nearest rows of ``train_ND``, in descending order, and their
    indices (M, k).

    The similarity matrix is computed in blocks, so that neither it nor all training embeddings must fit into the
    memory of the device.
    """
    tests = [normalize(rows.float().to(device), dim=1) for rows in torch.from_numpy(test_MD).split(TEST_ROWS)]
    best: list[tuple[Tensor, Tensor] | None] = [None] * len(tests)
    for start in range(0, len(train_ND), TRAIN_ROWS):
        rows = torch.from_numpy(train_ND[start : start + TRAIN_ROWS])
        block = normalize(rows.float().to(device), dim=1)
        for number, test in enumerate(tests):
            values, indices = (test @ block.T).topk(min(k, len(block)), dim=1)
            indices += start
            if (earlier := best[number]) is not None:
                values, indices = (torch.cat(pair, dim=1) for pair in zip(earlier, (values, indices), strict=True))
                values, order = values.topk(min(k, values.shape[1]), dim=1)
                indices = indices.gather(1, order)
            best[number] = values, indices
    found = [pair for pair in best if pair is not None]
    return torch.cat([values for values, _ in found]).cpu(), torch.cat([indices for _, indices in found]).cpu()


def vote(similarities_Mk: Tensor, classes_Mk: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Return the weight of each class, (M, num_classes): the sum of exp(s / temperature) over its neighbours.

    Each row is divided by its largest weight of a neighbour, which cannot overflow and does not change the order.
    """
    scaled = similarities_Mk.double() / temperature
    weights = (scaled - scaled.max(dim=1, keepdim=True).values).exp()
    return weights.new_zeros(len(weights), num_classes).scatter_add_(1, classes_Mk, weights)
