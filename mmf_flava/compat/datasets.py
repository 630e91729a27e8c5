"""Defects of MMF's own datasets, and what it says where their files are not there."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure
from mmf_flava.errors import UserError

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


NAMED: dict[str, Any] = {
    "when": "after",
    "what": "a dataset's file that is not there is named, with its folder and where it can be had",
    "why": "MMF shows the traceback of whatever ended the download",
    "since": "MMF 1.0.0rc1",
    "until": "MMF tells users' mistakes from its own",
}


@cure("mmf.utils.download", **NAMED)
def missing_file(module: ModuleType) -> None:
    download_file = module.DownloadableFile.download_file

    @functools.wraps(download_file)
    def download_or_name(self: Any, download_path: str) -> None:
        try:
            download_file(self, download_path)
        except (OSError, AssertionError) as error:
            folder = os.path.join(download_path, self._dest_folder or "")
            raise UserError(
                f"{self._file_name} is not in {folder} and cannot be had from {self._url} "
                f"({type(error).__name__}): put it there, or name in dataset_config where the files are."
            ) from error

    module.DownloadableFile.download_file = download_or_name


@cure("mmf.datasets.builders.hateful_memes.builder", **NAMED)
def hateful_memes_by_hand(module: ModuleType) -> None:
    build = module.HatefulMemesBuilder.build

    @functools.wraps(build)
    def build_or_name(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        try:
            build(self, config, *args, **kwargs)
        except AssertionError as error:
            folder = os.path.join(
                module.get_mmf_env(key="data_dir"), "datasets", self.dataset_name, "defaults", "annotations"
            )
            raise UserError(
                f"Hateful Memes is not in {folder}: looked for train.jsonl. It is not downloaded, for its license must "
                "be agreed to: https://fb.me/hm_prerequisites says how, and mmf_convert_hm puts the files there."
            ) from error

    module.HatefulMemesBuilder.build = build_or_name


@cure("mmf.datasets.builders.glue.builder", **NAMED)
def glue_of_the_hub(module: ModuleType) -> None:
    init = module.GLUEDataset.__init__

    @functools.wraps(init)
    def init_or_name(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, config, *args, **kwargs)
        except ModuleNotFoundError as error:
            raise UserError(
                f"glue_{config.task} is read by the package {error.name}, which is not installed: pip install "
                f"{error.name}, or take dataset: glue, which reads GLUE's public files."
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(
                f"glue_{config.task} cannot be had from the hub ({type(error).__name__}: {error}): try again with a "
                "network, or take dataset: glue, which reads GLUE's public files."
            ) from error

    module.GLUEDataset.__init__ = init_or_name
