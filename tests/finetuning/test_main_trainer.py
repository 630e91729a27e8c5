"""Features of the main branch's trainer that 1.0.0rc10 lacks: callbacks, gradient accumulation, fp16."""

import json

import pytest
import torch
from mmf.common.registry import registry

from mmf_flava.compat.mmf_api.trainer import FinetuningBase
from mmf_flava.errors import UserError
from tests.mmf_versions import needs_main

pytestmark = needs_main

SHORT = ("training.max_updates=3", "training.log_interval=1", "training.evaluation_interval=2")


def metrics(folder, split):
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in written if line["split"] == split]


@pytest.fixture
def events():
    """Events of a user callback, registered as ``toy_listener``."""
    from mmf.trainers.callbacks.base import Callback

    events = []

    class Listener(Callback):
        def __init__(self, config, trainer, word):
            super().__init__(config, trainer)
            self.word = word

        def on_train_start(self, **kwargs):
            events.append((self.word, "train"))

        def on_update_end(self, **kwargs):
            events.append((self.trainer.num_updates, sorted(kwargs)))

        def on_validation_end(self, **kwargs):
            events.append(("validation", self.trainer.num_updates))

        def on_train_end(self, **kwargs):
            events.append((isinstance(self.trainer, FinetuningBase), "end"))

        def on_test_end(self, **kwargs):
            events.append(("test", kwargs["report"].dataset_type))

    registry.register_callback("toy_listener")(Listener)
    yield events
    registry.mapping["callback_name_mapping"].pop("toy_listener")


def test_user_callbacks_are_called(finetune, events, tmp_path):
    listener = "training.callbacks=[{'type': 'toy_listener', 'params': {'word': 'go'}}]"
    finetune("demo_hateful_memes", tmp_path, *SHORT, listener)
    arguments = ["meter", "report", "should_log"]
    assert events == [
        ("go", "train"), (1, arguments), (2, arguments), ("validation", 2), (3, arguments), ("validation", 3),
        (True, "end"), ("test", "val"),
    ]  # fmt: skip


def test_last_validation_can_give_the_best_weights(finetune, tmp_path):
    """As on 1.0.0rc10, for any interval. MMF's own trainer writes no checkpoint here."""
    finetune("demo_hateful_memes", tmp_path, "training.max_updates=1")
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["best_update"] == 1


def test_max_to_keep_limits_the_checkpoints(finetune, tmp_path):
    options = ("training.checkpoint_interval=1", "checkpoint.max_to_keep=1", "training.evaluation_interval=3")
    finetune("demo_hateful_memes", tmp_path, "training.max_updates=3", *options)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model_3.ckpt"]


def test_gradient_accumulation(finetune, tmp_path):
    """Logged losses are means over the batches of an update, and all samples are counted."""
    finetune("demo_hateful_memes", tmp_path, *SHORT, "training.update_frequency=2", "training.batch_size=16")
    assert [line["update"] for line in metrics(tmp_path, "train")] == [1, 2, 3]
    assert all(0.2 < line["losses"]["cross_entropy"] < 1.2 for line in metrics(tmp_path, "train"))
    assert json.loads((tmp_path / "summary.json").read_text())["samples"] == 3 * 2 * 16


def test_losses_of_an_earlier_run_are_not_included(finetune, tmp_path):
    """MMF uses one meter for all runs of a process."""
    finetune("demo_vqa2", tmp_path / "first", *SHORT)
    finetune("demo_hateful_memes", tmp_path / "second", *SHORT)
    assert [line["losses"].keys() for line in metrics(tmp_path / "second", "train")] == [{"cross_entropy"}] * 3


def test_two_precisions_raise_an_error(finetune, tmp_path):
    with pytest.raises(UserError, match=r"training\.fp16 and training\.precision: bf16 cannot be combined"):
        finetune("demo_hateful_memes", tmp_path, "training.fp16=True", "training.precision=bf16")
