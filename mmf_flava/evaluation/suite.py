"""Runs the evaluations that are configured in the recipe section ``evaluation``."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from mmf_flava.config.paths import resolve_path
from mmf_flava.config.run import EvaluationConfig, LinearProbeConfig
from mmf_flava.data.evaluation_samples import LEFT_OUT, count_samples
from mmf_flava.data.initial_processors import initial_processors
from mmf_flava.data.sampling import build_evaluation_loader
from mmf_flava.evaluation import linear_probe, prompts, retrieval, zero_shot
from mmf_flava.evaluation.features import FeatureExtractor
from mmf_flava.evaluation.gallery import IncompleteGalleryError
from mmf_flava.evaluation.linear_probe import LabelledEmbeddings, LinearProbeResult
from mmf_flava.evaluation.zero_shot import ZeroShotResult
from mmf_flava.losses.counts import LossCounts, loss_name
from mmf_flava.processes import gather_objects, rank, world_size


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
        samples: dataset -> number of samples, of the datasets that have bad records.
        refused: why retrieval was not evaluated, although it is configured.
    """

    losses: dict[str, float] = field(default_factory=dict)
    zero_shot: ZeroShotResult | None = None
    retrieval: dict[str, float] | None = None
    linear_probe: LinearProbeResult | None = None
    samples: dict[str, SampleCount] = field(default_factory=dict)
    refused: str | None = None

    @property
    def sample_counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """The entry ``samples`` of JSON files; empty if there are no bad records."""
        counts = {name: asdict(count) for name, count in self.samples.items()}
        return {"samples": counts} if counts else {}

    def to_record(self) -> dict[str, Any]:
        """Return the main results as entries of a ``metrics.jsonl`` record."""
        record: dict[str, Any] = {"losses": self.losses}
        if self.zero_shot is not None:
            record["zero_shot"] = {"accuracy": self.zero_shot.accuracy, "count": len(self.zero_shot.targets)}
        if self.retrieval is not None:
            record["retrieval"] = self.retrieval
        return record | self.sample_counts

    def format_summary(self) -> str:
        """Format the main results as text for the log."""
        words = [f"{name} {value:.3f}" for name, value in self.losses.items()]
        if self.zero_shot is not None:
            words.append(f"zero-shot accuracy {self.zero_shot.accuracy:.3f} on {len(self.zero_shot.targets)} images")
        if self.retrieval is not None:
            words += [f"{key} {value:.3f}" for key, value in self.retrieval.items() if key.endswith("_r1")]
        words += [f"on {count} samples of {name}" for name, count in self.samples.items()]
        return ", ".join(words) + (f". {self.refused}" if self.refused else "")


class EvaluationSuite:
    """Evaluator of a model on the splits of a run's datasets.

    Args:
        datasets: split name -> dataset name -> dataset; the split "probe" has the training images without augmentation.
        num_workers: number of data loader workers.
        distributed: whether to distribute the samples over all processes; if False, each process evaluates all samples.
        on_batch: called with each batch before the forward pass.

    Raises:
        UserError: an evaluation is configured incorrectly, e.g. for an unknown dataset.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        datasets: dict[str, dict[str, Any]],
        num_workers: int,
        device: torch.device,
        distributed: bool = False,
        on_batch: Callable[[Any], None] = lambda batch: None,
    ) -> None:
        assert config.batch_size is not None  # set by read_settings
        self.datasets, self.device, self.on_batch = datasets, device, on_batch
        # embeddings cannot be cached while the model is being trained
        folder = resolve_path(config.features_dir) if distributed and config.features_dir else None
        self.extractor = FeatureExtractor(config.batch_size, num_workers, device, distributed, folder, on_batch)
        names = sorted({name for split in datasets.values() for name in split})
        if config.zero_shot is not None:
            stored = initial_processors(in_run=True).saved.classes or ()
            section = prompts.resolve_prompts(config.zero_shot, datasets, stored)
            zero_shot.check_config(section, names)
            config = replace(config, zero_shot=section)
        if config.retrieval is not None:
            retrieval.check_config(config.retrieval, names)
        if config.linear_probe is not None:
            linear_probe.check_config(config.linear_probe, names)
        self.config = config

    def run(self, model: Any, split: str) -> SplitResult:
        """Run the configured evaluations on ``split``, and restore the model's training mode.

        The linear probe is skipped for validation during training. Bad records are left out.

        Raises:
            IncompleteGalleryError: the gallery of the retrieval has bad records. In a run that trains, which must not
                end because of a bad record, only the retrieval is skipped.
        """
        training = model.training
        model.eval()
        datasets = self.datasets[split]
        bad: Counter[str] = Counter()
        result = SplitResult(losses=self._losses(model, split, bad) if self.config.losses else {})
        if (section := self.config.zero_shot) is not None and section.dataset in datasets:
            result.zero_shot = zero_shot.classify(model, datasets[section.dataset], section, self.extractor)
            bad[section.dataset] = result.zero_shot.bad
        if (recall := self.config.retrieval) is not None and recall.dataset in datasets:
            try:
                result.retrieval = retrieval.retrieve(model, datasets[recall.dataset], recall, self.extractor)
            except IncompleteGalleryError as error:
                if self.extractor.distributed:
                    raise
                result.refused = str(error)
        runs_probe = split == "test" or self.extractor.distributed
        if runs_probe and (probe := self.config.linear_probe) is not None and probe.dataset in datasets:
            result.linear_probe = self._probe(model, split, probe, bad)
        model.train(training)
        result.samples = {name: SampleCount(len(datasets[name]) - count, count) for name, count in bad.items() if count}
        return result

    def _probe(self, model: Any, split: str, config: LinearProbeConfig, bad: Counter[str]) -> LinearProbeResult | None:
        """Extract embeddings on all processes and fit the probe on rank 0; return None on the other ranks."""
        datasets = [self.datasets[name].get(config.dataset) for name in ("probe", "val", split)]
        features = [None if data is None else self.extractor.extract(model, data, "encoder") for data in datasets]
        assert features[2] is not None
        bad[config.dataset] = len(features[2].bad)
        if rank() > 0:
            return None
        train, val, test = (None if f is None else LabelledEmbeddings(f.embeddings, f.targets) for f in features)
        assert train is not None and test is not None
        # many recipes use the same images for val and test: do not select the penalty on test images
        if features[1] is not None and features[1].ids == features[2].ids:
            val = None
        return linear_probe.run_probe(train, val, test, config, self.device)

    @torch.no_grad()
    def _losses(self, model: Any, split: str, bad: Counter[str]) -> dict[str, float]:
        """Return the mean of each loss over its values in the good samples (see ``LossCounts``).

        A loss without values is missing. Only the contrastive loss depends on the batch size, because the negatives of
        a pair are the other samples of its batch. The number of bad records per dataset is added to ``bad``.
        """
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        for name, dataset in self.datasets[split].items():
            if not getattr(dataset, "HAS_LOSSES", True):
                continue
            for batch in self._load(split, name, self.extractor.distributed):
                size = count_samples(batch)
                bad[name] += len(batch[LEFT_OUT]) - size
                if not size:
                    continue
                values = LossCounts.count(model, batch)
                for key, loss in model(batch.to(self.device))["losses"].items():
                    if count := values.of(key):
                        sums[loss_name(key)] += loss.mean().item() * count
                        counts[loss_name(key)] += count
        if self.extractor.distributed:
            gathered = gather_objects((dict(sums), dict(counts), dict(bad)))
            names = [loss for local, _, _ in gathered for loss in local]
            sums = {loss: sum(local.get(loss, 0.0) for local, _, _ in gathered) for loss in names}
            counts = {loss: sum(local.get(loss, 0) for _, local, _ in gathered) for loss in names}
            total = sum((Counter(local) for _, _, local in gathered), Counter())
            bad.clear()
            bad.update(total)
        return {loss: sums[loss] / counts[loss] for loss in sums}

    def batches(self, split: str, name: str) -> Iterator[Any]:
        """Yield the batches of one dataset of a split in order; batches without good samples are skipped."""
        return (batch for batch in self._load(split, name) if count_samples(batch))

    def _load(self, split: str, name: str, distributed: bool = False) -> Iterator[Any]:
        """Yield the batches of one dataset of a split in order; only this process's batches if ``distributed``."""
        dataset, size = self.datasets[split][name], self.extractor.batch_size
        spans = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
        if distributed:
            spans = spans[rank() :: world_size()]
        for batch in build_evaluation_loader(dataset, size, self.extractor.num_workers, spans):
            self.on_batch(batch)
            yield batch
