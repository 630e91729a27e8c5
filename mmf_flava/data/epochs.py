"""A split as loops of MMF's walk through it: epoch by epoch, each a pass over torch's loader."""

from collections.abc import Iterator
from math import ceil
from typing import Any

from mmf.common.registry import registry
from mmf.utils.general import get_batch_size
from torch.utils.data import DataLoader

from mmf_flava.data.sampling import batch_loader
from mmf_flava.ranks import rank, world_size


class Epochs:
    """Lists of stream positions for one process; every iteration is an epoch, and goes on where the last one ended.

    Epoch e is [e * size, (e + 1) * size), dealt out position by position; a few more follow where the processes would
    not get equally many. Outside training all epochs are the same, so that these are the split's first samples, as in
    torch's DistributedSampler.

    A resumed run begins with the first epoch of which the run before it cannot have seen anything, whatever the share
    of the batches that were this dataset's.

    Args:
        size: positions an epoch.
        batch_size: of this process.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.size, self.batch_size, self.rank, self.world_size = size, batch_size, rank, world_size
        self.epoch: int | None = None

    def __len__(self) -> int:
        return ceil(ceil(self.size / self.world_size) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        if self.epoch is None:
            seen = registry.get("current_iteration", 0, no_warning=True) * self.batch_size * self.world_size
            self.epoch = ceil(seen / self.size)
        start, share = self.epoch * self.size, ceil(self.size / self.world_size)
        self.epoch += 1
        own = range(start + self.rank, start + share * self.world_size, self.world_size)
        for first in range(0, share, self.batch_size):
            yield list(own[first : first + self.batch_size])


def epoch_loader(dataset: Any) -> DataLoader:
    """The loader of a split by the running configuration's ``training`` section, dealt out to all processes."""
    training = registry.get("config").training
    if dataset.dataset_type == "train":
        # an earlier run of this process may have left its own; MMF resumes a run when the loaders are there
        registry.register("current_iteration", 0)
    return batch_loader(
        dataset,
        Epochs(len(dataset), get_batch_size(), rank(), world_size()),
        training.num_workers,
        dataset.seed,
        training.pin_memory,
        # loaders of other splits are built anew for every evaluation
        persistent=dataset.dataset_type == "train" and training.get("persistent_workers", False),
    )
