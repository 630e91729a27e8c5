"""``FinetuningBase`` for the trainer of MMF 1.0.0rc10. ``mmf_api.trainer`` documents the interface."""

from typing import Any

from mmf.trainers.base_trainer import BaseTrainer

MMF_TRAINER = "base_trainer"


class FinetuningBase(BaseTrainer):
    """Base class of the finetuning trainer, see ``mmf_api.trainer``."""

    def load(self) -> None:
        super().load()
        self.trained = self.num_updates

    def dataset(self, split: str) -> Any:
        datasets = getattr(self, f"{split}_dataset").datasets
        return datasets[0] if datasets else None

    def on_logged(self, meter: Any, update: int) -> None:
        pass

    def evaluate_split(self, split: str) -> Any:
        _, meter = self.evaluate(getattr(self, f"{split}_loader"), use_tqdm=True)
        self._summarize_report(meter)
        return meter

    def predict_split(self, split: str) -> None:
        self.predict(split)

    def _logistics(self, report: Any) -> bool:
        # without this condition, MMF's loop runs one update more than max_updates
        self.trained = self.num_updates
        return super()._logistics(report) or self.num_updates >= self.max_updates

    def _summarize_report(self, meter: Any, should_print: bool = True, extra: dict[str, Any] | None = None) -> None:
        super()._summarize_report(meter, should_print, extra)
        if should_print and extra is not None:  # None in the evaluation of a split after training
            self.on_logged(meter, extra["num_updates"])
