"""The results of the evaluations on one split."""

from dataclasses import asdict, dataclass, field
from typing import Any

from mmf_flava.evaluation.knn import KnnResult
from mmf_flava.evaluation.linear_probe import LinearProbeResult
from mmf_flava.evaluation.zero_shot import ZeroShotResult


@dataclass(frozen=True)
class SampleCount:
    """Number of evaluated samples of a dataset, and number of bad records, which are left out."""

    evaluated: int
    bad: int

    def __str__(self) -> str:
        return f"{self.evaluated:,} of {self.evaluated + self.bad:,}"


@dataclass
class SplitResult:
    """Evaluation results on one split: the mean of each loss, and the result of each evaluation (None if not run).

    Attributes:
        metrics: values of MMF's metrics (``evaluation.metrics``), e.g. ``roc_auc``, or ``hateful_memes/roc_auc`` in a
            run with several datasets.
        samples: dataset -> number of samples, of the datasets that have bad records.
        refused: why retrieval was not evaluated, although it is configured.
    """

    losses: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    zero_shot: ZeroShotResult | None = None
    retrieval: dict[str, float] | None = None
    linear_probe: LinearProbeResult | None = None
    knn: KnnResult | None = None
    samples: dict[str, SampleCount] = field(default_factory=dict)
    refused: str | None = None

    @property
    def sample_counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """The entry ``samples`` of JSON files; empty if there are no bad records."""
        counts = {name: asdict(count) for name, count in self.samples.items()}
        return {"samples": counts} if counts else {}

    @property
    def has_scores(self) -> bool:
        """Whether any evaluation was run."""
        evaluated = (self.zero_shot, self.retrieval, self.linear_probe, self.knn)
        return bool(self.losses or self.metrics or any(evaluated) or self.refused)

    def scores(self) -> dict[str, Any]:
        """Return losses and metrics as entries of JSON files."""
        return {"losses": self.losses, **({"metrics": self.metrics} if self.metrics else {})}

    def to_record(self) -> dict[str, Any]:
        """Return the main results as entries of a ``metrics.jsonl`` record."""
        record = self.scores()
        if self.zero_shot is not None:
            record["zero_shot"] = {"accuracy": self.zero_shot.accuracy, "count": len(self.zero_shot.targets)}
        if self.retrieval is not None:
            record["retrieval"] = self.retrieval
        if self.linear_probe is not None:
            record["linear_probe"] = {"accuracy": self.linear_probe.accuracy, "count": len(self.linear_probe.targets)}
        if self.knn is not None:
            record["knn"] = {"accuracy": self.knn.accuracy, "count": len(self.knn.targets)}
        return record | self.sample_counts

    def format_summary(self) -> str:
        """Format the main results as text for the log."""
        words = [f"{name} {value:.3f}" for name, value in self.losses.items()]
        words += [f"{name} {value:.4f}" for name, value in self.metrics.items()]
        if self.zero_shot is not None:
            words.append(f"zero-shot accuracy {self.zero_shot.accuracy:.3f} on {len(self.zero_shot.targets)} images")
        if self.retrieval is not None:
            words += [f"{key} {value:.3f}" for key, value in self.retrieval.items() if key.endswith("_r1")]
        if (probe := self.linear_probe) is not None:
            words.append(f"linear probe accuracy {probe.accuracy:.4f} on {len(probe.targets)} images")
        if self.knn is not None:
            accuracy = f"{self.knn.k}-NN accuracy {self.knn.accuracy:.4f}{self.knn.remark}"
            words.append(f"{accuracy} on {len(self.knn.targets)} images")
        words += [f"on {count} samples of {name}" for name, count in self.samples.items()]
        return ", ".join(words) + (f". {self.refused}" if self.refused else "")
