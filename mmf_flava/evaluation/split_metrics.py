"""MMF's metrics of a whole split, where several processes have evaluated a part of it each.

Shapes: N samples of the split · n of one process's part · W processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmf.common.report import Report
from mmf.modules.metrics import Metrics
from mmf.utils.distributed import gather_tensor
from torch import Tensor

from mmf_flava.ranks import gather_objects, world_size


class SplitMetrics(Metrics):
    """The metrics of the recipe (``evaluation.metrics``), computed from the samples of all processes.

    MMF computes each process's own and averages: right for accuracy, wrong for F1, AUROC and correlations. It deals a
    split out sample by sample, and some of the first ones a second time at the end, so that all parts are of one size;
    these are left out here.

    Args:
        metrics: names, as MMF takes them.
        sizes: samples of each split that is evaluated as a whole, N.
    """

    def __init__(self, metrics: Any, sizes: Mapping[str, int]) -> None:
        super().__init__(metrics)
        self.sizes = dict(sizes)

    def __call__(self, sample_list: Any, model_output: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """All processes call this together, each with the report of its part; each gets the figures of the whole."""
        if world_size() > 1:
            sample_list = model_output = self._whole(model_output)
        return super().__call__(sample_list, model_output, *args, **kwargs)

    def _whole(self, report: Any) -> Report:
        """The fields that the metrics need, of all processes, in the order in which the split was dealt out."""
        size = self.sizes.get(report["dataset_type"])
        fields = []
        for name in sorted(self.required_params):
            value = report[name]
            if isinstance(value, Tensor):
                # parts are of one size: (n, ...) of each process -> (W, n, ...) -> (n * W, ...)
                value = gather_tensor(value.contiguous()).transpose(0, 1).flatten(0, 1)[:size]
            elif isinstance(value, Sequence) and not isinstance(value, str):
                value = [item for dealt in zip(*gather_objects(list(value)), strict=True) for item in dealt][:size]
            fields.append((name, value))
        return Report(fields)
