"""rc10's own defects, mended for any model."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmf.datasets.multi_dataset_loader import MultiDatasetLoader
from mmf.trainers import base_trainer
from mmf.utils.early_stopping import EarlyStopping


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
