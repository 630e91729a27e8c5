"""The gallery of a retrieval task: images, captions and the positive (matching) pairs of an image and a caption.

Shapes: N = number of images, M = number of captions, P = number of positive pairs, E = projection size.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmf_flava.errors import UserError, join_first
from mmf_flava.evaluation.features import Features
from mmf_flava.evaluation.ranking import round_to_grid

MAX_NAMED = 20  # bad records that an error message names


class IncompleteGalleryError(UserError):
    """The error for a gallery with bad records: with fewer images, the recall would be higher."""


@dataclass
class Gallery:
    """Image embeddings, captions and positive (matching) image-caption pairs.

    Attributes:
        images: (N, E) unit embeddings, rounded by ``round_to_grid``.
        positions: (N,) index of each image in its dataset.
        captions: M texts.
        pairs: (P, 2) image index and caption index of the positive pairs, sorted by image.
    """

    images: Tensor
    positions: Tensor
    captions: list[str]
    pairs: Tensor

    @classmethod
    def from_features(cls, features: Features, merge_equal_captions: bool) -> "Gallery":
        """Build a gallery from the features of a split.

        Duplicate samples, which have the same ID and the same captions, are removed.

        Args:
            merge_equal_captions: merge equal captions into one, which is a positive of every image that has it.

        Raises:
            IncompleteGalleryError: records are bad; the message lists the first of them.
            UserError: some images have no caption; the message lists the first of them.
        """
        if features.bad:
            raise IncompleteGalleryError(
                f"evaluation.retrieval: {len(features.bad)} of {len(features) + len(features.bad):,} records are bad: "
                f"{join_first(features.bad, MAX_NAMED)}. A retrieval gallery must be complete. Repair or download "
                "these records again; the log and quarantine.jsonl have the reasons."
            )
        if uncaptioned := [
            name for name, captions in zip(features.ids, features.captions, strict=True) if not captions
        ]:
            raise UserError(
                f"evaluation.retrieval: {len(uncaptioned)} of {len(features)} images have no caption "
                f"({join_first(uncaptioned)}). Set evaluation.retrieval.dataset to a dataset in "
                "which every image has a caption."
            )
        first: dict[tuple[str, ...], int] = {}
        for n, name in enumerate(features.ids):
            first.setdefault((name, *features.captions[n]), n)
        kept = list(first.values())
        texts = [features.captions[n] for n in kept]
        captions = [text for captions in texts for text in captions]
        images = np.repeat(np.arange(len(kept)), [len(captions) for captions in texts])
        indices = np.arange(len(captions))
        if merge_equal_captions:
            unmerged, captions = captions, sorted(set(captions))
            index_of = {text: index for index, text in enumerate(captions)}
            indices = np.array([index_of[text] for text in unmerged])
        pairs = np.unique(np.stack([images, indices], axis=1), axis=0)
        positions = torch.tensor(kept)
        embeddings = round_to_grid(torch.from_numpy(features.embeddings)[positions])
        return cls(embeddings, positions, captions, torch.from_numpy(pairs))

    def unique_captions(self) -> tuple[list[str], list[int]]:
        """Return the unique captions sorted by length, and for each of the M captions its index in that list.

        Each unique caption is embedded once, so that equal captions have equal similarities. Sorting reduces padding.
        """
        texts = sorted(set(self.captions), key=lambda text: (len(text), text))
        index_of = {text: index for index, text in enumerate(texts)}
        return texts, [index_of[text] for text in self.captions]
