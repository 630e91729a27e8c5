"""The images and captions among which retrieval looks, and which belong together.

Shapes: N images, M captions, P pairs that belong together, E projection.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmf_flava.errors import UserError, some
from mmf_flava.evaluation.features import Features
from mmf_flava.evaluation.ranking import on_grid


@dataclass
class Gallery:
    """images: (N, E) vectors on the grid; positions: (N,) each image's number in its dataset; captions: M texts; pairs:
    (P, 2) numbers of an image and a caption that belong together, by image."""

    images: Tensor
    positions: Tensor
    captions: list[str]
    pairs: Tensor

    @classmethod
    def of(cls, features: Features, merge_equal_captions: bool) -> "Gallery":
        """The gallery of a whole split.

        An image that stands in for a record that could not be read has come before and is left out. With
        ``merge_equal_captions`` a caption is in the gallery once, for all images that carry it.

        Raises:
            UserError: images without a caption; the first of them are named.
        """
        if bare := [name for name, captions in zip(features.ids, features.captions, strict=True) if not captions]:
            raise UserError(
                f"evaluation.retrieval: {len(bare)} of {len(features)} images have no caption ({some(bare)}); name a "
                "dataset whose images all have one."
            )
        first: dict[tuple[str, ...], int] = {}
        for n, name in enumerate(features.ids):
            first.setdefault((name, *features.captions[n]), n)
        kept = list(first.values())
        texts = [features.captions[n] for n in kept]
        captions = [text for own in texts for text in own]
        images = np.repeat(np.arange(len(kept)), [len(own) for own in texts])
        numbers = np.arange(len(captions))
        if merge_equal_captions:
            carried, captions = captions, sorted(set(captions))
            place = {text: number for number, text in enumerate(captions)}
            numbers = np.array([place[text] for text in carried])
        pairs = np.unique(np.stack([images, numbers], axis=1), axis=0)
        positions = torch.tensor(kept)
        return cls(on_grid(torch.from_numpy(features.vectors)[positions]), positions, captions, torch.from_numpy(pairs))

    @property
    def distinct(self) -> tuple[list[str], list[int]]:
        """The different captions, the shortest first, and the number among them of each of the M.

        Equal captions have one vector so, and tie; texts of similar length are padded little.
        """
        texts = sorted(set(self.captions), key=lambda text: (len(text), text))
        place = {text: number for number, text in enumerate(texts)}
        return texts, [place[text] for text in self.captions]
