"""Patches that let MMF's datasets respect ``use_images`` and ``fast_read``, which MMF ignores."""

import inspect
from typing import Any

from mmf_flava.compat.patch import patch, wrap

IMAGES: dict[str, Any] = {
    "what": "use_images: true adds images to the samples, processed by image_processor of the dataset's config",
    "why": "the dataset opens the image folder but does not read images, so that samples contain only features",
    "since": "MMF 1.0.0rc1",
    "until": "MMF's load_item reads image_db",
}


@patch(
    "mmf.datasets.base_dataset_builder",
    what="fast_read: true caches the samples of vqa2 and of the datasets that are derived from it",
    why="the datasets read the cache, which is never filled",
    since="MMF's main branch of 2021",
    until="load_dataset calls try_fast_read again",
    needed=lambda module: "dataset.try_fast_read()" not in inspect.getsource(module.BaseDatasetBuilder.load_dataset),
)
def fast_read(module: Any) -> None:
    @wrap(module.BaseDatasetBuilder, "load_dataset")
    def load_dataset(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        dataset = original(self, *args, **kwargs)
        if hasattr(dataset, "try_fast_read"):
            dataset.try_fast_read()
        return dataset


@patch(
    "mmf.datasets.builders.vqa2.dataset",
    needed=lambda module: "image_db" not in inspect.getsource(module.VQA2Dataset),
    **IMAGES,
)
def vqa2_images(module: Any) -> None:
    @wrap(module.VQA2Dataset, "init_processors")
    def init_processors(original: Any, self: Any) -> None:
        original(self)
        if _uses_images(self):
            self.image_db.transform = self.image_processor

    wrap(module.VQA2Dataset, "load_item")(_load_item_with_image)


@patch(
    "mmf.datasets.builders.visual_entailment.dataset",
    needed=lambda module: "image_db" not in inspect.getsource(module.VisualEntailmentDataset),
    **IMAGES,
)
def visual_entailment_images(module: Any) -> None:
    # VisualEntailmentDataset.load_item does not call VQA2Dataset.load_item
    wrap(module.VisualEntailmentDataset, "load_item")(_load_item_with_image)


def _load_item_with_image(original: Any, self: Any, idx: int) -> Any:
    sample = original(self, idx)
    if _uses_images(self):
        sample.image = self.image_db[idx]["images"][0]
    return sample


def _uses_images(dataset: Any) -> bool:
    return dataset._use_images and getattr(dataset, "image_processor", None) is not None
