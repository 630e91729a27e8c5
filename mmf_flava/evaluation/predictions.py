"""Predictions of datasets that define ``format_for_prediction``, as MMF's ``mmf_predict`` writes them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from mmf.common.report import Report
from mmf.datasets.base_dataset import BaseDataset

from mmf_flava.compat.behaviour.predictions import mark_bad_entries
from mmf_flava.evaluation.forward_pass import Part, to_cpu

Row = dict[str, Any]


def defines_predictions(dataset: Any) -> bool:
    """Return whether the class of a dataset defines its predictions; MMF's base class returns no rows."""
    method = getattr(dataset, "format_for_prediction", None)
    if isinstance(method, partial):  # of a concatenation of datasets
        method = getattr(dataset.datasets[0], "format_for_prediction", None)
    return method is not None and getattr(method, "__func__", None) is not BaseDataset.format_for_prediction


def read_rows(model: Any, dataset: Any, batch: Any, output: Any) -> list[Row]:
    """Return the predictions of a batch, in its order."""
    report = Report(batch, output)
    for key in list(report):
        report[key] = to_cpu(report[key])
    rows = dataset.format_for_prediction(report)
    return list(model.format_for_prediction(rows, report) if hasattr(model, "format_for_prediction") else rows)


def join_rows(parts: Sequence[Part[list[Row]]], dataset: Any) -> list[Row]:
    """Return the rows of all batches, in the order of the dataset. The row of a bad entry has its IDs and the reason.

    Raises:
        UserError: entries are bad, and the dataset does not have one row for each entry.
    """
    columns = next((list(rows[0]) for _, rows in parts if rows), [])
    joined: list[Row] = []
    for left_out, good in parts:
        rows = good or []
        if len(rows) == left_out.count(None):
            remaining = iter(rows)
            rows = [next(remaining) if entry is None else dict.fromkeys(columns) for entry in left_out]
        joined += mark_bad_entries(rows, left_out, dataset)
    return joined
