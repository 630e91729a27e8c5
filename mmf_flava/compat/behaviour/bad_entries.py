"""Patches that leave out bad entries of a dataset in evaluations and predictions.

Datasets replace a bad entry by a good entry, and list the bad ones in the field ``replaced`` of the sample. Batches
keep their sizes, which MMF requires to be equal on all processes. Losses and metrics do not use the replacements.

Shapes: B = batch size, N = number of samples of an evaluation.
"""

from collections.abc import MutableMapping
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, wrap

FIELD = "is_replaced"  # (B,) uint8: 1 for samples that are left out
REPLACED: dict[str, Any] = {
    "why": "a bad entry of a split would be scored with the values of another entry",
    "since": "MMF 1.0.0rc1",
    "until": "MMF skips bad entries",
}


@patch("mmf.models.base_model", what="evaluation losses are computed without bad entries", **REPLACED)
def losses(module: Any) -> None:
    @wrap(module.BaseModel, "__call__", only_if=flava_run.is_current)
    def __call__(original: Any, self: Any, sample_list: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        output = original(self, sample_list, *args, **kwargs)
        if not isinstance(output, MutableMapping) or not hasattr(sample_list, "get_batch_size"):
            return output
        size = sample_list.get_batch_size()
        flags = [] if self.training else [bool(entries) for entries in sample_list.get("replaced", ())]
        if len(flags) != size:  # DataParallel gives each replica the lists of the entire batch
            flags = [False] * size
        options: Any = {"dtype": torch.uint8, "device": _device(sample_list)}
        # a copy to a GPU makes the host wait
        output[FIELD] = torch.tensor(flags, **options) if any(flags) else torch.zeros(size, **options)
        kept = [not flag for flag in flags]
        if 0 < sum(kept) < size and output.get("losses"):
            output["losses"] = self.losses(_select(sample_list, kept), _select(output, kept))
            output["batch_size"] = sum(kept)  # the weight of the losses
        return output


@patch("mmf.modules.metrics", what="metrics are computed without bad entries", **REPLACED)
def metrics(module: Any) -> None:
    @wrap(module.Metrics, "_init_metrics", only_if=flava_run.is_current)
    def _init_metrics(original: Any, self: Any, metric_list: Any) -> Any:
        built = original(self, metric_list)
        self.required_params.add(FIELD)
        self.sample_counts = {}
        return built

    @wrap(module.Metrics, "__call__", only_if=flava_run.is_current)
    def __call__(original: Any, self: Any, sample_list: Any, model_output: Any, *args: Any, **kwargs: Any) -> Any:
        from mmf_flava.compat import mmf_api

        kept = [not flag for flag in sample_list[FIELD].tolist()] if FIELD in sample_list else []
        name, split = sample_list["dataset_name"], sample_list["dataset_type"]
        self.sample_counts[split] = sum(kept), len(kept)
        if 0 < sum(kept) < len(kept):
            mmf_api.log(f"{name}, {split} split: scores on {sum(kept):,} of {len(kept):,} samples.")
            same = model_output is sample_list
            sample_list = _select(sample_list, kept)
            model_output = sample_list if same else _select(model_output, kept)
        return original(self, sample_list, model_output, *args, **kwargs)


def _device(batch: Any) -> Any:
    return next((value.device for value in batch.values() if hasattr(value, "device")), None)


def _select(batch: Any, kept: list[bool]) -> Any:
    """Return a batch with only some of the samples. Values that are not per sample are unchanged.

    Args:
        batch: SampleList, Report or output of a model.
        kept: whether to keep each sample of the batch.
    """
    import torch
    from mmf.common.sample import SampleList

    rows = [row for row, keep in enumerate(kept) if keep]
    selected = SampleList()
    for name, value in batch.items():
        if isinstance(value, torch.Tensor) and value.dim() and len(value) == len(kept):
            value = value[rows]
        elif isinstance(value, list) and len(value) == len(kept):
            value = [value[row] for row in rows]
        selected[name] = value
    return selected
