"""``training.trainer: flava_finetune``: MMF's own trainer, which leaves figures and a report in the run's folder."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from mmf.common.registry import registry
from mmf.utils.distributed import is_master

from mmf_flava.compat import mmf_api
from mmf_flava.compat.mmf_api.trainer import MMF_TRAINER, FinetuningBase
from mmf_flava.config.schema import check_keys, one_of, plain
from mmf_flava.errors import UserError
from mmf_flava.evaluation.split_metrics import SplitMetrics
from mmf_flava.report import write_report
from mmf_flava.report.values import read_json_lines
from mmf_flava.training.results import Results


@registry.register_trainer("flava_finetune")
class FlavaFinetune(FinetuningBase):
    """Optimizer, schedule, metrics, early stopping, checkpoints and prediction are MMF's.

    Into ``env.save_dir`` go ``metrics.jsonl``, a line per log interval and per validation; at the end
    ``evaluation.json``, the figures of the best weights on the splits that ``run_type`` names; ``summary.json``; and
    the report.
    """

    def load(self) -> None:
        """Checks the recipe, then builds everything as MMF does.

        Raises:
            UserError: a key that neither MMF's trainer nor this one knows, or several datasets.
        """
        self.precision = _check(self.config)
        super().load()
        if self.precision == "bf16":
            # outside MMF's own context, which on CUDA would turn this one off
            self.model.forward = torch.autocast(self.device.type, torch.bfloat16)(self.model.forward)
        self.results = Results(Path(mmf_api.save_dir()))
        if is_master() and "train" in self.run_type and not self.config.checkpoint.resume:
            self.results.set_aside()
        self.last_time, self.last_update = time.perf_counter(), self.num_updates
        written = read_json_lines(self.results.folder / "metrics.jsonl")
        self.began = self.last_time - max((float(line.get("time", 0)) for line in written), default=0.0)

    def load_metrics(self) -> None:
        """Metrics of whole splits, whatever the number of processes."""
        datasets = {split: self.dataset(split) for split in ("val", "test")}
        sizes = {split: len(dataset) for split, dataset in datasets.items() if dataset is not None}
        self.metrics = SplitMetrics(self.config.evaluation.get("metrics", []), sizes)
        self.metrics_params = self.metrics.required_params

    def on_logged(self, meter: Any, update: int) -> None:
        if is_master():
            self._write_line(meter, update)

    def _write_line(self, meter: Any, update: int) -> None:
        """Appends what was just logged to ``metrics.jsonl``; early stopping has set ``num_updates`` back by then."""
        (split,) = {key.partition("/")[0] for key in meter.meters}
        now = time.perf_counter()
        line: dict[str, Any] = {"update": update, "split": split, "time": round(now - self.began, 2)}
        if split == "train":
            line["lr"] = self.optimizer.param_groups[0]["lr"]
            samples = (update - self.last_update) * self.config.training.batch_size * self._batches_per_update()
            line["samples_per_second"] = round(samples / (now - self.last_time), 1)
            self.last_update = update
        line |= self._figures(meter, latest=split == "train")
        if split == "train":
            self.results.note_losses(line["losses"])
        with open(self.results.folder / "metrics.jsonl", "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")
        self.last_time = time.perf_counter()

    def _batches_per_update(self) -> int:
        return self.config.training.get("update_frequency", 1)

    def _figures(self, meter: Any, latest: bool = False) -> dict[str, dict[str, float]]:
        """``{"losses": {"cross_entropy": ...}, "metrics": {"accuracy": ...}}`` of one meter of MMF's."""
        figures: dict[str, dict[str, float]] = {"losses": {}, "metrics": {}}
        for key, value in meter.meters.items():
            name = key.rpartition("/")[2]
            kind = "metrics" if name in self.metrics.metrics else "losses"
            figures[kind][name] = float(value.get_latest() if latest else value.global_avg)
        figures["losses"].pop("total_loss", None)
        return figures

    def inference(self) -> None:
        """Evaluates or predicts, after training or instead of it, the splits that ``run_type`` names."""
        for split, names in {"val": ("val",), "test": ("test", "inference", "predict")}.items():
            if any(name in self.run_type for name in names):
                self._infer(split)

    def _infer(self, split: str) -> None:
        if self.config.evaluation.predict:
            self.predict_split(split)
            return
        if not _labelled(self.dataset(split)):
            mmf_api.log(f"The {split} split has no labels to evaluate with; mmf_predict writes its answers.")
            return
        mmf_api.log(f"Evaluating on the {split} split")
        meter = self.evaluate_split(split)
        if is_master():
            self._write_results(split, self._figures(meter))

    def _write_results(self, split: str, figures: dict[str, dict[str, float]]) -> None:
        task = self.config.evaluation.get("task")
        self.results.write_finetuned(task, split, self.num_updates, figures)
        if "train" in self.run_type:
            parameters = sum(parameter.numel() for parameter in self.model.parameters())
            seconds = time.perf_counter() - self.began
            self.results.write_summary(
                self.config, parameters, self.trained, seconds, self.device, self.precision, self._batches_per_update()
            )
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in figures["metrics"].items())
        mmf_api.log(f"{task or self.config.datasets}, {split} split: {metrics}.")
        if (self.results.folder / "metrics.jsonl").is_file():
            mmf_api.log(f"Report: {write_report([self.results.folder])}")


def _labelled(dataset: Any) -> bool:
    """Whether a split can be evaluated; a class of -1 is none."""
    targets = dataset[0].get("targets")
    return targets is not None and not (targets.dim() == 0 and int(targets) == -1)


def _check(config: Any) -> str:
    """Refuses what this trainer does not do; returns the precision."""
    # max_grad_l2_norm is read by MMF, but not in its defaults
    own = {"training": {"precision", "max_grad_l2_norm"}, "checkpoint": set(), "evaluation": {"task"}}
    for section, keys in own.items():
        check_keys(config[section], mmf_api.default_keys(section) | keys, section)
    if "," in config.datasets:
        raise UserError(
            f"training.trainer: flava_finetune takes one dataset, not {config.datasets}: MMF would put the figures of "
            f"all of them under the name of one. Name one, or choose training.trainer: {MMF_TRAINER}."
        )
    steps = plain(config.scheduler.get("params") or {})
    if config.training.max_updates is None and steps.get("num_training_steps", 0) is None:
        raise UserError(
            "training.max_updates is null, and the learning rate follows it: give the number of updates that "
            "training.max_epochs comes to (samples / training.batch_size for each)."
        )
    precision = one_of(config.training.get("precision", "fp32"), ("fp32", "bf16"), "training.precision")
    if not config.training.get("fp16"):  # the main branch's own, with its loss scale
        return precision
    if precision == "bf16":
        raise UserError("training.fp16 and training.precision: bf16 exclude each other: take one of them out.")
    return "fp16"
