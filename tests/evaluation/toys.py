"""A dataset of vectors and a model that shows them as they are, for evaluations that can be checked by hand."""

from dataclasses import dataclass, field

import torch
from torch import nn

from mmf_flava.evaluation.features import Extraction

CPU = torch.device("cpu")


@dataclass
class Vectors:
    """ "Images" that are vectors, by name s0, s1, ..."""

    vectors: list[list[float]]
    targets: list[int]
    captions: list[list[str]] = field(default_factory=list)
    text_processor: object = None
    dataset_name: str = "toy"
    dataset_type: str = "test"
    config: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, n):
        return n

    def collate(self, numbers):
        batch = {
            "image": torch.tensor([self.vectors[n] for n in numbers]),
            "targets": torch.tensor([self.targets[n] for n in numbers]),
            "sample_id": [f"s{n}" for n in numbers],
        }
        return {**batch, "captions": [self.captions[n] for n in numbers]} if self.captions else batch

    def fingerprint(self):
        return str(self.vectors)


class Model(nn.Module):
    """Its images are their vectors, times one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.images = 0

    def encode_image(self, image):
        self.images += len(image)
        return image.flatten(1) * self.weight

    image_features = encode_image


def extraction(**options) -> Extraction:
    return Extraction(**{"batch_size": 2, "num_workers": 0, "device": CPU, **options})
