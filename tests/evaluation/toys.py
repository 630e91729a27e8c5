"""A toy dataset whose images are vectors, and a toy model that returns them as embeddings."""

from dataclasses import dataclass, field

import torch
from torch import nn

from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.evaluation.features import FeatureExtractor
from mmf_flava.evaluation.rounds import Rounds

CPU = torch.device("cpu")


@dataclass
class ToyDataset:
    """Dataset whose images are embeddings, with the sample ids s0, s1, ...; the records ``bad`` are bad."""

    embeddings: list[list[float]]
    targets: list[int]
    captions: list[list[str]] = field(default_factory=list)
    text_processor: object = None
    dataset_name: str = "toy"
    dataset_type: str = "test"
    config: dict = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)

    def __len__(self):
        return len(self.embeddings)

    def __getitem__(self, n):
        return {"n": n}

    def read_sample(self, n):
        if n in self.bad:
            raise BadRecord(Reason.NO_IMAGE, f"s{n}: no image", f"s{n}")
        return self[n]

    def collate(self, samples):
        indices = [sample["n"] for sample in samples]
        batch = {
            "image": torch.tensor([self.embeddings[n] for n in indices]),
            "targets": torch.tensor([self.targets[n] for n in indices]),
            "sample_id": [f"s{n}" for n in indices],
        }
        return {**batch, "captions": [self.captions[n] for n in indices]} if self.captions else batch

    def fingerprint(self):
        return str(self.embeddings)


class ToyModel(nn.Module):
    """Model that returns the image times one weight, and counts the images."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.images = 0

    def encode_image(self, image):
        self.images += len(image)
        return image.flatten(1) * self.weight

    image_features = encode_image


def extractor(folder=None, batch_size=2, **options) -> FeatureExtractor:
    """Create a FeatureExtractor on the CPU with a batch size of 2."""
    return FeatureExtractor(Rounds(batch_size, **options), CPU, folder)
