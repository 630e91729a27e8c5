"""Base class of streaming datasets with images: records, crops and cached image codes.

Shapes: V = views (fixed crops) per record, h, w = height and width of the codebook input in pixels, P = patches per
image.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry

from mmf_flava.config.dataset_base import RecordsConfig
from mmf_flava.config.datasets import ImageStreamConfig
from mmf_flava.config.paths import resolve_path
from mmf_flava.data.codes import (
    HASH_LENGTH,
    OPENED_CODES,
    CodePart,
    DatasetCodes,
    read_header,
    resolve_codes_folder,
    view_generator,
)
from mmf_flava.data.image_decoding import decode_image
from mmf_flava.data.processor_calls import has_flava_interface, process_image
from mmf_flava.data.record import IMAGE_EXTENSIONS, Record, Records
from mmf_flava.data.records import open_parts, record_groups, record_units
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.stream import StreamDataset
from mmf_flava.errors import UserError
from mmf_flava.files.cache import FileCache
from mmf_flava.files.download import default_cache_dir


class ImageStreamDataset(StreamDataset):
    """A stream of records with images and optionally cached image codes.

    If the config key ``codes`` is set, the train split requires cached codes, and a training sample has ``image_codes``
    (P,) instead of ``image_for_codebook``. Other splits use cached codes if they exist; otherwise, the model computes
    the codes. Samples of other splits always have ``image_for_codebook``, which is needed to display examples.
    """

    def __init__(self, name: str, config: ImageStreamConfig, dataset_type: str, paths: Sequence[str | Path]):
        folder, cache = image_folder(config), build_shard_cache(name, config)
        self.records, parts = open_parts(paths, cache, folder, config.columns)
        readers = [self.records] if config.splits.weights(dataset_type) is None else parts
        # a path without records has no codes
        self._set_parts([(str(path), part) for path, part in zip(paths, parts, strict=True) if len(part)])
        super().__init__(name, config, dataset_type, [record_units(reader) for reader in readers])
        groups = [size for reader in readers for size, _ in record_groups(reader) if size]
        self._group_starts = [0, *accumulate(groups)]
        self.views = config.views
        self.codes: DatasetCodes | None = None

    def _set_parts(self, parts: Sequence[tuple[str, Records]]) -> None:
        self._parts_by_path = list(parts)
        self._part_starts = [0, *accumulate(len(records) for _, records in parts)]

    def init_processors(self) -> None:
        """Build the processors and open the codes. Raises UserError if the codes do not match the data or the crops."""
        super().init_processors()
        self._open_codes()
        header = None if self.codes is None else self.codes.header
        opened = registry.get(OPENED_CODES, default={}, no_warning=True)
        registry.register(OPENED_CODES, {**opened, f"{self.name} {self.dataset_type}": header})

    def _open_codes(self) -> None:
        codes = self.config.codes
        if codes is None:
            return
        if not has_flava_interface(self.image_processor):
            raise UserError(
                f"dataset_config.{self.name}.codes: the codes are of crops by an image_processor of type flava_image. "
                "Remove codes, or set the type to flava_image."
            )
        folder = resolve_codes_folder(codes, self.config.data_dir)
        expected = {
            "patches": self.image_processor.grid[0] * self.image_processor.grid[1],
            "geometry": self.image_processor.codebook_geometry(self.training),
        }
        if self.training and self.views is not None:
            expected["views"] = self.views
        try:
            parts = self.code_parts(folder)
            if not (self.training or all((folder / f"{part.stem}.json").is_file() for part in parts)):
                return
            self.codes = DatasetCodes(folder, parts, expected)
        except UserError as error:
            raise UserError(
                f"dataset_config.{self.name}.codes: {error} Create the codes with `python -m mmf_flava.cache_codes "
                f"RECIPE --dataset {self.name} --split {self.dataset_type} --name {codes}`. It computes the codes of "
                "the paths that have none."
            ) from None
        if self.training:
            self.views = self.codes.views

    def fingerprint(self) -> str:
        """Return a hash of the images, captions and labels.

        It is used to detect outdated caches of embeddings, and other data in a resumed run.
        """
        return records_sha256(self.records, (*IMAGE_EXTENSIONS, "json", "txt", "cls"))

    @property
    def num_cached_views(self) -> int:
        """Number of crops per image whose codes are cached: ``views`` in training, otherwise 1 (the entire image)."""
        return (self.views or 1) if self.training else 1

    def code_parts(self, folder: Path) -> list[CodePart]:
        """Return the parts whose codes have files of their own in a codes folder: the paths of the split.

        If the folder has codes of exactly these records in one file, as earlier versions wrote them, the only part is
        the entire split, and the crops of cached views are determined by the indices of the records in the split.
        """
        stem = f"{self.name}-{self.dataset_type}"
        if (folder / f"{stem}.json").is_file():
            sha256 = records_sha256(self.records)
            if read_header(folder / f"{stem}.json").get("records_sha256") == sha256:
                self._set_parts([("the entire split", self.records)])
                return [CodePart(stem, "the entire split", self.size, sha256)]
        hashes = [records_sha256(records) for _, records in self._parts_by_path]
        return [
            CodePart(f"{stem}-{sha256[:HASH_LENGTH]}", path, len(records), sha256)
            for sha256, (path, records) in zip(hashes, self._parts_by_path, strict=True)
        ]

    def index_in_part(self, index: int) -> int:
        """Return the index of record ``index`` in its part of the split."""
        return index - self._part_starts[bisect_right(self._part_starts, index) - 1]

    def _image_fields(self, record: Record, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the image fields of record ``index``. Raises BadRecord if the record has no image or no codes."""
        options: dict[str, Any] = {}
        view = 0
        if self.training and self.views is not None:
            view = int(rng.integers(self.views))
            options["crop_rng"] = view_generator(self.index_in_part(index), view)
        if self.codes is None:
            return process_image(self.image_processor, record, rng, self.training, **options)
        codes = torch.from_numpy(self.codes.read(index, view))
        options["codebook_view"] = not self.training
        return {**process_image(self.image_processor, record, rng, self.training, **options), "image_codes": codes}

    def _related_records(self, index: int) -> list[range]:
        """Return the records of the same shard as record ``index``, and those of the shard half the dataset away.

        A shard with only one record is omitted, if it is the record's own. In a source without shards, the first range
        is the entire source.
        """
        starts = self._group_starts
        own, count = bisect_right(starts, index) - 1, len(starts) - 1
        groups = dict.fromkeys((own, (own + count // 2) % count))
        ranges = [range(starts[group], starts[group + 1]) for group in groups]
        return [records for records in ranges if records != range(index, index + 1)]

    def codebook_views(self, index: int) -> torch.Tensor:
        """Return one codebook input per view of record ``index``, (V, 3, h, w). Raises BadRecord if it has no image."""
        side = self.image_processor.decode_size if self.training else None
        image = decode_image(self.records.read(index), side, self.image_processor.max_pixels)
        local_index = self.index_in_part(index)
        generators = [view_generator(local_index, view) for view in range(self.num_cached_views)]
        return torch.stack(self.image_processor.codebook_views(image, generators, self.training))


def image_folder(config: RecordsConfig) -> Path | None:
    """Return the root folder of relative image paths in image lists; None: the folder that contains the list."""
    if config.image_dir is None:
        return None
    data = resolve_path(config.data_dir)
    return resolve_path(config.image_dir, data.parent if data.is_file() else data)


def build_shard_cache(name: str, config: RecordsConfig) -> FileCache:
    """Build the cache for the local copies of a dataset's remote shards."""
    return FileCache(default_cache_dir() / "shards" / name, config.cache_bytes, config.connections)
