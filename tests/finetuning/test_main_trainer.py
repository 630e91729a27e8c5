"""What the trainer of MMF's main branch has and 1.0.0rc10's has not: callbacks, and several batches an update."""

import json

import pytest
import torch
from mmf.common.registry import registry

from mmf_flava.compat.mmf_api.trainer import FinetuningBase
from tests.lines import needs_main

pytestmark = needs_main

SHORT = ("training.max_updates=3", "training.log_interval=1", "training.evaluation_interval=2")


def metrics(folder, split):
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in written if line["split"] == split]


@pytest.fixture
def heard():
    """What a user's callback is told, by the registered name ``toy_listener``."""
    from mmf.trainers.callbacks.base import Callback

    heard = []

    class Listener(Callback):
        def __init__(self, config, trainer, word):
            super().__init__(config, trainer)
            self.word = word

        def on_train_start(self, **kwargs):
            heard.append((self.word, "train"))

        def on_update_end(self, **kwargs):
            heard.append((self.trainer.num_updates, sorted(kwargs)))

        def on_validation_end(self, **kwargs):
            heard.append(("validation", self.trainer.num_updates))

        def on_train_end(self, **kwargs):
            heard.append((isinstance(self.trainer, FinetuningBase), "end"))

        def on_test_end(self, **kwargs):
            heard.append(("test", kwargs["report"].dataset_type))

    registry.register_callback("toy_listener")(Listener)
    yield heard
    registry.mapping["callback_name_mapping"].pop("toy_listener")


def test_a_users_callbacks_are_called(finetune, heard, tmp_path):
    listener = "training.callbacks=[{'type': 'toy_listener', 'params': {'word': 'go'}}]"
    finetune("demo_hateful_memes", tmp_path, *SHORT, listener)
    told = ["meter", "report", "should_log"]
    assert heard == [
        ("go", "train"), (1, told), (2, told), ("validation", 2), (3, told), ("validation", 3), (True, "end"),
        ("test", "val"),
    ]  # fmt: skip


def test_the_last_validation_counts_for_the_best_weights(finetune, tmp_path):
    """As on 1.0.0rc10, whatever the interval; MMF's own trainer would leave no checkpoint here."""
    finetune("demo_hateful_memes", tmp_path, "training.max_updates=1")
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["best_update"] == 1


def test_as_many_checkpoints_are_kept_as_is_said(finetune, tmp_path):
    options = ("training.checkpoint_interval=1", "checkpoint.max_to_keep=1", "training.evaluation_interval=3")
    finetune("demo_hateful_memes", tmp_path, "training.max_updates=3", *options)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model_3.ckpt"]


def test_batches_that_make_an_update_together(finetune, tmp_path):
    """The losses written are means over an update's batches, and all its samples are counted."""
    finetune("demo_hateful_memes", tmp_path, *SHORT, "training.update_frequency=2", "training.batch_size=16")
    assert [line["update"] for line in metrics(tmp_path, "train")] == [1, 2, 3]
    assert all(0.2 < line["losses"]["cross_entropy"] < 1.2 for line in metrics(tmp_path, "train"))
    assert json.loads((tmp_path / "summary.json").read_text())["samples"] == 3 * 2 * 16


def test_figures_of_another_run_are_not_taken_on(finetune, tmp_path):
    """MMF keeps one meter for all runs of a process."""
    finetune("demo_vqa2", tmp_path / "first", *SHORT)
    finetune("demo_hateful_memes", tmp_path / "second", *SHORT)
    assert [line["losses"].keys() for line in metrics(tmp_path / "second", "train")] == [{"cross_entropy"}] * 3
