"""Work of an evaluation, dealt to the processes in rounds, so that no process waits while another one evaluates."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mmf_flava.data.evaluation_samples import count_samples
from mmf_flava.data.sampling import build_evaluation_loader
from mmf_flava.processes import rank, world_size

T = TypeVar("T")


class EvaluationStopped(Exception):
    """Raised on all processes in the same round if any of them received a stop signal."""


@dataclass
class Rounds:
    """Deals items, e.g. batches, to the processes round robin. The items do not depend on the number of processes.

    Args:
        batch_size: samples per forward pass.
        num_workers: number of data loader workers.
        collective: whether a forward pass needs all processes, because the weights are sharded. All processes then run
            equally many: a process without an item in a round gets an item of another process, whose result it
            discards.
        on_batch: called with each batch of this process before the forward pass.

    Attributes:
        stopped: asked by all processes together at the start of each round whether to stop; None: never.
    """

    batch_size: int
    num_workers: int = 0
    collective: bool = False
    on_batch: Callable[[Any], None] = field(default=lambda batch: None)
    stopped: Callable[[], bool] | None = field(default=None, init=False)
    _first_batches: dict[int, Any] = field(default_factory=dict, init=False)

    def deal(self, items: Sequence[T]) -> Iterator[tuple[T | None, bool]]:
        """Yield the item of this process in each round, and whether its result counts. All processes must iterate.

        The item is None in a round in which this process has nothing to do.

        Raises:
            EvaluationStopped: a process received a stop signal.
        """
        own = self.own(items)
        for number, start in enumerate(range(0, len(items), world_size())):
            if self.stopped is not None and self.stopped():
                raise EvaluationStopped
            yield (own[number] if number < len(own) else None), start + rank() < len(items)

    def own(self, items: Sequence[T]) -> list[T]:
        """Return the items that ``deal`` yields on this process, without None."""
        own = list(items[rank() :: world_size()])
        rounds = -(-len(items) // world_size())
        return [*own, items[-1]] if self.collective and len(own) < rounds else own

    def spans(self, size: int, length: int | None = None) -> list[range]:
        """Divide ``size`` samples into ranges of ``length`` samples, by default of one batch each."""
        length = length or self.batch_size
        return [range(start, min(start + length, size)) for start in range(0, size, length)]

    def load(self, dataset: Any, spans: Sequence[range]) -> Iterator[Any]:
        """Return an iterator over the batches of ranges of samples. A batch lies within one range."""
        return iter(build_evaluation_loader(dataset, self.batch_size, self.num_workers, spans) if spans else ())

    def with_samples(self, dataset: Any, batch: Any) -> Any | None:
        """Return the batch to run the forward pass on; None if none is needed.

        A batch without good samples is replaced by the dataset's first good batch if all processes must take part.
        """
        if count_samples(batch):
            return batch
        return self.first_batch(dataset) if self.collective else None

    def first_batch(self, dataset: Any) -> Any | None:
        """Return the first batch of a dataset that has good samples; None if there is none."""
        if id(dataset) not in self._first_batches:
            loader = build_evaluation_loader(dataset, self.batch_size)
            self._first_batches[id(dataset)] = next((batch for batch in loader if count_samples(batch)), None)
        return self._first_batches[id(dataset)]
