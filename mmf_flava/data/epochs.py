"""Batch sampler and data loader for MMF's own trainers, which iterate over a split one epoch at a time."""

from collections.abc import Iterator
from math import ceil
from typing import Any

from mmf.common.registry import registry
from mmf.utils.general import get_batch_size
from torch.utils.data import DataLoader

from mmf_flava.data.order import LANES
from mmf_flava.data.sampling import build_batch_loader
from mmf_flava.processes import processes_on_this_machine, rank, world_size


class EpochSampler:
    """Batch sampler of one process. Each iterator yields the batches of the next epoch.

    Epoch e consists of the samples e * size to (e + 1) * size - 1 of the dataset, which is an endless stream. The
    samples are interleaved across processes. If ``size`` is not a multiple of ``world_size``, the epoch also contains
    the next few samples of the stream, so that all processes get equally many samples. In evaluation, every epoch
    contains the samples of the split in the same order, so the additional samples are the first samples of the split,
    as in torch's DistributedSampler.

    A resumed run starts with an epoch that the previous run has not started. In multitask training, the number of
    batches of each dataset is unknown, so all earlier batches are counted as batches of this dataset.

    Args:
        size: number of samples per epoch.
        batch_size: batch size per process.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.size, self.batch_size, self.rank, self.world_size = size, batch_size, rank, world_size
        self.epoch: int | None = None

    def __len__(self) -> int:
        return ceil(ceil(self.size / self.world_size) / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the iterators count the epochs. MMF 1.0.0rc10 calls this method in distributed training."""

    def __iter__(self) -> Iterator[list[int]]:
        if self.epoch is None:
            seen = registry.get("current_iteration", 0, no_warning=True) * self.batch_size * self.world_size
            self.epoch = ceil(seen / self.size)
        start, count = self.epoch * self.size, ceil(self.size / self.world_size)
        self.epoch += 1
        positions = range(start + self.rank, start + count * self.world_size, self.world_size)
        for first in range(0, count, self.batch_size):
            yield list(positions[first : first + self.batch_size])


def build_epoch_loader(dataset: Any) -> DataLoader:
    """Build this process's data loader of a split with the options in the section ``training`` of MMF's config."""
    training = registry.get("config").training
    if dataset.dataset_type == "train":
        # Reset the iteration of an earlier run in this process. On resume, MMF sets it after the loaders are built.
        registry.register("current_iteration", 0)
        lanes = dataset.order.lanes = training.get("lanes", LANES)
        # interleaved samples are from all lanes, unless the number of processes divides the number of lanes
        shared = lanes % world_size() == 0
        dataset.keep_open(lanes // world_size() if shared else lanes, processes_on_this_machine(world_size()))
    return build_batch_loader(
        dataset,
        EpochSampler(len(dataset), get_batch_size(), rank(), world_size()),
        training.num_workers,
        dataset.seed,
        training.pin_memory,
        # The loaders of other splits are rebuilt for every evaluation.
        persistent=dataset.dataset_type == "train" and training.get("persistent_workers", False),
    )
