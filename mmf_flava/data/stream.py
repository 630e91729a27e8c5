"""What the three datasets share: the endless stream of samples, replacement of bad records, and their builder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from mmf.common.registry import registry
from mmf.common.sample import Sample, SampleList
from mmf.datasets.base_dataset import BaseDataset
from mmf.datasets.base_dataset_builder import BaseDatasetBuilder
from torch.utils.data import DataLoader

from mmf_flava.config.recipes import locate
from mmf_flava.data.collate import collate
from mmf_flava.data.epochs import epoch_loader
from mmf_flava.data.mixture import Mixture, Part, path_weights
from mmf_flava.data.order import Order, sample_generator
from mmf_flava.data.record import BadRecord
from mmf_flava.errors import UserError
from mmf_flava.files.download import is_remote

NEIGHBOURS = 16  # of a bad record, that are tried one by one
BAD_IN_A_ROW = 100  # bad records one after another before we say that the data are broken


class StreamDataset(BaseDataset):
    """``dataset[n]`` is the n-th sample of an endless stream; 0..len-1 is its first epoch.

    Everything random about a sample comes from (seed, dataset, n), so it is the same for any number of workers and
    after any restart. Training data are shuffled anew every epoch; others keep the order of the file, and epoch 1
    repeats epoch 0 to the bit.

    A bad record is replaced by the next good one; ``replaced`` of a sample says which and why, for ``Quarantine``.

    Subclasses give ``_sample(record number, rng)``.

    Args:
        size: number of records.
        block_size: how many neighbouring records a block of the shuffle has.
        parts: of each path that the YAML lists for this split its size and block size; read where paths have weights.
    """

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        dataset_type: str,
        size: int,
        block_size: int,
        parts: Sequence[Part] = (),
    ):
        super().__init__(name, config, dataset_type)
        self.training = dataset_type == "train"
        self.seed = _training_seed()
        self.size = size
        self.max_bad_share = self._share(config.get("max_bad_share", 0.01))
        weights = path_weights(config, name, dataset_type)
        self.order: Order | Mixture
        if weights is None:
            self.order = Order(size, self.seed, shuffle=self.training, block_size=block_size)
        else:
            self.order = Mixture(parts, weights, self.seed)
        self._stream = crc32(name.encode())

    def _share(self, share: Any) -> float | None:
        if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
            raise UserError(f"dataset_config.{self.name}.max_bad_share is {share!r}; it is a share in [0, 1], or null.")
        return share

    def __len__(self) -> int:
        return self.order.size

    def __getitem__(self, n: int) -> Sample:
        n = int(n)
        if n < 0:
            raise IndexError(f"sample {n}: the stream starts at 0")
        first = self.order.index(n)
        # Outside training epoch 1 is epoch 0 again: the same masks at every evaluation.
        number = n if self.training else first
        tries = min(BAD_IN_A_ROW, self.size)
        replaced: list[dict[str, Any]] = []
        for attempt in range(tries):
            index = (first + self._stride(attempt)) % self.size
            try:
                sample = self._sample(index, sample_generator(self.seed, number, self._stream))
                return Sample({**sample, "replaced": replaced})
            except BadRecord as error:
                name = error.key or f"record {index}"
                replaced.append(
                    {"sample_id": name, "record": index, "reason": error.reason.value, "message": str(error)}
                )
        raise UserError(
            f"dataset {self.name} ({self.dataset_type}): {tries} records in a row, from number {first} on, "
            f"cannot be used; the last one: {replaced[-1]['message']}. Build these data again."
        )

    def _stride(self, attempt: int) -> int:
        """How far from a bad record to look: at its neighbours, then ever farther, out of a shard that is lost."""
        near = attempt < NEIGHBOURS or self.size <= BAD_IN_A_ROW
        return attempt if near else attempt + (attempt - NEIGHBOURS) ** 3

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """The sample made of record ``index``; raises BadRecord when that record cannot be used."""
        raise NotImplementedError

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> SampleList:
        """A batch of samples; see ``collate.collate``."""
        processor = getattr(self, "text_processor", None)
        if processor is None:
            return collate(samples, self.dataset_name, self.dataset_type)
        pad_id, multiple = processor.special.pad, processor.pad_to_multiple
        return collate(samples, self.dataset_name, self.dataset_type, pad_id, multiple)

    def init_processors(self) -> None:
        """Builds the processors named in the YAML; UserError when one that this dataset needs is missing."""
        super().init_processors()
        for needed in self.NEEDS:
            if not hasattr(self, needed):
                raise UserError(
                    f"dataset_config.{self.name}.processors has no {needed}; {self.name} needs {', '.join(self.NEEDS)}."
                )

    NEEDS: tuple[str, ...] = ()


def _training_seed() -> int:
    """``training.seed`` of the running configuration; 0 when there is none (-1 and null mean "no seed" in MMF)."""
    config = registry.get("config", default=None, no_warning=True)
    seed = (config.get("training") or {}).get("seed") if config is not None else None
    return int(seed) if seed is not None and int(seed) >= 0 else 0


class StreamBuilder(BaseDatasetBuilder):
    """Loads a dataset from the paths in its YAML section; ``build: demo`` makes the demo's data where they lack.

    Keys that all three datasets share: ``data_dir``; ``splits`` {train, val, test: lists of paths below data_dir},
    where ``train`` may also be a mapping of paths to weights (see ``mixture``); ``processors``; ``shuffle_block``
    (records a block of the shuffle); ``max_bad_share`` (of training samples that bad records may cost, 0.01; null:
    any); ``build`` (null or demo).
    """

    NAME = ""

    def __init__(self) -> None:
        super().__init__(self.NAME)

    @classmethod
    def config_path(cls) -> str | None:
        """Absolute path of this dataset's default YAML."""
        return locate(f"projects/flava/configs/datasets/{cls.NAME}.yaml")

    def build(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> None:
        """Makes the data if the YAML asks for it. MMF calls this on the first process only; a second call is free."""
        recipe = config.get("build")
        if recipe is None:
            return
        if recipe != "demo":
            raise UserError(f"dataset_config.{self.NAME}.build is {recipe!r}; it can be null or demo.")
        listed = [path for split in ("train", "val", "test") for path in self.paths(config, split)]
        if all(isinstance(path, str) or path.exists() for path in listed):
            return
        from mmf_flava.data.prepare.demo import build_demo, read_manifest

        if read_manifest(config.data_dir) is None:  # data that are there but do not fit are for ``load`` to name
            build_demo(config.data_dir)

    def load(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> StreamDataset | None:
        """The dataset of one split; None for a val or test split that the YAML does not list.

        Raises:
            UserError: the train split is not listed, listed data are not there, or a weight is none.
        """
        paths = self.paths(config, dataset_type)
        path_weights(config, self.NAME, dataset_type)  # refuses wrong ones before anything is opened
        if not paths:
            if dataset_type == "train":
                raise UserError(
                    f"dataset_config.{self.NAME}.splits.train lists no data: name the folders or shards below "
                    f"{config.data_dir}, or take {self.NAME} out of datasets."
                )
            return None
        try:
            return self.open(config, dataset_type, paths)
        except UserError as error:
            command = f"python -m mmf_flava.data.prepare demo --out {config.data_dir}"
            hint = f"`{command}` makes the demo's data" if config.get("build") == "demo" else "correct the path"
            raise UserError(f"dataset_config.{self.NAME}.splits.{dataset_type}: {error} To mend it, {hint}.") from error

    def open(self, config: Any, dataset_type: str, paths: list[str | Path]) -> StreamDataset:
        """The dataset over paths that the YAML lists for a split."""
        raise NotImplementedError

    def build_dataloader(
        self, dataset_instance: StreamDataset | None, dataset_type: str, *args: Any, **kwargs: Any
    ) -> DataLoader:
        """A split's loader for MMF's own trainers; the main branch of MMF asks for it, see ``epochs``.

        Raises:
            UserError: the YAML does not list the split.
        """
        if dataset_instance is None:
            raise UserError(
                f"dataset_config.{self.NAME}.splits.{dataset_type} lists no data, but this run asks for them: "
                f"name the folders or shards below data_dir."
            )
        return epoch_loader(dataset_instance)

    def update_registry_for_model(self, config: Any) -> None:
        """MMF asks every builder; FLAVA's models need nothing from the data's side."""

    @staticmethod
    def paths(config: Any, dataset_type: str) -> list[str | Path]:
        """The paths listed for a split, below data_dir unless absolute; addresses as they are."""
        listed = (config.get("splits") or {}).get(dataset_type) or []
        root = Path(config.data_dir).expanduser()
        return [path if is_remote(path) else root / path for path in ([listed] if isinstance(listed, str) else listed)]
