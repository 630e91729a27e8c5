"""The eight GLUE tasks of the FLAVA paper (appendix B.2): files, columns and labels."""

from dataclasses import dataclass

ENTAILMENT = ("entailment", "not_entailment")
MNLI_SUFFIXES = ("_matched", "_mismatched")
SCORE_RANGE = (0.0, 5.0)  # range of STS-B's scores


@dataclass(frozen=True)
class GlueTask:
    """One GLUE task.

    Attributes:
        name: value of ``dataset_config.glue.task``.
        folder: name of the task's folder in GLUE's zip file.
        fields: field names of the texts in the Hugging Face hub's JSONL and parquet files.
        columns: column names of the texts in GLUE's TSV files.
        target: column name of the label in GLUE's TSV files.
        labels: class names in the order of their indices (as on the Hugging Face hub); empty if the target is a score.
        submission: stem of the file to submit to gluebenchmark.com; empty for ``mnli``, which requires two files.
        dev_test_suffixes: suffixes of the file stems of the dev and test splits.
    """

    name: str
    folder: str
    fields: tuple[str, ...]
    columns: tuple[str, ...]
    target: str
    labels: tuple[str, ...]
    submission: str
    dev_test_suffixes: tuple[str, ...] = ("",)

    @property
    def hub_folder(self) -> str:
        """Name of the task's folder in the repository nyu-mll/glue on the Hugging Face hub."""
        return self.name.partition("_")[0]

    @property
    def num_labels(self) -> int:
        """Number of outputs of the classifier; 1 if the task predicts a score."""
        return len(self.labels) or 1

    def file_stems(self, split: str) -> list[str]:
        """Return the file names, without extension, of the split ``train``, ``dev`` or ``test``."""
        return [split] if split == "train" else [split + suffix for suffix in self.dev_test_suffixes]


def _mnli(suffix: str, dev_test_suffixes: tuple[str, ...]) -> GlueTask:
    return GlueTask(
        f"mnli{suffix}",
        "MNLI",
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        {"_matched": "MNLI-m", "_mismatched": "MNLI-mm"}.get(suffix, ""),
        dev_test_suffixes,
    )


_SENTENCES, _MRPC_STRINGS = ("sentence1", "sentence2"), ("#1 String", "#2 String")
_QUESTIONS, _ANSWER = ("question1", "question2"), ("question", "sentence")
TASKS = {
    task.name: task
    for task in (
        GlueTask("cola", "CoLA", ("sentence",), ("sentence",), "label", ("0", "1"), "CoLA"),
        # dev_matched and dev_mismatched are evaluated as one split of 19,647 examples. Their sizes differ by 17, so
        # the joint accuracy is almost the mean of both accuracies: it deviates by less than 0.05 % of their difference.
        _mnli("", MNLI_SUFFIXES),
        _mnli("_matched", MNLI_SUFFIXES[:1]),
        _mnli("_mismatched", MNLI_SUFFIXES[1:]),
        GlueTask("mrpc", "MRPC", _SENTENCES, _MRPC_STRINGS, "Quality", ("0", "1"), "MRPC"),
        GlueTask("qnli", "QNLI", _ANSWER, _ANSWER, "label", ENTAILMENT, "QNLI"),
        GlueTask("qqp", "QQP", _QUESTIONS, _QUESTIONS, "is_duplicate", ("0", "1"), "QQP"),
        GlueTask("rte", "RTE", _SENTENCES, _SENTENCES, "label", ENTAILMENT, "RTE"),
        GlueTask("sst2", "SST-2", ("sentence",), ("sentence",), "label", ("0", "1"), "SST-2"),
        GlueTask("stsb", "STS-B", _SENTENCES, _SENTENCES, "score", (), "STS-B"),
    )
}
# CoLA's train.tsv and dev.tsv have no header row
COLA_COLUMNS = ("source", "label", "original label", "sentence")
