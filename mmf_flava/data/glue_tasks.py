"""GLUE's eight tasks of the paper (B.2): their files, the columns of these, and what is predicted."""

from dataclasses import dataclass

ENTAILMENT = ("entailment", "not_entailment")
HALVES = ("_matched", "_mismatched")
SCORES = (0.0, 5.0)  # of STS-B


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Attributes:
        name: in a recipe.
        folder: in GLUE's zip.
        fields: of the texts in JSONL and parquet as the Hugging Face hub has them.
        columns: of the texts in GLUE's TSV.
        target: column of the label in GLUE's TSV.
        labels: names of the classes in order of their numbers (the hub's); empty for a score in ``SCORES``.
        submission: stems of the files that gluebenchmark.com takes, one for each half.
        halves: endings of the files of the dev and the test split.
    """

    name: str
    folder: str
    fields: tuple[str, ...]
    columns: tuple[str, ...]
    target: str
    labels: tuple[str, ...]
    submission: str
    halves: tuple[str, ...] = ("",)

    @property
    def hub_folder(self) -> str:
        """The folder of nyu-mll/glue on the Hugging Face hub."""
        return self.name.partition("_")[0]

    @property
    def num_labels(self) -> int:
        """Outputs of a classifier; 1 for a score."""
        return len(self.labels) or 1

    def stems(self, split: str) -> list[str]:
        """Names of the files of ``train``, ``dev`` or ``test``, without their endings."""
        return [split] if split == "train" else [split + half for half in self.halves]


def _mnli(half: str, halves: tuple[str, ...]) -> GlueTask:
    return GlueTask(
        f"mnli{half}",
        "MNLI",
        ("premise", "hypothesis"),
        ("sentence1", "sentence2"),
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        {"_matched": "MNLI-m", "_mismatched": "MNLI-mm"}.get(half, ""),
        halves,
    )


_TWO, _STRINGS = ("sentence1", "sentence2"), ("#1 String", "#2 String")
_QUESTIONS, _ANSWER = ("question1", "question2"), ("question", "sentence")
TASKS = {
    task.name: task
    for task in (
        GlueTask("cola", "CoLA", ("sentence",), ("sentence",), "label", ("0", "1"), "CoLA"),
        # both halves of the dev split are one: their sizes differ by 17 in 9,815, so that accuracy over both is the
        # mean of the halves' accuracies to 0.0005 points for each point that they differ
        _mnli("", HALVES),
        _mnli("_matched", HALVES[:1]),
        _mnli("_mismatched", HALVES[1:]),
        GlueTask("mrpc", "MRPC", _TWO, _STRINGS, "Quality", ("0", "1"), "MRPC"),
        GlueTask("qnli", "QNLI", _ANSWER, _ANSWER, "label", ENTAILMENT, "QNLI"),
        GlueTask("qqp", "QQP", _QUESTIONS, _QUESTIONS, "is_duplicate", ("0", "1"), "QQP"),
        GlueTask("rte", "RTE", _TWO, _TWO, "label", ENTAILMENT, "RTE"),
        GlueTask("sst2", "SST-2", ("sentence",), ("sentence",), "label", ("0", "1"), "SST-2"),
        GlueTask("stsb", "STS-B", _TWO, _TWO, "score", (), "STS-B"),
    )
}
# CoLA's train.tsv and dev.tsv have no header
COLA_COLUMNS = ("source", "label", "original label", "sentence")
