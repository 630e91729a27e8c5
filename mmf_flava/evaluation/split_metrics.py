"""MMF's metrics of a complete split that is distributed over several processes.

Shapes: N = samples in the split, n = samples per process, W = number of processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmf.common.report import Report
from mmf.modules.metrics import Metrics
from mmf.utils.distributed import gather_tensor
from torch import Tensor

from mmf_flava.processes import gather_objects, world_size


class SplitMetrics(Metrics):
    """The metrics of ``evaluation.metrics``, computed from the samples of all processes.

    MMF computes each metric per process and averages the results, which is correct for accuracy but not for F1, AUROC
    and correlations. MMF assigns the samples of a split to the processes round robin and pads the end with copies of
    the first samples, so that all processes have the same number; this class removes the padding.

    Args:
        metrics: metric names in MMF's format.
        sizes: split name -> number of samples N.
    """

    def __init__(self, metrics: Any, sizes: Mapping[str, int]) -> None:
        # MMF would read a name as a list of letters
        super().__init__([metrics] if isinstance(metrics, str) else metrics)
        self.sizes = dict(sizes)

    def __call__(self, sample_list: Any, model_output: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the metrics of the complete split; each process passes the report of its own samples."""
        if world_size() > 1:
            sample_list = model_output = self._gather_report(model_output)
        return super().__call__(sample_list, model_output, *args, **kwargs)

    def _gather_report(self, report: Any) -> Report:
        """Gather the fields that the metrics require from all processes, in the order of the sampler."""
        size = self.sizes.get(report["dataset_type"])
        fields = []
        for name in sorted(self.required_params & report.keys()):
            value = report[name]
            if isinstance(value, Tensor):
                # n is equal on all processes: (n, ...) per process -> (W, n, ...) -> (n * W, ...)
                value = gather_tensor(value.contiguous()).transpose(0, 1).flatten(0, 1)[:size]
            elif isinstance(value, Sequence) and not isinstance(value, str):
                value = [item for items in zip(*gather_objects(list(value)), strict=True) for item in items][:size]
            fields.append((name, value))
        return Report(fields)
