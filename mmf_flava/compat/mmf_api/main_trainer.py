"""``FinetuningBase`` for the trainer of MMF's main branch. ``mmf_api.trainer`` documents the interface."""

from typing import Any

from mmf.common.meter import Meter
from mmf.trainers.mmf_trainer import MMFTrainer

MMF_TRAINER = "mmf"


class FinetuningBase(MMFTrainer):
    """Base class of the finetuning trainer, see ``mmf_api.trainer``."""

    def load(self) -> None:
        self.meter = Meter()  # MMF's meter is a class attribute, which would keep the values of earlier runs
        self.training_ended = False
        super().load()
        self.trained = self.num_updates

    def dataset(self, split: str) -> Any:
        (module,) = self.dataset_loader.datamodules.values()
        return getattr(module, f"{split}_dataset")

    def on_logged(self, meter: Any, update: int) -> None:
        pass

    def evaluate_split(self, split: str) -> Any:
        self.on_test_start()
        report, meter = self.evaluation_loop(split, use_tqdm=True)
        self.on_test_end(report=report, meter=meter)
        return meter

    def predict_split(self, split: str) -> None:
        self.on_prediction_start()
        self.prediction_loop(split)
        self.on_prediction_end()

    def on_update_end(self, **kwargs: Any) -> None:
        self.trained = self.num_updates
        super().on_update_end(**kwargs)
        if kwargs["should_log"]:
            self.on_logged(kwargs["meter"], self.num_updates)

    def after_training_loop(self) -> None:
        self.training_ended = True
        super().after_training_loop()

    def on_validation_end(self, **kwargs: Any) -> None:
        if self.training_ended:  # MMF calls the early-stopping callback only in its training loop
            self.early_stop_callback.on_validation_end(**kwargs)
        super().on_validation_end(**kwargs)
        self.on_logged(kwargs["meter"], self.num_updates)
