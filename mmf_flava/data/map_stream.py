"""Map-style datasets, of MMF or of users, as endless streams of samples."""

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import torch
from mmf.common.batch_collator import BatchCollator
from mmf.common.sample import SampleList
from torch.utils.data import Dataset, IterableDataset

from mmf_flava.data.entry_problems import is_caused_by_entry
from mmf_flava.data.global_generators import seeded_generators
from mmf_flava.data.mmf_entries import GoodEntries
from mmf_flava.data.order import Order
from mmf_flava.data.run_quarantine import max_bad_share
from mmf_flava.data.stream import StreamDataset
from mmf_flava.errors import UserError


class MapStream(Dataset):
    """An endless stream of the samples of a map-style dataset, with the interface of ``StreamDataset``.

    Sample n is ``dataset[order.index(n)]``. Python's, numpy's and torch's global generators are seeded from (seed,
    dataset, n) while it is read, so a sample does not depend on the number of workers or on restarts. In evaluation,
    they are seeded from the index, and every epoch is the same.

    Args:
        dataset: the dataset. Its other attributes and methods are also attributes of the stream.
        name: name of the dataset in the config; used if the dataset itself has no name.
        split: train, val or test.
        seed: the run's seed, >= 0.
    """

    def __init__(self, dataset: Any, name: str, split: str, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.dataset_name: str = getattr(dataset, "dataset_name", name)
        self.dataset_type, self.training = split, split == "train"
        self.size = len(dataset)
        self.order = Order(self.size, seed, self.training)
        self.max_bad_share = max_bad_share(name)
        self._stream = crc32(name.encode())

    @classmethod
    def of(cls, dataset: Any, name: str, split: str, seed: int) -> Any:
        """Return the stream of a dataset. A ``StreamDataset`` is returned unchanged; None if there are no samples.

        Raises:
            UserError: the dataset cannot be read by index.
        """
        if dataset is None or isinstance(dataset, StreamDataset):
            return dataset
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        ):
            raise UserError(
                f"datasets: '{name}' is an iterable dataset, whose samples cannot be read by index. Define __getitem__ "
                "and __len__, or set training.trainer to mmf, the trainer of MMF's main branch."
            )
        if not len(dataset):
            return None
        entries = GoodEntries.of(dataset)
        return (EntryStream if isinstance(entries, GoodEntries) else cls)(entries, name, split, seed)

    def __len__(self) -> int:
        return self.order.size

    def __getattr__(self, name: str) -> Any:
        if "dataset" not in self.__dict__:  # while the stream is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, n: int) -> Any:
        """Return sample n.

        Raises:
            RuntimeError: the dataset raised an exception; the message contains the dataset's name and the index.
        """
        return self._read(n, self._read_index)

    def collate(self, samples: Sequence[Any]) -> Any:
        """Collate samples into a batch as MMF does, or as the data loader of the dataset's builder does."""
        own = getattr(self.dataset, "loader_collate", None)
        if own is None:
            return BatchCollator(self.dataset_name, self.dataset_type)(list(samples))
        collated = own(list(samples))
        batch = collated if isinstance(collated, SampleList) else SampleList(collated)
        batch.dataset_name, batch.dataset_type = self.dataset_name, self.dataset_type
        return batch

    def _read(self, n: int, read: Callable[[int], Any]) -> Any:
        """Call ``read`` with the index of sample n, with seeded generators."""
        if n < 0:
            raise IndexError(f"the sample index must be at least 0, got {n}")
        index = self.order.index(n)
        with seeded_generators(self.seed, int(n) if self.training else index, self._stream):
            return read(index)

    def _read_index(self, index: int) -> Any:
        source = f"dataset {self.dataset_name} ({self.dataset_type})"
        try:
            if (sample := self.dataset[index]) is None:
                raise UserError(f"{source}: sample {index} is None. Return a Sample or a dict of its fields.")
            return sample
        except Exception as error:
            if not is_caused_by_entry(error):
                raise
            raise RuntimeError(f"{source}: sample {index} cannot be read ({type(error).__name__}: {error})") from error


class EntryStream(MapStream):
    """Stream of one of MMF's datasets. A bad entry is replaced by the next good entry, or left out of evaluations."""

    def read_sample(self, n: int) -> Any:
        """Return sample n.

        Raises:
            BadRecord: its entry is bad.
        """
        return self._read(n, self.dataset.read_entry)

    def _read_index(self, index: int) -> Any:
        return self.dataset[index]


def prepare_batch(dataset: Any, batch: Any, device: torch.device) -> Any:
    """Return a batch as its dataset's ``prepare_batch(batch)`` prepares it for the model, on ``device``.

    MMF's datasets move the batch to the device that MMF has registered. Users may override the method.
    """
    prepare = getattr(dataset, "prepare_batch", None)
    prepared = batch if prepare is None else prepare(batch)
    return prepared.to(device) if hasattr(prepared, "to") else prepared
