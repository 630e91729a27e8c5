"""Patches of multitask training on MMF's main branch: sampling ratios, and the end and length of epochs."""

import inspect
from typing import Any

from mmf_flava.compat.patch import patch, source_contains, wrap


@patch(
    "mmf.datasets.iteration_strategies",
    what="the ratios strategy assigns each ratio to the dataset of that name",
    why="MMF assigns the ratios to the datasets in the order in which the ratios are written: the wrong datasets are "
    "sampled without a warning",
    since="MMF's main branch of 2021",
    until="RatiosIterationStrategy uses the order of its dataloaders",
    needed=source_contains('"datasets" not in config', "RatiosIterationStrategy._get_given_datasets"),
)
def ratios(module: Any) -> None:
    # the strategy returns an index into this list
    module.RatiosIterationStrategy._get_given_datasets = lambda self: list(self.dataloaders)


def _has_loader(module: Any) -> bool:
    return hasattr(module, "MultiDataLoader")


def _is_constant(module: Any, loader: Any) -> bool:
    return isinstance(loader.iteration_strategy, module.iteration_strategies.ConstantIterationStrategy)


@patch(
    "mmf.datasets.multi_dataset_loader",
    what="if multitasking.enabled is false, an epoch ends when the only dataset in use is exhausted",
    why="MMF then requests another dataset from the constant strategy, which always returns the same dataset: training "
    "hangs",
    since="MMF's main branch of 2021",
    until="MultiDataLoader.change_dataloader handles the constant strategy",
    needed=_has_loader,
)
def constant_pass(module: Any) -> None:
    @wrap(module.MultiDataLoader, "change_dataloader")
    def change_dataloader(original: Any, self: Any) -> None:
        if self._finished_iterators and _is_constant(module, self):
            raise StopIteration  # __next__ propagates it
        original(self)


@patch(
    "mmf.datasets.multi_dataset_loader",
    what="an epoch of three or more datasets ends when all of them are exhausted",
    why="MMF replaces an exhausted dataset by another dataset; if this is exhausted too, MMF ends the epoch and "
    "drops the remaining samples of the other datasets",
    since="MMF's main branch of 2021",
    until="MultiDataLoader.__next__ continues until it finds a batch",
    needed=_has_loader,
)
def whole_pass(module: Any) -> None:
    @wrap(module.MultiDataLoader, "__next__")
    def __next__(original: Any, self: Any) -> Any:
        while True:
            try:
                return original(self)
            except StopIteration:
                ends = len(self._finished_iterators) == self.num_datasets or _is_constant(module, self)
                # with a strategy without epochs, only an empty dataset raises StopIteration
                if ends or not self.iteration_strategy.should_exhaust_all_iterators:
                    raise


@patch(
    "mmf.datasets.multi_dataset_loader",
    what="the length of MultiDataLoader is the number of batches that it yields",
    why="MMF divides the number of all samples by training.batch_size, which ignores the smaller last batch and the "
    "batch_size of each dataset: with max_epochs, training ends within an epoch",
    since="MMF's main branch of 2021",
    until="MultiDataLoader.__len__ adds the lengths of its loaders",
    needed=lambda module: _has_loader(module) and "_total_length" in inspect.getsource(module.MultiDataLoader.__len__),
)
def whole_length(module: Any) -> None:
    @wrap(module.MultiDataLoader, "__len__")
    def __len__(original: Any, self: Any) -> int:
        loaders = list(self.loaders.values())
        if _is_constant(module, self) and len(loaders) > 1:
            loaders = [loaders[self.iteration_strategy()]]
        try:
            return sum(len(loader) for loader in loaders)
        except (TypeError, NotImplementedError):
            # an iterable dataset has no length: MMF counts 0 samples, and MMF's Lightning loader returns nan
            return original(self)  # type: ignore[no-any-return]
