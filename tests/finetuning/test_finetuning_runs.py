"""The course of a finetuning: its end, resuming, interrupted validations, the best checkpoint, a used folder."""

import pytest
from mmf.common.registry import registry

from mmf_flava.errors import UserError
from mmf_flava.files.checkpoint_names import LATEST, read_pointer
from mmf_flava.training.signals import StopSignals
from mmf_flava.training.validation import Validation
from tests.finetuning.outputs import evaluation, lines, weights


def test_resumed_run_continues(finetune, tmp_path):
    short = ("training.evaluation_interval=2", "training.checkpoint_interval=2", "training.log_interval=1")
    finetune("demo_hateful_memes", tmp_path, *short, "training.max_updates=4", "scheduler.params.num_training_steps=6")
    finetune("demo_hateful_memes", tmp_path, *short, "training.max_updates=6", "checkpoint.resume=true")
    train = lines(tmp_path, "train")
    assert [line["update"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert [line["time"] for line in train] == sorted(line["time"] for line in train)
    uninterrupted = finetune("demo_hateful_memes", tmp_path / "uninterrupted", *short, "training.max_updates=6")
    assert [line["lr"] for line in train] == pytest.approx([line["lr"] for line in lines(uninterrupted, "train")])
    resumed, whole = weights(tmp_path, LATEST), weights(uninterrupted, LATEST)
    assert [name for name in whole if not whole[name].equal(resumed[name])] == []


def test_validation_that_a_signal_prevented_is_made_up_for(finetune, tmp_path, monkeypatch):
    short = ("training.evaluation_interval=2", "training.max_updates=5")
    quiet = finetune("demo_hateful_memes", tmp_path / "quiet", *short)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(StopSignals, "received_by_any", lambda self, device: registry.get("num_updates") == 3)
        finetune("demo_hateful_memes", tmp_path / "run", *short)
    assert [line["update"] for line in lines(tmp_path / "run", "val")] == [2]
    finetune("demo_hateful_memes", tmp_path / "run", *short, "checkpoint.resume=true")
    expected, found = (
        [(line["update"], line["losses"], line["metrics"]) for line in lines(folder, "val")]
        for folder in (quiet, tmp_path / "run")
    )
    assert found == expected and [update for update, *_ in found] == [2, 4, 5]


def test_error_in_a_validation_loses_no_update(finetune, tmp_path, monkeypatch):
    short = ("training.evaluation_interval=2", "training.max_updates=4")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Validation, "run", lambda self, update, progress: 1 / 0)
        finetune("demo_hateful_memes", tmp_path, *short)
    assert read_pointer(tmp_path / "checkpoints" / LATEST).name == "update_00000002"
    finetune("demo_hateful_memes", tmp_path, *short, "checkpoint.resume=true")
    assert [line["update"] for line in lines(tmp_path, "val")] == [2, 4]


@pytest.mark.parametrize("run_type", ["val", "test"])
def test_evaluation_needs_the_checkpoint_that_it_resumes(finetune, tmp_path, run_type):
    with pytest.raises(UserError, match=r"checkpoint.resume: .* has no checkpoint to evaluate"):
        finetune("demo_hateful_memes", tmp_path, f"run_type={run_type}", "checkpoint.resume=true")


def test_early_stopping_needs_a_val_split(finetune, tmp_path):
    options = ("training.early_stop.enabled=true", "run_type=train", "training.max_updates=1")
    with pytest.raises(UserError, match=r"training.early_stop.enabled: hateful_memes has no val split"):
        finetune("demo_hateful_memes", tmp_path, *options, "dataset_config.hateful_memes.annotations.val=null")


def test_best_checkpoint_is_that_of_the_criteria(finetune, tmp_path):
    """After a finished run is resumed with another criteria, no checkpoint is the best one."""
    short = ("training.evaluation_interval=1", "training.max_updates=4", "optimizer.params.lr=0.0")
    finetune("demo_hateful_memes", tmp_path, *short)
    assert evaluation(tmp_path)["update"] == 1
    other = ("training.early_stop.criteria=hateful_memes/cross_entropy", "training.early_stop.minimize=true")
    finetune("demo_hateful_memes", tmp_path, *short, *other, "checkpoint.resume=true", "run_type=train_val_inference")
    assert evaluation(tmp_path)["update"] == 4


def test_new_run_moves_old_scores_to_previous(finetune, tmp_path):
    for _ in range(2):
        finetune("demo_hateful_memes", tmp_path, "training.max_updates=1")
    assert (tmp_path / "previous" / "1" / "evaluation.json").is_file()


def test_early_stopping(finetune, tmp_path):
    options = ("optimizer.params.lr=0.0", "training.evaluation_interval=2", "training.max_updates=40")
    stop = ("training.early_stop.enabled=true", "training.early_stop.patience=5")
    finetune("demo_hateful_memes", tmp_path, *options, *stop)
    assert [line["update"] for line in lines(tmp_path, "val")] == [2, 4, 6, 8]
    assert evaluation(tmp_path)["update"] == 2
    finetune("demo_hateful_memes", tmp_path, *options, *stop, "checkpoint.resume=true")
    assert [line["update"] for line in lines(tmp_path, "val")] == [2, 4, 6, 8]


def test_epochs_set_the_updates(finetune, tmp_path):
    """256 memes in batches of 48, two of them an update: 2 epochs are ceil(2 * 256 / 96) updates."""
    options = ("training.max_epochs=2", "training.batch_size=48", "training.update_frequency=2")
    finetune("demo_hateful_memes", tmp_path, *options, "training.log_interval=1")
    assert [line["update"] for line in lines(tmp_path, "train")] == [1, 2, 3, 4, 5, 6]
    assert lines(tmp_path, "train")[-1]["lr"] > 0  # the schedule ends after the last update
