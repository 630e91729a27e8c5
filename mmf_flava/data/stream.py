"""Base class of the streaming datasets, see ``stream_builder`` for their builders."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from zlib import crc32

import numpy as np
from mmf.common.registry import registry
from mmf.common.sample import Sample, SampleList
from mmf.datasets.base_dataset import BaseDataset
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from mmf_flava.config.dataset_base import BOTH
from mmf_flava.data.collate import collate
from mmf_flava.data.epochs import build_epoch_loader
from mmf_flava.data.global_generators import seeded_generators
from mmf_flava.data.look_ahead import later_samples
from mmf_flava.data.misfits import Form, replace_misfits
from mmf_flava.data.mixture import Mixture
from mmf_flava.data.order import Order, Unit, sample_generator
from mmf_flava.data.processor_calls import has_flava_interface
from mmf_flava.data.record import BadRecord, record_boundary
from mmf_flava.data.records import keep_lanes_open, read_ahead
from mmf_flava.data.run_quarantine import list_bad_records
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError

ADJACENT_TRIES = 16  # number of records next to a bad record that are tried before the offset grows
MAX_CONSECUTIVE_BAD = 100  # number of bad records in a row after which loading a sample fails


class StreamDataset(BaseDataset):
    """An endless stream of samples: ``dataset[n]`` is sample n; samples 0..len-1 are the first epoch.

    All randomness of a sample is derived from (seed, dataset, n), so a sample does not depend on the number of workers
    or on restarts. Training data are reshuffled every epoch. Other splits keep the file order, and every epoch is
    identical to the first.

    A bad record is replaced by the next valid record. The sample's field ``replaced`` lists each replaced record with
    the reason; ``Quarantine`` counts them. Evaluations leave bad records out instead, see ``EvaluationSamples``.

    Subclasses implement ``_sample(index, rng)`` and, if they have records with keys, set ``records``.

    Args:
        config: the dataset's config, an instance of its config class.
        units: the units in which the records of each path of the split are shuffled, if the config sets weights for the
            paths; otherwise, those of all records as the only list.
    """

    def __init__(
        self,
        name: str,
        config: Any,
        dataset_type: str,
        units: Sequence[Sequence[Unit]],
    ):
        super().__init__(name, OmegaConf.structured(config), dataset_type)
        self.training = dataset_type == "train"
        self.seed = _training_seed()
        self._parts = len(units)
        self.size = sum(unit.size for part in units for unit in part)
        self.max_bad_share: float | None = config.max_bad_share
        weights = config.splits.weights(dataset_type)
        self.order: Order | Mixture
        if weights is None:
            self.order = Order(self.size, self.seed, self.training, units[0])
        else:
            self.order = Mixture(units, weights, self.seed)
        self._stream = crc32(name.encode())
        self._forms: Counter[Form] = Counter()

    def __len__(self) -> int:
        return self.order.size

    def keep_open(self, lanes: int, processes: int = 1) -> None:
        """Prepare for reading from ``lanes`` lanes at the same time. ``MultitaskLoader`` calls it before workers start.

        Args:
            processes: number of processes on this machine that read from other lanes.

        Raises:
            UserError: the cache of remote shards is smaller than the shards that are read at the same time.
        """
        if (records := getattr(self, "records", None)) is not None:
            # in a mixture, a process may share a lane of each part with each of its neighbours
            keep_lanes_open(records, lanes + 2 * (self._parts - 1), processes, self.name)

    def __getitem__(self, n: int) -> Sample:
        """Return sample n. A bad record is replaced by the next valid record.

        Raises:
            UserError: too many consecutive records are bad.
            RuntimeError: ten consecutive records fail with an unexpected error, which is an error of the program.
        """
        first, number = self._locate(n)
        tries = min(MAX_CONSECUTIVE_BAD, self.size)
        replaced: list[dict[str, Any]] = []
        source = f"dataset {self.name} ({self.dataset_type})"
        errors = UnexpectedErrors(source, warn=None)
        if n > 0:  # a lost shard with an unexpected error in the middle of an epoch is no error of the program
            errors.add_good()
        for attempt in range(tries):
            index = (first + self._replacement_offset(attempt)) % self.size
            sample = self._try_record(index, number)
            if not isinstance(sample, BadRecord):
                return Sample({**sample, "record": index, "replaced": replaced})
            replaced.append(sample.entry())
            errors.add_bad(sample.failure)
        if all("failure" in entry for entry in replaced):
            errors.stop("all records failed with an unexpected error")
        raise UserError(
            f"{source}: {tries} consecutive records, starting at record {first}, are bad. Last error: "
            f"{replaced[-1]['message']}. Repair or rebuild the dataset."
        )

    def __getitems__(self, batch: Sequence[int]) -> list[Sample]:
        """Return the samples of a batch, and prepare for reading those that it lists as later; see ``Batch``."""
        self.read_ahead(later_samples(batch))
        return [self[n] for n in batch]

    def read_ahead(self, samples: Sequence[int]) -> None:
        """Prepare for reading the records of these samples soon; errors are ignored."""
        if samples and (records := getattr(self, "records", None)) is not None:
            read_ahead(records, [self.order.index(n) for n in samples])

    def read_sample(self, n: int) -> Sample:
        """Return sample n.

        Raises:
            BadRecord: its record is bad.
        """
        index, number = self._locate(n)
        sample = self._try_record(index, number)
        if isinstance(sample, BadRecord):
            raise sample
        return Sample({**sample, "record": index})

    def read_record(self, index: int) -> dict[str, Any]:
        """Return a sample of record ``index``.

        Raises:
            BadRecord: the record is bad.
        """
        sample = self._try_record(index, index)
        if isinstance(sample, BadRecord):
            raise sample
        return sample

    def _locate(self, n: int) -> tuple[int, int]:
        """Return the record of sample n, and the number that determines the sample's random generator."""
        n = int(n)
        if n < 0:
            raise IndexError(f"the sample index must be at least 0, got {n}")
        index = self.order.index(n)
        # In evaluation every epoch repeats epoch 0, so that each evaluation uses the same masks.
        return index, n if self.training else index

    def _try_record(self, index: int, number: int) -> dict[str, Any] | BadRecord:
        """Return the sample of a record or, if the record is bad, the error."""
        try:
            with record_boundary(lambda: self._key(index)), self._generators(number):
                return self._sample(index, sample_generator(self.seed, number, self._stream))
        except BadRecord as error:
            error.record = index
            return error

    def _generators(self, number: int) -> AbstractContextManager[None]:
        """Return a context manager that seeds the global generators, if a processor is not mmf_flava's."""
        processors = (getattr(self, name, None) for name in BOTH)
        if all(processor is None or has_flava_interface(processor) for processor in processors):
            return nullcontext()
        return seeded_generators(self.seed, number, self._stream)

    def _key(self, index: int) -> str:
        """Return the key of a record, or its number if it has no key or the key cannot be read."""
        try:
            return self.records.read(index, ()).key  # type: ignore[attr-defined]
        except Exception:
            return f"record {index}"

    def _replacement_offset(self, attempt: int) -> int:
        """Return the offset from a bad record to the record that replaces it in attempt number ``attempt``.

        The first attempts use the next records. Then the offset grows cubically, to skip a missing shard.
        """
        adjacent = attempt < ADJACENT_TRIES or self.size <= MAX_CONSECUTIVE_BAD
        return attempt if adjacent else attempt + (attempt - ADJACENT_TRIES) ** 3

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the sample of record ``index``. Raises BadRecord if the record is bad."""
        raise NotImplementedError

    def prepare_batch(self, batch: Any) -> Any:
        """List the bad records of a batch of one of MMF's trainers, and move the batch to the run's device."""
        list_bad_records(batch)
        return batch if self._device is None else super().prepare_batch(batch)

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> SampleList:
        """Collate samples into a batch; see ``collate.collate``. A sample that does not fit the others is replaced."""
        samples = replace_misfits(samples, self._forms)
        processor: Any = getattr(self, "text_processor", None)
        if not hasattr(processor, "special"):
            return collate(samples, self.dataset_name, self.dataset_type)
        pad_id, multiple = processor.special.pad, processor.pad_to_multiple
        return collate(samples, self.dataset_name, self.dataset_type, pad_id, multiple)

    def build_loader(self) -> DataLoader:
        """Build the data loader for MMF's own trainers, see ``epochs``."""
        return build_epoch_loader(self)


def _training_seed() -> int:
    """Return ``training.seed`` of MMF's current config, or 0 if it is not set (missing, null or -1)."""
    config = registry.get("config", default=None, no_warning=True)
    seed = (config.get("training") or {}).get("seed") if config is not None else None
    return int(seed) if seed is not None and int(seed) >= 0 else 0
