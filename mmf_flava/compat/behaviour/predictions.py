"""Patches of MMF's predictions: a row for every entry of the split, in the order of its file."""

from collections.abc import Sequence
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import patch, source_contains, wrap
from mmf_flava.errors import UserError


@patch(
    "mmf.common.test_reporter",
    what="mmf_predict writes a row for every entry; the row of a bad entry has only its IDs and the key error",
    why="one bad entry stops mmf_predict without a file",
    since="MMF 1.0.0rc1",
    until="MMF skips bad entries",
)
def rows(module: Any) -> None:
    @wrap(module.TestReporter, "add_to_report", only_if=flava_run.is_current)
    def add_to_report(original: Any, self: Any, report: Any, *args: Any, **kwargs: Any) -> None:
        from mmf_flava.processes import gather_objects

        # like the report's tensors, one process after the other
        replaced = [entries for part in gather_objects(report.get("replaced", [])) for entries in part]
        if "sample_id" in report:
            report["sample_id"] = [key for part in gather_objects(list(report["sample_id"])) for key in part]
        before, self.report = self.report, []
        original(self, report, *args, **kwargs)
        added = self.report
        if added:
            added = mark_bad_entries(added, [next(iter(entries), None) for entries in replaced], self.current_dataset)
        self.report = before + added

    @wrap(module.TestReporter, "flush_report", only_if=flava_run.is_current)
    def flush_report(original: Any, self: Any) -> None:
        if not hasattr(self, "postprocess_dataset_report") and hasattr(self.current_dataset, "on_prediction_end"):
            self.report = self.current_dataset.on_prediction_end(self.report)
        failed = sum("error" in row for row in self.report)
        if failed:
            from mmf_flava.compat import mmf_api

            self.report = [{**row, "error": row.get("error")} for row in self.report]
            total = len(self.report)
            mmf_api.log(
                f"Predicted {total - failed:,} of {total:,} entries. The rows of the others are empty; their column "
                "error has the reason."
            )
        original(self)


def mark_bad_entries(
    rows: list[dict[str, Any]], bad: Sequence[dict[str, Any] | None], dataset: Any
) -> list[dict[str, Any]]:
    """Return the rows of a batch; the rows of bad entries have only their IDs and the key ``error``.

    Args:
        rows: a row for each entry; the values of the rows of bad entries are not used.
        bad: for each entry, None or, if it is bad, its entry in the list of bad records.

    Raises:
        UserError: entries are bad, and there is not one row for each entry.
    """
    if not any(bad):
        return rows
    if len(rows) != len(bad):
        message = next(entry["message"] for entry in bad if entry)
        raise UserError(f"{message}. Predictions of this dataset need all entries. Correct the entry.")
    return [row if entry is None else _failed_row(row, entry, dataset) for row, entry in zip(rows, bad, strict=True)]


def _failed_row(row: dict[str, Any], entry: dict[str, Any], dataset: Any) -> dict[str, Any]:
    identifiers = dataset.identifiers(entry["record"]) if hasattr(dataset, "identifiers") else {}
    return {**{key: identifiers.get(key) for key in row}, "error": f"{entry['reason']}: {entry['message']}"}


@patch(
    "mmf.utils.build",
    what="predictions of the val split are in the order of its file",
    why="MMF shuffles the val split",
    since="MMF's main branch",
    until="MMF shuffles only training data",
    needed=source_contains('other_args["shuffle"] is None', "_add_extra_args_for_dataloader"),
)
def file_order(module: Any) -> None:
    @wrap(module, "_add_extra_args_for_dataloader", only_if=flava_run.is_current)
    def _add_extra_args_for_dataloader(original: Any, dataset: Any, other_args: dict[str, Any] | None = None) -> Any:
        if other_args is not None and module.get_global_config("evaluation.predict"):
            other_args["shuffle"] = dataset.dataset_type == "train"
        return original(dataset, other_args)
