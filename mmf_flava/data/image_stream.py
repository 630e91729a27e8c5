"""What the two datasets with images share: their records, the crops, and codes that may be cached.

Shapes: V views of a record · h, w pixels of the codebook's view · P patches.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmf.common.registry import registry

from mmf_flava.config.schema import positive
from mmf_flava.data import pictures
from mmf_flava.data.codes import OPENED, CodeFile, codes_folder, view_generator
from mmf_flava.data.mixture import Part, path_weights
from mmf_flava.data.record import Record, Records
from mmf_flava.data.records import joined, open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.stream import StreamDataset
from mmf_flava.errors import UserError
from mmf_flava.files.cache import FileCache
from mmf_flava.files.download import default_cache


class ImageStreamDataset(StreamDataset):
    """A stream of records with images, whose codes may be cached.

    Keys of the YAML: ``image_dir`` (folder of the images that lists name, below data_dir unless absolute; null: each
    list's own folder); ``views`` (null: every training sample has a crop of its own; N: one of N fixed crops of its
    record, which the sample draws); ``codes`` (null, or what ``mmf_flava.cache_codes`` wrote: a path, or a name below
    data_dir/codes). With codes a training sample brings ``image_codes`` (P,) instead of ``image_for_codebook``;
    ``cache_bytes`` (of copies of remote shards, null: any).

    Training needs its codes. Another split takes them where they are, and keeps ``image_for_codebook`` to draw
    examples from; where they are not, a codebook has to run.
    """

    def __init__(self, name: str, config: Mapping[str, Any], dataset_type: str, paths: Sequence[str | Path]):
        images = config.get("image_dir")
        folder = None if images is None else Path(config["data_dir"]).expanduser() / Path(images).expanduser()
        cache = shard_cache(name, config)
        parts = []
        if path_weights(config, name, dataset_type) is None:
            self.records = open_records(paths, cache, folder)
        else:
            readers = [open_records(path, cache, folder) for path in paths]
            self.records = joined(readers)
            parts = [Part(len(reader), _block_size(reader, config)) for reader in readers]
        block = _block_size(self.records, config)
        super().__init__(name, config, dataset_type, len(self.records), block, parts)
        views = config.get("views")
        self.views = None if views is None else positive(views, f"dataset_config.{name}.views")
        self.codes: CodeFile | None = None

    def init_processors(self) -> None:
        """Builds the processors and opens the codes; UserError when these are of other data, boxes or sizes."""
        super().init_processors()
        self._open_codes()
        header = None if self.codes is None else self.codes.header
        opened = registry.get(OPENED, default={}, no_warning=True)
        registry.register(OPENED, {**opened, f"{self.name} {self.dataset_type}": header})

    def _open_codes(self) -> None:
        codes = self.config.get("codes")
        if codes is None:
            return
        folder, stem = codes_folder(str(codes), self.config.data_dir), self.codes_stem
        if not (self.training or (folder / f"{stem}.json").is_file()):
            return
        expected = {
            "records": len(self.records),
            "records_sha256": records_sha256(self.records),
            "patches": self.image_processor.grid[0] * self.image_processor.grid[1],
            "geometry": self.image_processor.codebook_geometry(self.training),
        }
        if self.training and self.views is not None:
            expected["views"] = self.views
        try:
            self.codes = CodeFile(folder, stem, expected)
        except UserError as error:
            raise UserError(
                f"dataset_config.{self.name}.codes: {error} `python -m mmf_flava.cache_codes RECIPE --dataset "
                f"{self.name} --split {self.dataset_type} --name {codes}` makes them."
            ) from None
        if self.training:
            self.views = self.codes.views

    def fingerprint(self) -> str:
        """A hash by which what was made of these records is known again."""
        return records_sha256(self.records)

    @property
    def cached_views(self) -> int:
        """How many boxes of a record codes are made of; outside training there is one, the whole picture."""
        return (self.views or 1) if self.training else 1

    @property
    def codes_stem(self) -> str:
        return f"{self.name}-{self.dataset_type}"

    def _image(self, record: Record, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """The fields of record ``index`` that its image makes; BadRecord when it has none, or no codes."""
        picture = pictures.decode(record, self.image_processor.decode_size)
        item = {"image": picture, "rng": rng, "train": self.training}
        view = 0
        if self.training and self.views is not None:
            view = int(rng.integers(self.views))
            item["crop_rng"] = view_generator(index, view)
        if self.codes is None:
            return self.image_processor(item)
        codes = torch.from_numpy(self.codes.read(index, view))
        return {**self.image_processor({**item, "codebook_view": not self.training}), "image_codes": codes}

    def _near(self, index: int) -> range:
        """The records that cost little to read beside record ``index``: all, but of remote ones those of its block."""
        if not getattr(self.records, "remote", False):
            return range(self.size)
        block = int(self.config.get("shuffle_block", 1024))
        first = index // block * block
        return range(first, min(first + block, self.size))

    def codebook_views(self, index: int) -> torch.Tensor:
        """(V, 3, h, w): what the codebook is to see of record ``index``; BadRecord when it has no image."""
        picture = pictures.decode(self.records.read(index), self.image_processor.decode_size)
        generators = [view_generator(index, view) for view in range(self.cached_views)]
        return torch.stack(self.image_processor.codebook_views(picture, generators, self.training))


def shard_cache(name: str, config: Mapping[str, Any]) -> FileCache:
    """Where the copies of a dataset's remote shards stay."""
    limit = config.get("cache_bytes")
    if limit is not None:
        limit = positive(limit, f"dataset_config.{name}.cache_bytes")
    return FileCache(default_cache() / "shards" / name, limit)


def _block_size(records: Records, config: Mapping[str, Any]) -> int:
    """Images of a folder are sorted by class and cost the same in any order: they are shuffled as one block."""
    return config.get("shuffle_block", 1024) if records.sequential else len(records)
