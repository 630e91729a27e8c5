"""How MMF's main branch draws batches from several datasets, and how many it says there are."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure, source_has


@cure(
    "mmf.datasets.iteration_strategies",
    when="after",
    what="the ratios strategy gives each dataset the ratio of its own name",
    why="it asks for the recipe's datasets only where the recipe has none, and else takes the ratios in the order "
    "in which they are written: the wrong dataset is drawn, and nobody is told",
    since="MMF's main branch of 2021",
    until="RatiosIterationStrategy goes by the order of its dataloaders",
    needed=source_has('"datasets" not in config', "RatiosIterationStrategy._get_given_datasets"),
)
def ratios(module: ModuleType) -> None:
    # what it draws is an index into these
    module.RatiosIterationStrategy._get_given_datasets = lambda self: list(self.dataloaders)


def _has_loader(module: ModuleType) -> bool:
    return hasattr(module, "MultiDataLoader")


def _is_constant(module: ModuleType, loader: Any) -> bool:
    return isinstance(loader.iteration_strategy, module.iteration_strategies.ConstantIterationStrategy)


@cure(
    "mmf.datasets.multi_dataset_loader",
    when="after",
    what="a pass over one of several datasets (multitasking.enabled=false) ends with it",
    why="the constant strategy is asked for another dataset once its own is exhausted, and has none: training hangs",
    since="MMF's main branch of 2021",
    until="MultiDataLoader.change_dataloader knows that a constant choice cannot change",
    needed=_has_loader,
)
def constant_pass(module: ModuleType) -> None:
    change = module.MultiDataLoader.change_dataloader

    def change_dataloader(self: Any) -> None:
        if self._finished_iterators and _is_constant(module, self):
            raise StopIteration  # __next__ hands it on
        change(self)

    module.MultiDataLoader.change_dataloader = change_dataloader


@cure(
    "mmf.datasets.multi_dataset_loader",
    when="after",
    what="a pass over three or more datasets ends when all of them are exhausted",
    why="where the dataset drawn in place of an exhausted one turns out to be exhausted too, MMF ends the pass, and "
    "what the others still have is not seen",
    since="MMF's main branch of 2021",
    until="MultiDataLoader.__next__ goes on until it finds a batch",
    needed=_has_loader,
)
def whole_pass(module: ModuleType) -> None:
    advance = module.MultiDataLoader.__next__

    def __next__(self: Any) -> Any:
        while True:
            try:
                return advance(self)
            except StopIteration:
                ends = len(self._finished_iterators) == self.num_datasets or _is_constant(module, self)
                # an endless strategy comes here with an empty dataset only
                if ends or not self.iteration_strategy.should_exhaust_all_iterators:
                    raise

    module.MultiDataLoader.__next__ = __next__


@cure(
    "mmf.datasets.multi_dataset_loader",
    when="after",
    what="the length of several datasets is the number of batches that they yield",
    why="MMF divides the sum of their samples by training.batch_size: the smaller last batches of the datasets are not "
    "counted one by one, nor a dataset's own batch_size, so that max_epochs ends amid an epoch",
    since="MMF's main branch of 2021",
    until="MultiDataLoader.__len__ adds the lengths of its loaders",
    needed=lambda module: _has_loader(module) and "_total_length" in inspect.getsource(module.MultiDataLoader.__len__),
)
def whole_length(module: ModuleType) -> None:
    length = module.MultiDataLoader.__len__

    def __len__(self: Any) -> int:
        loaders = list(self.loaders.values())
        if _is_constant(module, self) and len(loaders) > 1:
            loaders = [loaders[self.iteration_strategy()]]
        try:
            return sum(len(loader) for loader in loaders)
        except (TypeError, NotImplementedError):
            # a stream has no length; MMF counts none of it, and its Lightning loader answers nan: none
            return length(self)  # type: ignore[no-any-return]

    module.MultiDataLoader.__len__ = __len__
