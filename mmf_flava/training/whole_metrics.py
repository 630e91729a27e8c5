"""MMF's metrics over the samples of all processes.

Shapes: n samples of a process's share · W processes · N samples of the split.
"""

from collections.abc import Mapping
from typing import Any

from mmf.modules.metrics import Metrics
from mmf.utils.distributed import gather_tensor, get_world_size
from torch import Tensor


class Fields(dict[str, Any]):
    """A mapping whose items are attributes too, as a metric expects them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class WholeMetrics(Metrics):
    """Each process computes a metric of everything, so that MMF's mean over the processes is that figure.

    MMF itself takes the mean of the shares' figures, which for AUROC, F1 and correlations is another number.

    Args:
        metrics: ``evaluation.metrics`` of the recipe.
        sizes: samples of each split. MMF deals a split out to the processes like cards, and repeats the first samples
            where it does not come out even; these are left out again.
    """

    def __init__(self, metrics: Any, sizes: Mapping[str, int]) -> None:
        super().__init__(metrics)
        self.sizes = sizes

    def __call__(self, sample_list: Any, model_output: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """As MMF's, which hands in one report as both; every process must call it."""
        if get_world_size() > 1:
            size = self.sizes.get(sample_list.dataset_type)
            # a set, whose order differs from process to process
            given = {name: sample_list[name] for name in sorted(self.required_params)}
            sample_list = model_output = Fields(
                {name: _gather(value, size) if isinstance(value, Tensor) else value for name, value in given.items()}
            )
        return super().__call__(sample_list, model_output, *args, **kwargs)


def _gather(share: Tensor, size: int | None) -> Tensor:
    """(n, ...) of each process -> (N, ...) in the order in which they were dealt out."""
    return gather_tensor(share.contiguous()).transpose(0, 1).flatten(0, 1)[:size]
