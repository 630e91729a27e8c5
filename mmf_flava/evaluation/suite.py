"""Everything that a recipe's ``evaluation`` section asks for, on one split."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mmf_flava.config.run import EvaluationConfig, LinearProbeConfig
from mmf_flava.data.sampling import evaluation_loader
from mmf_flava.evaluation import linear_probe, prompts, retrieval, zero_shot
from mmf_flava.evaluation.features import Extraction
from mmf_flava.evaluation.linear_probe import Labelled, LinearProbeResult
from mmf_flava.evaluation.zero_shot import ZeroShotResult
from mmf_flava.ranks import gather_objects, rank, world_size


@dataclass
class SplitResult:
    """losses: mean of each loss over the split; the rest is None where the recipe does not ask for it."""

    losses: dict[str, float] = field(default_factory=dict)
    zero_shot: ZeroShotResult | None = None
    retrieval: dict[str, float] | None = None
    linear_probe: LinearProbeResult | None = None

    def figures(self) -> dict[str, Any]:
        """The few numbers that a line of ``metrics.jsonl`` holds."""
        figures: dict[str, Any] = {"losses": self.losses}
        if self.zero_shot is not None:
            figures["zero_shot"] = {"accuracy": self.zero_shot.accuracy, "count": len(self.zero_shot.targets)}
        if self.retrieval is not None:
            figures["retrieval"] = self.retrieval
        return figures

    def sentence(self) -> str:
        """The same in words, for the log."""
        parts = [f"{name} {value:.3f}" for name, value in self.losses.items()]
        if self.zero_shot is not None:
            parts.append(f"zero-shot accuracy {self.zero_shot.accuracy:.3f} on {len(self.zero_shot.targets)} images")
        if self.retrieval is not None:
            parts += [f"{key} {value:.3f}" for key, value in self.retrieval.items() if key.endswith("_r1")]
        return ", ".join(parts)


class EvaluationSuite:
    """Evaluates a model on the splits of a run's datasets.

    Args:
        datasets: split name -> dataset name -> dataset; "probe" are training images as evaluation sees them.
        shared: all processes evaluate, and each takes a share; else each that evaluates does all by itself.
        note: is shown every batch before the model is.

    Raises:
        UserError: a section of the recipe that cannot be run, named at once rather than after training.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        datasets: dict[str, dict[str, Any]],
        batch_size: int,
        num_workers: int,
        device: torch.device,
        shared: bool = False,
        note: Callable[[Any], None] = lambda batch: None,
    ) -> None:
        self.datasets, self.device, self.note = datasets, device, note
        # vectors of a model that is being trained would be of no use later
        folder = Path(config.features_dir).expanduser() if shared and config.features_dir else None
        self.extraction = Extraction(batch_size, num_workers, device, shared, folder, note)
        names = sorted({name for split in datasets.values() for name in split})
        if config.zero_shot is not None:
            section = prompts.fill(config.zero_shot, datasets)
            zero_shot.check(section, names)
            config = replace(config, zero_shot=section)
        if config.retrieval is not None:
            retrieval.check(config.retrieval, names)
        if config.linear_probe is not None:
            linear_probe.check(config.linear_probe, names)
        self.config = config

    def run(self, model: Any, split: str) -> SplitResult:
        """What the recipe asks for on ``split``; the model is left in training mode as found.

        A linear probe is for models that are trained: there is none of ``val`` while training goes on.
        """
        training = model.training
        model.eval()
        datasets = self.datasets[split]
        result = SplitResult(losses=self._losses(model, split) if self.config.losses else {})
        if (section := self.config.zero_shot) is not None and section.dataset in datasets:
            result.zero_shot = zero_shot.classify(model, datasets[section.dataset], section, self.extraction)
        if (recall := self.config.retrieval) is not None and recall.dataset in datasets:
            result.retrieval = retrieval.retrieve(model, datasets[recall.dataset], recall, self.extraction)
        probed = split == "test" or self.extraction.shared
        if probed and (probe := self.config.linear_probe) is not None and probe.dataset in datasets:
            result.linear_probe = self._probe(model, split, probe)
        model.train(training)
        return result

    def _probe(self, model: Any, split: str, config: LinearProbeConfig) -> LinearProbeResult | None:
        """Vectors are all processes' work, the classifier is the first one's; the others need not wait for it."""
        wanted = [self.datasets[name].get(config.dataset) for name in ("probe", "val", split)]
        found = [None if data is None else self.extraction.whole(model, data, "encoder") for data in wanted]
        if rank() > 0:
            return None
        train, val, test = (None if one is None else Labelled(one.vectors, one.targets) for one in found)
        assert train is not None and test is not None
        # many recipes list the same images for val and test
        if found[1] is not None and found[2] is not None and found[1].ids == found[2].ids:
            val = None
        return linear_probe.probe(train, val, test, config, self.device)

    @torch.no_grad()
    def _losses(self, model: Any, split: str) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        for name, dataset in self.datasets[split].items():
            if not getattr(dataset, "HAS_LOSSES", True):
                continue
            for batch in self.batches(split, name, self.extraction.shared):
                size = len(batch["sample_id"])
                for key, value in model(batch.to(self.device))["losses"].items():
                    loss = key.rpartition("/")[2]
                    sums[loss] += value.item() * size
                    counts[loss] += size
        if self.extraction.shared:
            parts = gather_objects((dict(sums), dict(counts)))
            sums = {loss: sum(part.get(loss, 0.0) for part, _ in parts) for part, _ in parts for loss in part}
            counts = {loss: sum(part.get(loss, 0) for _, part in parts) for _, part in parts for loss in part}
        return {loss: sums[loss] / counts[loss] for loss in sums}

    def batches(self, split: str, name: str, shared: bool = False) -> Iterator[Any]:
        """Batches of one dataset of a split, each sample once, in order; ``shared``: this process's share of them."""
        dataset, size = self.datasets[split][name], self.extraction.batch_size
        spans = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
        if shared:
            spans = spans[rank() :: world_size()]
        for batch in evaluation_loader(dataset, size, self.extraction.num_workers, spans):
            self.note(batch)
            yield batch
