"""``training.trainer: flava_finetune``: MMF's trainer, extended to write metrics and a report to the run folder."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from mmf.common.registry import registry
from mmf.utils.distributed import is_master

from mmf_flava.compat import mmf_api
from mmf_flava.compat.mmf_api.trainer import FinetuningBase
from mmf_flava.compat.process_recipes import meet_before_training
from mmf_flava.config.flava_trainers import check_finetuning
from mmf_flava.config.run import TrainingConfig
from mmf_flava.config.schema import parse_section
from mmf_flava.data.initial_processors import initial_processors
from mmf_flava.data.processor_files import write_processors
from mmf_flava.data.quarantine import count_by_reason, format_counts
from mmf_flava.data.run_quarantine import run_quarantine
from mmf_flava.data.saved_processors import SavedProcessors, class_names
from mmf_flava.evaluation.split_metrics import SplitMetrics
from mmf_flava.processes import gather_objects
from mmf_flava.report import write_report
from mmf_flava.report.values import read_json_lines
from mmf_flava.training.device import NUMERICS, set_numerics
from mmf_flava.training.results import Results


@registry.register_trainer("flava_finetune")
class FlavaFinetune(FinetuningBase):
    """MMF's trainer with additional output files. Optimizer, schedule, early stopping and checkpoints are MMF's.

    Output files in ``env.save_dir``: ``metrics.jsonl`` with one record per log interval and validation; at the end of
    the run, ``evaluation.json`` with the metrics of the best weights on the splits of ``run_type``, ``summary.json``
    and the report. ``quarantine.jsonl`` lists the bad records, which training replaces and evaluations leave out.
    """

    def load(self) -> None:
        """Validate the config, then build datasets, model and optimizer with MMF.

        Raises:
            UserError: the config has a key or a combination of keys that this trainer does not support.
        """
        self.precision = check_finetuning(self.config, mmf_api.defaults())
        meet_before_training()
        numerics = _numerics(self.config)
        super().load()
        set_numerics(numerics, self.device)
        if self.precision == "bf16":
            # MMF disables autocast on CUDA around forward unless fp16 is set, so autocast is enabled inside forward
            self.model.forward = torch.autocast(self.device.type, torch.bfloat16)(self.model.forward)
        self.results = Results(Path(mmf_api.save_dir()))
        if is_master() and "train" in self.run_type and not self.config.checkpoint.resume:
            self.results.move_previous_run()
        if is_master() and "train" in self.run_type:
            self._write_processors()
        self.last_time, self.last_update = time.perf_counter(), self.num_updates
        written = read_json_lines(self.results.folder / "metrics.jsonl")
        self.started = self.last_time - max((float(record.get("time", 0)) for record in written), default=0.0)

    def _write_processors(self) -> None:
        """Write the image and text processors to the folders in which MMF saves checkpoints."""
        datasets = [data for split in ("train", "val", "test") if (data := self.dataset(split)) is not None]
        num_labels = getattr(getattr(self.model, "settings", None), "num_labels", None)
        classes = next((names for data in datasets if (names := class_names(data))), None)
        own = SavedProcessors.of_datasets(datasets, classes if len(classes or ()) == num_labels else None)
        processors = own.completed_by(initial_processors(in_run=True).saved)
        for folder in (self.results.folder, self.results.folder / "models"):
            folder.mkdir(parents=True, exist_ok=True)
            write_processors(processors, folder)

    def load_metrics(self) -> None:
        """Build MMF's metrics so that they are computed over complete splits, for any number of processes."""
        datasets = {split: self.dataset(split) for split in ("val", "test")}
        sizes = {split: len(dataset) for split, dataset in datasets.items() if dataset is not None}
        self.metrics = SplitMetrics(self.config.evaluation.get("metrics", []), sizes)
        self.metrics_params = self.metrics.required_params

    def on_logged(self, meter: Any, update: int) -> None:
        if is_master():
            self._write_record(meter, update)

    def _write_record(self, meter: Any, update: int) -> None:
        """Append the logged values to ``metrics.jsonl``.

        ``update`` is an argument because early stopping may already have reset ``num_updates``.
        """
        (split,) = {key.partition("/")[0] for key in meter.meters}
        now = time.perf_counter()
        record: dict[str, Any] = {"update": update, "split": split, "time": round(now - self.started, 2)}
        if split == "train":
            record["lr"] = self.optimizer.param_groups[0]["lr"]
            samples = (update - self.last_update) * self.config.training.batch_size * self._batches_per_update()
            record["samples_per_second"] = round(samples / (now - self.last_time), 1)
            self.last_update = update
        else:
            record |= self._sample_counts(split)[1]
        record |= self._metric_values(meter, latest=split == "train")
        if split == "train":
            self.results.record_losses(record["losses"])
        with open(self.results.folder / "metrics.jsonl", "a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
        self.last_time = time.perf_counter()

    def _sample_counts(self, split: str) -> tuple[str, dict[str, Any]]:
        """Return the number of samples in the metrics of a split, for the log and for JSON files.

        Both are empty if no sample was left out.
        """
        evaluated, total = self.metrics.sample_counts.get(split, (0, 0))
        if evaluated == total:
            return "", {}
        counts = {"evaluated": evaluated, "bad": total - evaluated}
        return f" on {evaluated:,} of {total:,} samples", {"samples": {self.config.datasets: counts}}

    def _batches_per_update(self) -> int:
        return self.config.training.get("update_frequency", 1)

    def _metric_values(self, meter: Any, latest: bool = False) -> dict[str, dict[str, float]]:
        """Convert an MMF meter to ``{"losses": {"cross_entropy": ...}, "metrics": {"accuracy": ...}}``."""
        values: dict[str, dict[str, float]] = {"losses": {}, "metrics": {}}
        for key, value in meter.meters.items():
            name = key.rpartition("/")[2]
            kind = "metrics" if name in self.metrics.metrics else "losses"
            values[kind][name] = float(value.get_latest() if latest else value.global_avg)
        values["losses"].pop("total_loss", None)
        return values

    def inference(self) -> None:
        """Evaluate or predict on the splits that ``run_type`` selects. MMF also calls this method after training."""
        for split, names in {"val": ("val",), "test": ("test", "inference", "predict")}.items():
            if any(name in self.run_type for name in names):
                self._infer(split)

    def _infer(self, split: str) -> None:
        if self.config.evaluation.predict:
            self.predict_split(split)
            return
        if not _has_labels(self.dataset(split)):
            mmf_api.log(f"The {split} split has no labels and is not evaluated. Run mmf_predict to predict its labels.")
            return
        mmf_api.log(f"Evaluating on the {split} split")
        meter = self.evaluate_split(split)
        gathered = gather_objects(run_quarantine().bad_records)
        if is_master():
            bad_records = {key: reason for part in gathered for key, reason in part.items()}
            self._write_results(split, self._metric_values(meter), count_by_reason(bad_records))

    def _write_results(
        self, split: str, values: dict[str, dict[str, float]], bad_records: dict[str, dict[str, int]]
    ) -> None:
        task, (text, counts) = self.config.evaluation.get("task"), self._sample_counts(split)
        self.results.write_finetuning_evaluation(task, split, self.num_updates, {**values, **counts})
        if "train" in self.run_type:
            parameters = sum(parameter.numel() for parameter in self.model.parameters())
            seconds = time.perf_counter() - self.started
            self.results.write_summary(
                self.config,
                parameters,
                self.trained,
                seconds,
                self.device,
                self.precision,
                self._batches_per_update(),
                bad_records=bad_records,
            )
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in values["metrics"].items())
        mmf_api.log(f"{task or self.config.datasets}, {split} split: {metrics}{text}.")
        for name, reasons in bad_records.items():
            mmf_api.log(f"Bad records of {name}: {format_counts(reasons)} (quarantine.jsonl).")
        if (self.results.folder / "metrics.jsonl").is_file():
            mmf_api.log(f"Report: {write_report([self.results.folder])}")


def _numerics(config: Any) -> TrainingConfig:
    """Parse the keys of ``training`` that ``set_numerics`` uses."""
    section = {key: value for key, value in config.training.items() if key in NUMERICS}
    return parse_section(TrainingConfig, section, "training")


def _has_labels(dataset: Any) -> bool:
    """Return whether the samples of a split have labels; the label -1 marks a sample without a label."""
    targets = dataset[0].get("targets")
    return targets is not None and not (targets.dim() == 0 and int(targets) == -1)
