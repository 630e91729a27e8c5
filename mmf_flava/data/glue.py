"""``glue``: one of GLUE's eight tasks of the paper (B.2) for finetuning, from its public files.

Shapes: T tokens, ``max_length`` of the text processor.
"""

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
from mmf_flava.config.recipes import recipe
from mmf_flava.config.schema import check_keys, near_miss
from mmf_flava.data.glue_files import SPLITS, Example, read_glue
from mmf_flava.data.glue_tasks import SCORES, TASKS, GlueTask
from mmf_flava.errors import UserError

KEYS = ("data_dir", "task", "splits", "max_bad_share", "processors")


class GlueDataset(BaseDataset):
    """One split of a task.

    Fields of a sample: input_ids (T,) long and input_mask (T,) bool, [CLS] text [SEP] or [CLS] text [SEP] text [SEP];
    targets, the class's number or STS-B's score divided by 5 (as fairseq trains it), which a test split lacks; id,
    its number in the split; sample_id, file and line.
    """

    def __init__(self, config: Any, dataset_type: str, task: GlueTask, examples: list[Example]):
        super().__init__("glue", config, dataset_type)
        self.task, self.examples = task, examples
        self._predictions: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Sample:
        example = self.examples[index]
        texts = dict(zip(("text", "text_b"), example.texts, strict=False))
        sample = Sample({**self.text_processor(texts), "id": torch.tensor(index), "sample_id": example.place})
        if example.target is not None:
            sample["targets"] = torch.tensor(example.target if self.task.labels else example.target / SCORES[1])
        return sample

    def init_processors(self) -> None:
        """Builds the processor; UserError when the YAML names none."""
        super().init_processors()
        if not hasattr(self, "text_processor"):
            raise UserError("dataset_config.glue.processors has no text_processor; glue needs one, e.g. flava_tokens.")

    def format_for_prediction(self, report: Any) -> list[dict[str, Any]]:
        """What ``mmf_predict`` writes of a batch; after the last one, ``submission/<task>.tsv`` for the benchmark."""
        for number, scores in zip(report.id.tolist(), report.scores.cpu(), strict=True):
            self._predictions[number] = self._prediction(scores)
        if len(self._predictions) == len(self) and self.task.submission:
            path = Path(mmf_api.save_dir()) / "submission" / f"{self.task.submission}.tsv"
            write_submission(path, self._predictions)
            mmf_api.log(f"Wrote {path}")
        return [{"index": number, "prediction": self._predictions[number]} for number in report.id.tolist()]

    def _prediction(self, scores: torch.Tensor) -> str:
        """The class's name; STS-B's score in three digits."""
        if self.task.labels:
            return self.task.labels[int(scores.argmax())]
        lowest, highest = SCORES
        return f"{min(max(scores.item() * highest, lowest), highest):.3f}"


def write_submission(path: Path, predictions: dict[int, str]) -> None:
    """The file that gluebenchmark.com takes: ``index`` and ``prediction``, tab between them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "prediction"])
        writer.writerows(sorted(predictions.items()))


@registry.register_builder("glue")
class GlueBuilder(BaseDatasetBuilder):
    """Builds ``glue``.

    Keys: ``task`` (cola, mnli, mnli_matched, mnli_mismatched, mrpc, qnli, qqp, rte, sst2, stsb), ``data_dir``,
    ``splits`` (which of GLUE's train, dev and test is MMF's train, val and test; GLUE's test has no labels),
    ``max_bad_share`` (of lines that are left out as malformed) and ``processors``.
    """

    def __init__(self) -> None:
        super().__init__("glue")

    @classmethod
    def config_path(cls) -> str:
        return recipe("datasets/glue")

    def build(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> None:
        """Nothing is made: the files are read as they are."""

    def load(self, config: Any, dataset_type: str, *args: Any, **kwargs: Any) -> GlueDataset:
        """One split; UserError for a task, a split or a number of labels that cannot be, and for files that lack."""
        check_keys(config, KEYS, "dataset_config.glue")
        task, split = _task(config.get("task")), config.splits.get(dataset_type)
        if split not in SPLITS:
            raise UserError(
                f"dataset_config.glue.splits.{dataset_type} is {split!r}; it is one of GLUE's {', '.join(SPLITS)}."
            )
        _check_model(task, config)
        examples = read_glue(Path(config.data_dir).expanduser(), task, split, config.max_bad_share)
        if any(example.target is None for example in examples):
            _check_unlabelled(task, dataset_type)
        return GlueDataset(config, dataset_type, task, examples)

    def update_registry_for_model(self, config: Any) -> None:
        """MMF asks every builder; the recipe says how many labels there are."""


def _task(said: Any) -> GlueTask:
    if said not in TASKS:
        raise UserError(f"dataset_config.glue.task is {said!r}.{near_miss(str(said), TASKS)}")
    return TASKS[said]


def _check_model(task: GlueTask, section: Any) -> None:
    """The recipe's model has as many outputs as the task has classes, and positions for the longest texts."""
    config = registry.get("config", default=None, no_warning=True) or {}
    name = config.get("model")
    model = (config.get("model_config") or {}).get(name) or {}
    if (outputs := model.get("num_labels")) is not None and outputs != task.num_labels:
        raise UserError(
            f"model_config.{name}.num_labels is {outputs}, but {task.folder} has "
            f"{', '.join(task.labels) or 'a score'} to predict: set it to {task.num_labels}."
        )
    positions = (model.get("text_encoder") or {}).get("max_length")
    longest = OmegaConf.select(section, "processors.text_processor.params.max_length")
    if positions is not None and longest is not None and longest > positions:
        raise UserError(
            f"dataset_config.glue.processors.text_processor.params.max_length is {longest}, but "
            f"model_config.{name}.text_encoder.max_length, its positions, is {positions}: set the first to {positions}."
        )


def _check_unlabelled(task: GlueTask, dataset_type: str) -> None:
    if dataset_type != "test":
        raise UserError(
            f"dataset_config.glue.splits.{dataset_type} names a split of {task.folder} without labels, which can only "
            "be predicted, as splits.test; take dev."
        )
    config = registry.get("config", default=None, no_warning=True) or {}
    if (config.get("evaluation") or {}).get("predict") and not task.submission:
        raise UserError(
            "GLUE takes MNLI's two halves in two files: predict with dataset_config.glue.task=mnli_matched, then with "
            "mnli_mismatched."
        )
