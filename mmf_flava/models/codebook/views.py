"""Inputs of the codebook for the cached views of a dataset.

Shapes: N = number of images, V = views per record, h x w = size of the codebook's input in pixels.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmf_flava.data.record import BadRecord, Reason, record_boundary
from mmf_flava.errors import UserError

if TYPE_CHECKING:
    from mmf_flava.data.image_stream import ImageStreamDataset


class CodebookViews(Dataset):
    """Dataset of codebook inputs: an item is an index and a (V, 3, h, w) tensor with V crops of its image.

    The crops have h x w pixels. The item of a bad record is its index and the BadRecord.
    """

    def __init__(self, dataset: "ImageStreamDataset"):
        self.dataset = dataset
        side = dataset.image_processor.codebook_geometry(dataset.training)["codebook_size"]
        self.shape = (dataset.num_cached_views, 3, side, side)

    def __len__(self) -> int:
        return self.dataset.size

    def __getitem__(self, index: int) -> tuple[int, Tensor | BadRecord]:
        try:
            with record_boundary(f"record {index}"):
                views = self.dataset.codebook_views(index)
                if views.shape != self.shape:
                    message = f"record {index}: the crops have shape {tuple(views.shape)}, expected {self.shape}"
                    raise BadRecord(Reason.MISFIT, message)
                return index, views
        except BadRecord as error:
            return index, error


def load_first_views(dataset: "ImageStreamDataset", count: int) -> Tensor:
    """Return the first crop of each of the first N readable images, (N, 3, h, w) with N <= ``count``."""
    views = CodebookViews(dataset)
    images = (image for _, image in map(views.__getitem__, range(dataset.size)) if isinstance(image, Tensor))
    first = [image[0] for image, _ in zip(images, range(count), strict=False)]
    if not first:
        raise UserError(
            f"dataset_config.{dataset.name}: no record has a readable image. Check the dataset's paths and image files."
        )
    return torch.stack(first)
