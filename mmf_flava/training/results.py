"""The files that a run leaves in its folder: metrics, evaluation, examples, predictions, report."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mmf_flava import __version__
from mmf_flava.config.run import ExamplesConfig
from mmf_flava.data.quarantine import sentence
from mmf_flava.evaluation.examples import ExampleWriter
from mmf_flava.evaluation.suite import EvaluationSuite, SplitResult
from mmf_flava.report import write_report

# what an earlier run may have left here
OWN = (
    "metrics.jsonl",
    "checkpoints",
    "evaluation.json",
    "summary.json",
    "examples",
    "report.html",
    "quarantine*.jsonl",
    "skipped*.jsonl",
)


class Results:
    """The run's folder without its checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_losses: dict[str, float] = {}
        self.last_losses: dict[str, float] = {}
        self.summary: dict[str, Any] = {}

    def set_aside(self) -> None:
        """Moves an earlier run's metrics and checkpoints to ``previous/``: starting anew must not cost them."""
        previous = self.folder / "previous"
        found = [path for name in OWN for path in sorted(self.folder.glob(name))]
        if not found:
            return
        place = next(p for n in itertools.count(1) if not (p := previous / str(n)).exists())
        place.mkdir(parents=True)
        for path in found:
            os.replace(path, place / path.name)

    def write_config(self, config: Any) -> None:
        """Writes ``config.yaml``: the whole recipe as it was run, the command line included."""
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, self.folder / "config.yaml", resolve=True)

    def note_losses(self, losses: dict[str, float]) -> None:
        """Keeps each loss's first and last value."""
        self.first_losses = {**losses, **self.first_losses}
        self.last_losses.update(losses)

    def write_summary(
        self,
        config: Any,
        parameters: int,
        updates: int,
        seconds: float,
        device: Any,
        precision: str,
        batches_per_update: int = 1,
        **more: Any,
    ) -> None:
        """Writes ``summary.json``: what was trained, on what, how long."""
        batch_size = config.training.batch_size
        self.summary = {
            "model": config.model,
            "parameters": parameters,
            "updates": updates,
            "seconds": round(seconds, 1),
            "samples": updates * batch_size * batches_per_update,
            "batch_size": batch_size,
            "datasets": config.datasets.split(","),
            "device": str(device),
            "precision": precision,
            "version": __version__,
            **more,
            "first_losses": self.first_losses,
            "last_losses": self.last_losses,
        }
        self._write("summary.json", self.summary)

    def write_evaluation(self, split: str, update: int, result: SplitResult, task: str | None) -> None:
        """Writes ``evaluation.json``: the figures of a finished model; ``task``: their row in the paper's table."""
        evaluation: dict[str, Any] = {"task": task, "split": split, "update": update, "losses": result.losses}
        if result.zero_shot is not None:
            evaluation["zero_shot"] = result.zero_shot.summary()
        if result.retrieval is not None:
            evaluation["retrieval"] = result.retrieval
        if result.linear_probe is not None:
            evaluation["linear_probe"] = result.linear_probe.summary()
        self._write("evaluation.json", evaluation)

    def write_finetuned(self, task: str | None, split: str, updates: int, figures: dict[str, dict[str, float]]) -> None:
        """Writes ``evaluation.json`` of a finetuned model: ``figures`` are its losses and metrics."""
        self._write("evaluation.json", {"task": task, "split": split, "updates": updates, **figures})

    def write_examples(self, model: Any, suite: EvaluationSuite, config: ExamplesConfig, silent: bool = False) -> None:
        """Writes ``examples/``: the first test batch of each dataset, filled in by the model; silent: calls it only."""
        writer = ExampleWriter(None if silent else self.folder / "examples", config)
        for name, dataset in suite.datasets["test"].items():
            tokenizer = getattr(getattr(dataset, "text_processor", None), "tokenizer", None)
            writer.add(model, next(iter(suite.batches("test", name))).to(suite.device), tokenizer)
        writer.write()

    def write_predictions(self, split: str, rows: list[dict[str, Any]]) -> Path:
        """Writes ``reports/zero_shot_<split>.json``, one row per image, and returns its path."""
        (self.folder / "reports").mkdir(parents=True, exist_ok=True)
        return self._write(f"reports/zero_shot_{split}.json", rows)

    def closing_lines(self, split: str, result: SplitResult) -> list[str]:
        """What was trained, how long, how good, and where to look: the last lines of a run."""
        lines = []
        if self.summary:
            s = self.summary
            lines.append(
                f"Trained {s['model']} ({s['parameters'] / 1e6:.1f} M parameters) on {', '.join(s['datasets'])}: "
                f"{s['updates']} updates, {s['samples']:,} samples, {s['seconds'] / 60:.1f} minutes."
            )
            changes = ", ".join(
                f"{name.removeprefix('flava_')} {first:.2f} -> {self.last_losses.get(name, first):.2f}"
                for name, first in sorted(self.first_losses.items())
            )
            lines.append(f"Losses, first to last: {changes}.")
            for name, reasons in s["bad_records"].items():
                lines.append(f"Bad records of {name}, replaced by others: {sentence(reasons)}; see quarantine.jsonl.")
        if (zero_shot := result.zero_shot) is not None:
            lines.append(
                f"Zero-shot accuracy {zero_shot.accuracy:.4f} on {len(zero_shot.targets)} held-out images "
                f"({split} split, chance {1 / len(zero_shot.classes):.2f})."
            )
        if result.retrieval is not None:
            lines += _recall_lines(result.retrieval)
        if (probe := result.linear_probe) is not None:
            lines.append(
                f"Linear probe accuracy {probe.accuracy:.4f}, mean per class {probe.mean_per_class:.4f}, on "
                f"{len(probe.targets)} images ({split} split, lambda {probe.penalty:.3g}, learnt from "
                f"{probe.samples['fitted']} images)."
            )
        if (self.folder / "metrics.jsonl").is_file():
            lines.append(f"Report: {write_report([self.folder])}")
        return lines

    def _write(self, name: str, content: Any) -> Path:
        """Writes JSON under a temporary name and renames it into place."""
        path = self.folder / name
        temporary = path.with_name(f".{path.name}.writing")
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(temporary, path)
        return path


def _recall_lines(recall: dict[str, float]) -> list[str]:
    """Recall at the least depth, and that after the matching head's order where there is one."""
    depth = min(int(name.rpartition("_r")[2]) for name in recall if name.startswith("image_to_text_r"))
    both = "image -> text {:.4f}, text -> image {:.4f}"
    values = {
        kind: both.format(*(recall[f"{kind}{name}_r{depth}"] for name in ("image_to_text", "text_to_image")))
        for kind in ("", "reranked_")
        if f"{kind}image_to_text_r{depth}" in recall
    }
    lines = [f"Recall@{depth} {values['']} ({recall['images']} images, {recall['captions']} captions)."]
    if "reranked_" in values:
        lines.append(f"Re-ranked by image-text matching: recall@{depth} {values['reranked_']}.")
    return lines
