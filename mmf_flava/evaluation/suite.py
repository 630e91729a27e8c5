"""Runs the evaluations that are configured in the recipe section ``evaluation``."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from mmf_flava.compat import mmf_api
from mmf_flava.config.paths import resolve_path
from mmf_flava.config.run import EvaluationConfig, KnnConfig, LinearProbeConfig
from mmf_flava.data.run_processors import initial_processors
from mmf_flava.evaluation import knn, linear_probe, prompts, retrieval, zero_shot
from mmf_flava.evaluation.features import FeatureExtractor, Features
from mmf_flava.evaluation.forward_pass import evaluation_mode, forward_pass
from mmf_flava.evaluation.gallery import IncompleteGalleryError
from mmf_flava.evaluation.knn import KnnResult
from mmf_flava.evaluation.linear_probe import LabelledEmbeddings, LinearProbeResult
from mmf_flava.evaluation.predictions import defines_predictions, join_rows, read_rows
from mmf_flava.evaluation.rounds import EvaluationStopped, Rounds
from mmf_flava.evaluation.scorer import BatchScores, Scorer, has_labels, mean_losses, uses_targets
from mmf_flava.evaluation.split_result import SampleCount, SplitResult
from mmf_flava.evaluation.zero_shot import ZeroShotResult
from mmf_flava.processes import gather_objects


class EvaluationSuite:
    """Evaluator of a model on the splits of a run's datasets. All processes take part and get the same results.

    Args:
        datasets: split name -> dataset name -> dataset; the split "probe" has the training images without augmentation.
        num_workers: number of data loader workers.
        metrics: the config key ``evaluation.metrics``.
        trains: whether the model is being trained. Embeddings are then not cached, the linear probe is fitted only for
            the test split (unless ``at_validations``), and a retrieval gallery with bad records is not an error.
        collective: see ``Rounds``.
        on_batch: called with each batch of this process before the forward pass.

    Raises:
        UserError: an evaluation is configured incorrectly, e.g. for an unknown dataset.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        datasets: Mapping[str, Mapping[str, Any]],
        num_workers: int,
        device: torch.device,
        *,
        metrics: Any = (),
        trains: bool = False,
        collective: bool = False,
        on_batch: Callable[[Any], None] = lambda batch: None,
    ) -> None:
        assert config.batch_size is not None  # set by read_settings
        self.datasets, self.device, self.trains = datasets, device, trains
        self.rounds = Rounds(config.batch_size, num_workers, collective, on_batch)
        folder = None if trains or not config.features_dir else resolve_path(config.features_dir)
        self.extractor = FeatureExtractor(self.rounds, device, folder)
        self.scorer = Scorer(metrics, config.losses)
        self.names = sorted({name for split in datasets.values() for name in split})
        if config.zero_shot is not None:
            stored = initial_processors(in_run=True).saved.classes or ()
            section = prompts.resolve_prompts(config.zero_shot, datasets, stored)
            zero_shot.check_config(section, self.names)
            config = replace(config, zero_shot=section)
        if config.retrieval is not None:
            retrieval.check_config(config.retrieval, self.names)
        if config.linear_probe is not None:
            linear_probe.check_config(config.linear_probe, self.names)
        if config.knn is not None:
            knn.check_config(config.knn, self.names)
        self.config = config

    def run(self, model: Any, split: str, stopped: Callable[[], bool] | None = None) -> SplitResult | None:
        """Run the configured evaluations on ``split``. Bad records are left out.

        Args:
            stopped: asked by all processes together, after each batch, whether to stop.

        Returns:
            None if ``stopped`` returned true.

        Raises:
            IncompleteGalleryError: the gallery of the retrieval has bad records. In a run that trains, which must not
                end because of a bad record, only the retrieval is skipped.
        """
        self.rounds.stopped = stopped
        try:
            with evaluation_mode(model):
                return self._run(model, split)
        except EvaluationStopped:
            return None
        finally:
            self.rounds.stopped = None

    def _run(self, model: Any, split: str) -> SplitResult:
        datasets = self.datasets[split]
        losses, metrics, bad = self._score(model, split)
        result = SplitResult(losses, metrics)
        if (classified := self._classify(model, split)) is not None:
            result.zero_shot = classified
            bad[self.config.zero_shot.dataset] = classified.bad  # type: ignore[union-attr]
        if (recall := self.config.retrieval) is not None and recall.dataset in datasets:
            try:
                result.retrieval = retrieval.retrieve(model, datasets[recall.dataset], recall, self.extractor)
            except IncompleteGalleryError as error:
                if not self.trains:
                    raise
                result.refused = str(error)
        extracted: dict[tuple[str, str], Features] = {}  # the probe and the neighbours may use the same images
        probe = self.config.linear_probe
        if probe is not None and probe.dataset in datasets and self._fits_probe(probe, split):
            result.linear_probe = self._probe(model, split, probe, bad, extracted)
        if (neighbours := self.config.knn) is not None and neighbours.dataset in datasets:
            result.knn = self._knn(model, split, neighbours, bad, extracted)
        result.samples = {name: SampleCount(len(datasets[name]) - count, count) for name, count in bad.items() if count}
        return result

    def _score(self, model: Any, split: str) -> tuple[dict[str, float], dict[str, float], Counter[str]]:
        """Return the losses, the metrics, and the number of bad records of each dataset.

        A loss is the mean over its values in the good samples of all datasets (see ``LossCounts``); a loss without
        values is missing. Only the contrastive loss depends on the batch size, because the negatives of a pair are the
        other samples of its batch.
        """
        scores: list[BatchScores] = []
        metrics: dict[str, float] = {}
        bad: Counter[str] = Counter()
        for name, dataset in self.datasets[split].items() if self.scorer.is_needed else ():
            if not _is_forwarded(model, dataset):
                continue
            if uses_targets(model) and not has_labels(dataset):
                mmf_api.log(
                    f"The {split} split of {name} has no labels and is not evaluated. Run mmf_predict to predict its "
                    "labels."
                )
                continue
            parts = forward_pass(model, dataset, self.rounds, self.device, partial(self.scorer.read, model, dataset))
            scores += [found for _, found in parts if found is not None]
            bad[name] += sum(entry is not None for left_out, _ in parts for entry in left_out)
            prefix = f"{name}/" if len(self.names) > 1 else ""
            values = self.scorer.compute_metrics(name, dataset, parts)
            metrics |= {f"{prefix}{key}": value for key, value in values.items()}
        return gather_objects((mean_losses(scores), metrics, bad))[0]

    def _classify(self, model: Any, split: str) -> ZeroShotResult | None:
        section, datasets = self.config.zero_shot, self.datasets[split]
        if section is None or section.dataset not in datasets:
            return None
        return zero_shot.classify(model, datasets[section.dataset], section, self.extractor)

    def _extract(
        self, model: Any, split: str, name: str, extracted: dict[tuple[str, str], Features]
    ) -> Features | None:
        """Return the features of the dataset ``name`` on every process; None if it does not have the split."""
        dataset = self.datasets[split].get(name)
        if dataset is not None and (split, name) not in extracted:
            extracted[split, name] = self.extractor.extract(model, dataset, "encoder")
        return extracted.get((split, name))

    def _fits_probe(self, config: LinearProbeConfig, split: str) -> bool:
        return config.at_validations or split == "test" or not self.trains

    def _probe(
        self,
        model: Any,
        split: str,
        config: LinearProbeConfig,
        bad: Counter[str],
        extracted: dict[tuple[str, str], Features],
    ) -> LinearProbeResult:
        """Extract the embeddings together, and fit the same probe on every process, so that no process waits."""
        features = [self._extract(model, name, config.dataset, extracted) for name in ("probe", "val", split)]
        assert features[2] is not None
        bad[config.dataset] = len(features[2].bad)
        train, val, test = (None if f is None else LabelledEmbeddings(f.embeddings, f.targets) for f in features)
        assert train is not None and test is not None
        # many recipes use the same images for val and test: do not select the penalty on test images
        if features[1] is not None and features[1].ids == features[2].ids:
            val = None
        return linear_probe.run_probe(train, val, test, config, self.device)

    def _knn(
        self, model: Any, split: str, config: KnnConfig, bad: Counter[str], extracted: dict[tuple[str, str], Features]
    ) -> KnnResult:
        """Extract the embeddings together, and search the neighbours on every process, so that no process waits."""
        features = [self._extract(model, name, config.dataset, extracted) for name in ("probe", split)]
        train, test = (LabelledEmbeddings(f.embeddings, f.targets) for f in features if f is not None)
        bad[config.dataset] = len(extracted[split, config.dataset].bad)
        return knn.run_knn(train, test, config, self.device)

    def classify(self, model: Any, split: str) -> ZeroShotResult | None:
        """Return the zero-shot predictions of ``evaluation.zero_shot``; None if the split has no such dataset."""
        with evaluation_mode(model):
            return self._classify(model, split)

    def predicted(self, model: Any, split: str) -> list[str]:
        """Return the datasets that define predictions, without that of ``evaluation.zero_shot``."""
        section = self.config.zero_shot
        return [
            name
            for name, dataset in self.datasets[split].items()
            if (section is None or name != section.dataset)
            and defines_predictions(dataset)
            and _is_forwarded(model, dataset)
        ]

    def predict(self, model: Any, split: str) -> dict[str, list[dict[str, Any]]]:
        """Return the predictions of each dataset of ``predicted``, a row per entry in file order, on the first process.

        The lists of the other processes are empty.
        """
        rows = {}
        with evaluation_mode(model):
            for name in self.predicted(model, split):
                dataset = self.datasets[split][name]

                def read(counts: Any, batch: Any, output: Any, dataset: Any = dataset) -> list[dict[str, Any]]:
                    return read_rows(model, dataset, batch, output)

                rows[name] = join_rows(forward_pass(model, dataset, self.rounds, self.device, read), dataset)
        return rows


def _is_forwarded(model: Any, dataset: Any) -> bool:
    """Return whether the model's ``forward`` supports the dataset; that of ``flava`` needs masks."""
    return uses_targets(model) or getattr(dataset, "HAS_LOSSES", True)
