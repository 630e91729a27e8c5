"""Output files of a run: metrics, evaluation, examples, predictions, report."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmf_flava import __version__
from mmf_flava.compat import mmf_api
from mmf_flava.config.run import AttentionMapsConfig, ExamplesConfig
from mmf_flava.config.secrets import to_public_yaml
from mmf_flava.data.quarantine import format_counts
from mmf_flava.evaluation.attention_maps import write_attention_maps
from mmf_flava.evaluation.examples import ExampleWriter
from mmf_flava.evaluation.forward_pass import evaluation_mode
from mmf_flava.evaluation.split_result import SplitResult
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.files import atomic
from mmf_flava.report import write_report

# names and glob patterns of the files and folders that a run writes; the checkpoints, from which it resumes, are first
RUN_FILES = (
    "checkpoints",
    "metrics.jsonl",
    "evaluation*.json",
    "summary.json",
    "examples",
    "report.html",
    "quarantine*.jsonl",
    "skipped*.jsonl",
)


class Results:
    """Writes the output files of a run, except checkpoints, to the run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_losses: dict[str, float] = {}
        self.last_losses: dict[str, float] = {}
        self.summary: dict[str, Any] = {}

    def move_previous_run(self) -> None:
        """Move the files of an earlier run to ``previous/<n>/``, so that a new run does not overwrite them.

        If the process is killed meanwhile, the next call moves the remaining files to the same folder.
        """
        moving = self.folder / "previous" / ".moving"
        existing = [path for pattern in RUN_FILES for path in sorted(self.folder.glob(pattern))]
        if any((moving / path.name).exists() for path in existing):  # files of two runs
            self._number_previous_run(moving)
        if existing:
            moving.mkdir(parents=True, exist_ok=True)
            for path in existing:
                os.replace(path, moving / path.name)
        if moving.is_dir():
            self._number_previous_run(moving)

    def _number_previous_run(self, moved: Path) -> None:
        target = next(p for n in itertools.count(1) if not (p := moved.with_name(str(n))).exists())
        os.replace(moved, target)
        message = f"Training starts at update 0. The files of the earlier run in this folder are now in {target}."
        if (target / "checkpoints" / "latest").exists():
            message += f" To continue that run instead, set checkpoint.resume=true and env.save_dir={target}."
        mmf_api.log(message)

    def write_config(self, config: Any) -> None:
        """Write ``config.yaml``: the complete config, including command line overrides, without credentials.

        Interpolations are not resolved.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self.folder / "config.yaml", to_public_yaml(config))

    def record_losses(self, losses: dict[str, float]) -> None:
        """Update the first and last values of the losses, which ``write_summary`` writes to ``summary.json``."""
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
        """Write ``summary.json``: model, data, device and duration of the training.

        Args:
            parameters: number of trainable parameters.
            seconds: training time in seconds.
            batches_per_update: ``training.update_frequency``.
            more: additional entries of the file.
        """
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

    def write_evaluation(
        self, split: str, update: int, result: SplitResult, task: str | None, is_last: bool = True
    ) -> None:
        """Write ``evaluation.json``, the metrics of the final model.

        Args:
            task: name of the model's task in the results table of the FLAVA paper, or None.
            is_last: false for other splits than the last one of the run; their file is ``evaluation_SPLIT.json``.
        """
        evaluation = {"task": task, "split": split, "update": update, **result.scores(), **result.sample_counts}
        if result.zero_shot is not None:
            evaluation["zero_shot"] = result.zero_shot.summary()
        if result.retrieval is not None:
            evaluation["retrieval"] = result.retrieval
        if result.linear_probe is not None:
            evaluation["linear_probe"] = result.linear_probe.summary()
        if result.knn is not None:
            evaluation["knn"] = result.knn.summary()
        self._write("evaluation.json" if is_last else f"evaluation_{split}.json", evaluation)

    def write_examples(self, model: Any, suite: EvaluationSuite, config: ExamplesConfig, silent: bool = False) -> None:
        """Write ``examples/``: the model's predictions at masked positions of the first test batch of each dataset.

        Args:
            silent: run the model without writing files. With sharded weights, all processes must run the model.
        """
        writer = ExampleWriter(None if silent else self.folder / "examples", config)
        with evaluation_mode(model):
            for dataset in suite.datasets["test"].values():
                tokenizer = getattr(getattr(dataset, "text_processor", None), "tokenizer", None)
                batch = suite.rounds.first_batch(dataset)
                if batch is not None:  # None: all records are bad
                    writer.add(model, batch.to(suite.device), tokenizer)
        writer.write()

    def write_attention_maps(
        self, model: Any, suite: EvaluationSuite, config: AttentionMapsConfig, silent: bool = False
    ) -> None:
        """Write ``examples/attention.json``: the attention of [CLS] in a few test images.

        Args:
            silent: see ``write_examples``.
        """
        dataset = suite.datasets["test"].get(config.dataset)
        if dataset is not None:
            folder = None if silent else self.folder / "examples"
            with evaluation_mode(model):
                write_attention_maps(folder, model, dataset, config, suite.device)

    def write_zero_shot_predictions(self, split: str, rows: list[dict[str, Any]]) -> Path:
        """Write ``reports/zero_shot_<split>.json``, one record per image, and return the file's path."""
        (self.folder / "reports").mkdir(parents=True, exist_ok=True)
        return self._write(f"reports/zero_shot_{split}.json", rows)

    def summary_lines(self, results: Mapping[str, SplitResult]) -> list[str]:
        """Write the report, and return the final log messages of a run: training, results, path of the report.

        Args:
            results: split -> results on it.
        """
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
                counts = format_counts(reasons)
                lines.append(f"Bad records of {name}: {counts} (quarantine.jsonl).")
        for split, result in results.items():
            lines += _result_lines(split, result)
        if (self.folder / "metrics.jsonl").is_file():
            lines.append(f"Report: {write_report([self.folder])}")
        return lines

    def _write(self, name: str, content: Any) -> Path:
        """Write a JSON file atomically and return its path."""
        atomic.write_json(self.folder / name, content)
        return self.folder / name


def _result_lines(split: str, result: SplitResult) -> list[str]:
    """Return log messages with the results on a split."""
    lines = []
    if result.metrics:
        lines.append(
            f"Metrics ({split} split): {', '.join(f'{name} {value:.4f}' for name, value in result.metrics.items())}."
        )
    if (zero_shot := result.zero_shot) is not None:
        name = "Prompt classification" if zero_shot.captions_have_classes else "Zero-shot"
        note = " The training captions contain the class names." if zero_shot.captions_have_classes else ""
        lines.append(
            f"{name} accuracy {zero_shot.accuracy:.4f} on {len(zero_shot.targets)} held-out images "
            f"({split} split, chance {1 / len(zero_shot.classes):.2f}).{note}"
        )
    if result.retrieval is not None:
        lines += _recall_lines(result.retrieval)
    if result.refused is not None:
        lines.append(result.refused)
    if (probe := result.linear_probe) is not None:
        lines.append(
            f"Linear probe accuracy {probe.accuracy:.4f}, mean per class {probe.mean_per_class:.4f}, on "
            f"{len(probe.targets)} images ({split} split, lambda {probe.penalty:.3g}, fitted to "
            f"{probe.samples['fitted']} images)."
        )
    if (neighbours := result.knn) is not None:
        lines.append(
            f"{neighbours.k}-NN accuracy {neighbours.accuracy:.4f}{neighbours.remark} on {len(neighbours.targets)} "
            f"images ({split} split, neighbours among {neighbours.train} images, temperature "
            f"{neighbours.temperature:g})."
        )
    lines += [
        f"The scores are computed on {count} samples of {name} ({split} split): {count.bad:,} records are bad "
        f"(quarantine.jsonl)."
        for name, count in result.samples.items()
    ]
    return lines


def _recall_lines(recall: dict[str, float]) -> list[str]:
    """Return log messages with recall@k for the smallest k, also after re-ranking if the evaluation re-ranks."""
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
