"""Defects of MMF 1.0.0rc10's own datasets."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure

CURE: dict[str, Any] = {
    "when": "after",
    "what": "use_images: true brings images, through the recipe's image_processor",
    "why": "these datasets open the folder of images and never look into it, so that only features can be had",
    "since": "MMF 1.0.0rc1",
    "until": "MMF's load_item reads image_db",
}


@cure(
    "mmf.datasets.builders.vqa2.dataset",
    needed=lambda module: "image_db" not in inspect.getsource(module.VQA2Dataset),
    **CURE,
)
def vqa2_images(module: ModuleType) -> None:
    dataset = module.VQA2Dataset
    init = dataset.init_processors

    def init_processors(self: Any) -> None:
        init(self)
        if _wants_images(self):
            self.image_db.transform = self.image_processor

    dataset.init_processors = init_processors
    dataset.load_item = _with_image(dataset.load_item)


@cure(
    "mmf.datasets.builders.visual_entailment.dataset",
    needed=lambda module: "image_db" not in inspect.getsource(module.VisualEntailmentDataset),
    **CURE,
)
def visual_entailment_images(module: ModuleType) -> None:
    dataset = module.VisualEntailmentDataset
    dataset.load_item = _with_image(dataset.load_item)  # it does not call that of VQA2Dataset


def _wants_images(dataset: Any) -> bool:
    return dataset._use_images and getattr(dataset, "image_processor", None) is not None


def _with_image(load_item: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    @functools.wraps(load_item)
    def load_item_with_image(self: Any, idx: int) -> Any:
        sample = load_item(self, idx)
        if _wants_images(self):
            sample.image = self.image_db[idx]["images"][0]
        return sample

    return load_item_with_image
