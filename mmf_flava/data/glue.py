"""Dataset ``glue``: one of the eight GLUE tasks of the FLAVA paper (appendix B.2), read from the published files."""

import csv
from pathlib import Path
from typing import Any

import torch
from mmf.common.registry import registry
from mmf.common.sample import Sample
from mmf.datasets.base_dataset import BaseDataset
from mmf.datasets.base_dataset_builder import BaseDatasetBuilder
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.datasets import GlueConfig
from mmf_flava.config.paths import resolve_path
from mmf_flava.config.recipes import recipe_path
from mmf_flava.config.schema import parse_section
from mmf_flava.data.glue_files import Example, read_glue
from mmf_flava.data.glue_tasks import SCORE_RANGE, TASKS, GlueTask
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.processes import rank


class GlueDataset(BaseDataset):
    """One split of a GLUE task.

    Fields of a sample:
        input_ids: token ids of [CLS] text [SEP] or [CLS] text [SEP] text [SEP], padded to ``max_length``.
        input_mask: 0 on padding, otherwise 1.
        segment_ids: 1 on the second text of a pair.
        targets: the label, or the score of STS-B divided by 5 (as in fairseq); missing in test splits.
        id: index of the example in the split.
        sample_id: file name and line number of the example.
    """

    def __init__(self, config: GlueConfig, dataset_type: str, task: GlueTask, examples: list[Example]):
        super().__init__("glue", OmegaConf.structured(config), dataset_type)
        self.task, self.examples = task, examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Sample:
        example = self.examples[index]
        texts = dict(zip(("text", "text_b"), example.texts, strict=False))
        sample = Sample({**self.text_processor(texts), "id": torch.tensor(index), "sample_id": example.location})
        if example.target is not None:
            sample["targets"] = torch.tensor(example.target if self.task.labels else example.target / SCORE_RANGE[1])
        return sample

    def format_for_prediction(self, report: Any) -> list[dict[str, Any]]:
        """Return the predictions of a batch for ``mmf_predict``."""
        rows = zip(report.id.tolist(), report.scores.cpu(), strict=True)
        return [{"index": index, "prediction": self._prediction(scores)} for index, scores in rows]

    def on_prediction_end(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write ``submission/<task>.tsv`` for the GLUE benchmark if all entries are predicted, and return the rows."""
        predictions = {row["index"]: row["prediction"] for row in rows}
        if rank() == 0 and len(predictions) == len(self) and self.task.submission:
            path = Path(mmf_api.save_dir()) / "submission" / f"{self.task.submission}.tsv"
            write_submission(path, predictions)
            mmf_api.log(f"Wrote {path}")
        return rows

    def _prediction(self, scores: torch.Tensor) -> str:
        """Return the predicted class name or, for STS-B, the predicted score with three decimals."""
        if self.task.labels:
            return self.task.labels[int(scores.argmax())]
        lowest, highest = SCORE_RANGE
        return f"{min(max(scores.item() * highest, lowest), highest):.3f}"


def write_submission(path: Path, predictions: dict[int, str]) -> None:
    """Write a submission for gluebenchmark.com: a TSV file with the columns ``index`` and ``prediction``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replace_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "prediction"])
        writer.writerows(sorted(predictions.items()))


@registry.register_builder("glue")
class GlueBuilder(BaseDatasetBuilder):
    """Builder of the dataset ``glue``."""

    CONFIG = GlueConfig

    def __init__(self) -> None:
        super().__init__("glue")

    @classmethod
    def config_path(cls) -> str:
        return recipe_path("datasets/glue")

    def build(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the published files are read directly."""

    def load(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> GlueDataset:
        """Load one split of the GLUE task.

        Raises:
            UserError: a key or value is invalid, files are missing, or the model has a different number of
                labels than the task.
        """
        parsed = parse_section(self.CONFIG, config, "dataset_config.glue")
        task, split = TASKS[str(parsed.task)], getattr(parsed.splits, dataset_type)
        _check_model(task)
        examples = read_glue(resolve_path(parsed.data_dir), task, split, parsed.max_bad_share)
        if any(example.target is None for example in examples):
            _check_unlabelled(task, dataset_type)
        return GlueDataset(parsed, dataset_type, task, examples)

    def update_registry_for_model(self, config: Any) -> None:
        """Do nothing: the number of labels is set in the config. MMF calls this hook of every builder."""


def _check_model(task: GlueTask) -> None:
    """Raise UserError if the model has a different number of labels than the task."""
    config = registry.get("config", default=None, no_warning=True) or {}
    name = config.get("model")
    model = (config.get("model_config") or {}).get(name) or {}
    if (outputs := model.get("num_labels")) is not None and outputs != task.num_labels:
        raise UserError(
            f"model_config.{name}.num_labels is {outputs}, but the labels of {task.folder} are "
            f"{', '.join(task.labels) or 'scores'}. Set it to {task.num_labels}."
        )


def _check_unlabelled(task: GlueTask, dataset_type: str) -> None:
    if dataset_type != "test":
        raise UserError(
            f"dataset_config.glue.splits.{dataset_type}: this split of {task.folder} has no labels, so it can only be "
            "used as splits.test. Set the key to dev."
        )
    config = registry.get("config", default=None, no_warning=True) or {}
    if (config.get("evaluation") or {}).get("predict") and not task.submission:
        raise UserError(
            "dataset_config.glue.task=mnli: GLUE expects one file each for MNLI matched and mismatched. Predict with "
            "dataset_config.glue.task=mnli_matched, then with dataset_config.glue.task=mnli_mismatched."
        )
