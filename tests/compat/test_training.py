"""The training loops of MMF's two lines, mended for any model."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from mmf.trainers import base_trainer
from mmf.utils.early_stopping import EarlyStopping

from mmf_flava.errors import UserError
from tests.compat.loaders import Numbers, Stream, loader
from tests.lines import LINE, needs_main, needs_rc10

pytestmark = pytest.mark.usefixtures("global_config")

if LINE == "main":
    from mmf.common.report import Report
    from mmf.trainers.core.training_loop import TrainerTrainingLoopMixin
    from mmf.trainers.mmf_trainer import MMFTrainer
else:
    from mmf.datasets.multi_dataset_loader import MultiDatasetLoader


@needs_rc10
def test_every_pass_over_several_datasets_is_complete():
    loader = MultiDatasetLoader("train")
    loader._loaders, loader._datasets, loader._num_datasets = [["a", "b"], ["c"]], ["first", "second"], 2
    loader._dataset_probabilities, loader._proportional_sampling = [0.5, 0.5], True
    loader.current_index = 0
    for _ in range(3):
        seen = []
        for batch in loader:
            seen.append(batch)
            loader.change_dataloader()
        assert sorted(seen) == ["a", "b", "c"]


@needs_rc10
def test_mmf_no_longer_turns_anomaly_detection_on():
    assert "set_detect_anomaly(True)" in Path(base_trainer.__file__).read_text()
    base_trainer.torch.autograd.set_detect_anomaly(True)
    assert not torch.is_anomaly_enabled()
    with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
        assert torch.is_anomaly_enabled(), "a user can no longer turn it on"
    assert base_trainer.torch.nn.DataParallel is torch.nn.DataParallel


def test_a_resumed_run_counts_patience_from_its_best_update():
    stopping = EarlyStopping(None, None, "accuracy", patience=10, minimize=False)
    stopping.init_from_checkpoint({"best_iteration": 90, "best_update": 90, "best_metric_value": 0.5})
    saved = []
    # it has no restore: the trainer brings the best weights back, on all processes at once
    stopping.checkpoint = SimpleNamespace(save=lambda update, iteration, update_best: saved.append(update))
    meter = SimpleNamespace(meters={"val/accuracy": SimpleNamespace(global_avg=0.4)})
    assert stopping(100, 100, meter) is False and saved == [100]
    assert stopping(101, 101, meter) is True


class Trainer(*([TrainerTrainingLoopMixin] if LINE == "main" else [])):
    """MMF's loop, with everything left out but the counting."""

    metrics = SimpleNamespace(required_params=[])
    device, run_type = "cpu", ["train"]

    def __init__(self, train_loader, update_frequency=1, max_updates=None, max_epochs=None, num_updates=0, **training):
        self.train_loader, self.num_updates = train_loader, num_updates
        self.dataset_loader = SimpleNamespace(seed_sampler=lambda split, epoch: None)
        self.logistics_callback = SimpleNamespace(log_interval=10**9)
        self.training_config = SimpleNamespace(
            update_frequency=update_frequency,
            max_updates=max_updates,
            max_epochs=max_epochs,
            **{"evaluation_interval": 10**9} | training,
        )
        self.max_updates = self._calculate_max_updates()
        self.updates = []  # of each: what the loss of each of its batches is divided by
        self.run_training_epoch()

    def run_training_batch(self, batch, loss_divisor):
        self.updates[-1].append(loss_divisor)
        report = SimpleNamespace(batch_size=2, accumulate_tensor_fields_and_loss=lambda *_: None)
        report.detach = lambda: report
        return report

    def _start_update(self):
        self.updates.append([])

    def _finish_update(self):
        self.num_updates += 1

    def on_batch_start(self):
        pass

    def on_batch_end(self, **_):
        pass

    def on_update_end(self, **_):
        pass

    def profile(self, text):
        pass


@needs_main
@pytest.mark.parametrize("frequency", [1, 3])
@pytest.mark.parametrize("strategy", ["round_robin", "random", "ratios"])
def test_the_loss_of_an_endless_pass_is_divided_by_what_is_accumulated(strategy, frequency):
    trainer = Trainer(loader(strategy, a=3, b=4), frequency, max_updates=20)
    assert trainer.updates == [[frequency] * frequency] * 20


@needs_main
def test_so_it_is_when_the_run_is_resumed():
    assert Trainer(loader("round_robin", a=3, b=4), 2, max_updates=20, num_updates=9).updates == [[2, 2]] * 11
    assert Trainer(loader("round_robin", a=3, b=4), 2, max_updates=20, num_updates=20).updates == []


@needs_main
def test_a_stream_among_the_datasets_of_an_endless_pass():
    assert Trainer(loader("round_robin", a=4, b=Stream()), 2, max_updates=9).updates == [[2, 2]] * 9


@needs_main
@pytest.mark.parametrize("sizes", [{"a": 3, "b": 3}, {"a": 1, "b": 7, "c": 3}, {"a": 5}])
def test_the_last_batch_of_every_dataset_is_counted(sizes):
    strategy = "size_proportional" if len(sizes) > 1 else "constant"
    batches = sum((size + 1) // 2 for size in sizes.values())
    assert len(loader(strategy, **sizes)) == batches
    assert Trainer(loader(strategy, **sizes), max_epochs=3).updates == [[1]] * batches * 3
    # the last update of an epoch has what is left
    epoch = [[2, 2]] * (batches // 2) + [[1]] * (batches % 2)
    assert Trainer(loader(strategy, **sizes), 2, max_epochs=3).updates == epoch * 3
    assert Trainer(loader(strategy, **sizes), 2, max_updates=4, num_updates=2).updates == (epoch * 3)[:2]


@needs_main
def test_a_stream_alone_has_the_updates_that_remain():
    assert Trainer(loader("constant", a=Stream()), 2, max_updates=5).updates == [[2, 2]] * 5


@needs_main
@pytest.mark.parametrize("strategy", ["round_robin", "size_proportional"])
def test_a_batch_is_drawn_when_the_one_before_has_run(strategy):
    """Workers load while the model computes, and no update holds all its batches in memory."""
    drawn = []

    class Noted(Numbers):
        def __getitem__(self, index):
            drawn.append(index)
            return index

    class Watching(Trainer):
        def run_training_batch(self, batch, loss_divisor):
            assert len(drawn) == 2 * self.current_iteration
            return super().run_training_batch(batch, loss_divisor)

    assert Watching(loader(strategy, a=Noted(8), b=Noted(8)), 4, max_updates=4).updates == [[4] * 4] * 4


@needs_main
def test_a_stream_may_end_amid_an_update():
    assert Trainer(loader("constant", a=Stream(), b=4), 3, max_updates=2).updates == [[2, 2]] * 2


@needs_main
def test_early_stopping_ends_the_pass():
    class Stopping(Trainer):
        early_stop_callback = SimpleNamespace(on_validation_end=lambda report, meter: report == 4)
        evaluated: ClassVar[list[int]] = []

        def on_validation_start(self):
            self.evaluated.append(self.num_updates)

        def evaluation_loop(self, split):
            return self.num_updates, None

        def on_validation_end(self, **_):
            pass

    trainer = Stopping(loader("round_robin", a=3, b=4), max_updates=20, evaluation_interval=2)
    assert trainer.evaluated == [2, 4] and trainer.num_updates == 4


@needs_main
def test_a_loss_of_the_second_dataset_is_counted_once():
    first, second = Report(), Report()
    first.losses, second.losses = {"train/a/loss": torch.tensor(1.0)}, {"train/b/loss": torch.tensor(2.0)}
    first.accumulate_tensor_fields_and_loss(second, [])
    first.accumulate_tensor_fields_and_loss(second, [])
    assert first.losses == {"train/a/loss": 1.0, "train/b/loss": 4.0}
    assert second.losses["train/b/loss"] == 2.0


@needs_main
def test_the_trainer_does_not_warn_of_its_own_outdated_amp():
    code = """
import warnings
from types import SimpleNamespace
import torch
from mmf.trainers.mmf_trainer import MMFTrainer
trainer = SimpleNamespace(training_config=SimpleNamespace(fp16=False), distributed=False, device="cpu", model=dict)
MMFTrainer.load_fp16_scaler(trainer)
warnings.warn("`torch.cuda.amp.GradScaler(args...)` of the user's own", FutureWarning)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of the user's own" in done.stderr and "is deprecated" not in done.stderr


@needs_main
def test_fp16_without_cuda_is_refused():
    trainer = SimpleNamespace(training_config=SimpleNamespace(fp16=True), distributed=False, device=torch.device("cpu"))
    with pytest.raises(UserError, match=r"training\.fp16 needs CUDA"):
        MMFTrainer.load_fp16_scaler(trainer)
    trainer.training_config.fp16 = False
    MMFTrainer.load_fp16_scaler(trainer)
    assert not trainer.scaler.is_enabled()
