"""Small datasets in the loader of MMF's main branch."""

from mmf.common.registry import registry
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset, IterableDataset


class Numbers(Dataset):
    dataset_type = "train"

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index


class Stream(IterableDataset):
    dataset_type = "train"

    def __iter__(self):
        return iter([0] * 4)


def loader(strategy, **datasets):
    """Return a loader with batches of two; ``loader("round_robin", a=3, b=Stream())`` has three samples in ``a``."""
    from mmf.datasets.multi_dataset_loader import MultiDataLoader

    loaders = {
        name: DataLoader(Numbers(size) if isinstance(size, int) else size, batch_size=2, collate_fn=lambda _: {})
        for name, size in datasets.items()
    }
    params = {"sampling_ratios": dict.fromkeys(datasets, 1.0)} if strategy == "ratios" else {}
    strategy_class = registry.get_iteration_strategy_class(strategy)
    return MultiDataLoader(loaders, strategy_class(OmegaConf.create(params), loaders))
