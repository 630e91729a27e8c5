"""MMF's training loops, for any model."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmf.trainers import base_trainer
from mmf.utils.early_stopping import EarlyStopping

from mmf_flava.errors import UserError
from tests.mmf_versions import MMF_VERSION, needs_main, needs_rc10

pytestmark = pytest.mark.usefixtures("global_config")

if MMF_VERSION == "main":
    from mmf.trainers.mmf_trainer import MMFTrainer
else:
    from mmf.datasets.multi_dataset_loader import MultiDatasetLoader


@needs_rc10
def test_every_epoch_of_several_datasets_is_complete():
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
def test_anomaly_detection_is_off_unless_the_user_turns_it_on():
    assert "set_detect_anomaly(True)" in Path(base_trainer.__file__).read_text()
    base_trainer.torch.autograd.set_detect_anomaly(True)
    assert not torch.is_anomaly_enabled()
    with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
        assert torch.is_anomaly_enabled(), "users cannot turn it on any more"
    assert base_trainer.torch.nn.DataParallel is torch.nn.DataParallel


def test_resumed_run_counts_patience_from_its_best_update():
    stopping = EarlyStopping(None, None, "accuracy", patience=10, minimize=False)
    stopping.init_from_checkpoint({"best_iteration": 90, "best_update": 90, "best_metric_value": 0.5})
    saved = []
    # without restore: the trainer restores the best weights, on all processes at once
    stopping.checkpoint = SimpleNamespace(save=lambda update, iteration, update_best: saved.append(update))
    meter = SimpleNamespace(meters={"val/accuracy": SimpleNamespace(global_avg=0.4)})
    assert stopping(100, 100, meter) is False and saved == [100]
    assert stopping(101, 101, meter) is True


@needs_main
def test_trainer_does_not_warn_about_its_own_outdated_amp():
    code = """
import warnings
from types import SimpleNamespace
import torch
from mmf_flava.compat.flava_run import set_current
set_current(True)
from mmf.trainers.mmf_trainer import MMFTrainer
trainer = SimpleNamespace(training_config=SimpleNamespace(fp16=False), distributed=False, device="cpu", model=dict)
MMFTrainer.load_fp16_scaler(trainer)
warnings.warn("`torch.cuda.amp.GradScaler(args...)` of the user's own", FutureWarning)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of the user's own" in done.stderr and "is deprecated" not in done.stderr


@needs_main
def test_fp16_without_cuda_is_an_error(own_run):
    trainer = SimpleNamespace(training_config=SimpleNamespace(fp16=True), distributed=False, device=torch.device("cpu"))
    with pytest.raises(UserError, match=r"training\.fp16 requires CUDA"):
        MMFTrainer.load_fp16_scaler(trainer)
    trainer.training_config.fp16 = False
    MMFTrainer.load_fp16_scaler(trainer)
    assert not trainer.scaler.is_enabled()
