"""A run folder with checkpoints of MMF's trainer: the trainer ``flava`` refuses it, and starts from its weights."""

import re

import pytest
import torch
from mmf.common.registry import registry
from mmf_cli.run import run

from mmf_flava.compat.mmf_api import MMF_VERSION
from mmf_flava.errors import UserError
from mmf_flava.training.trainer import FlavaTrainer
from tests.finetuning import stock_toys

TRAINING = {
    "seed": 1, "batch_size": 4, "max_updates": 2, "num_workers": 0, "evaluation_interval": 2, "checkpoint_interval": 2,
    "lr_scheduler": True, "early_stop": {"criteria": "clevr/logit_bce"},
}  # fmt: skip


@pytest.fixture
def started(tmp_path):
    """Run cnn_lstm with options in a new folder of toy data."""
    for split in ("train", "val", "test"):
        stock_toys.write_clevr(tmp_path, split, 8)
    stock_toys.write_vocabularies(tmp_path)
    recipe = stock_toys.write_recipe(
        tmp_path / "stock.yaml",
        model_config={"cnn_lstm": stock_toys.MODEL | {"losses": ["logit_bce"]}},
        training=TRAINING,
        run_type="train_val",
    )

    def start(*options):
        for name in ("config", "clevr_text_processor", "clevr_answer_processor"):
            registry.unregister(name)
        run([f"config={recipe}", "model=cnn_lstm", "dataset=clevr", f"env.data_dir={tmp_path}", *options])

    return start


def test_the_command_in_the_message_starts_from_the_weights(started, tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    started(f"training.trainer={'mmf' if MMF_VERSION == 'main' else 'base_trainer'}", f"env.save_dir={old}")
    saved = torch.load(old / "current.ckpt", weights_only=False)["model"]
    for options in ((), ("checkpoint.resume=true", "run_type=val")):
        with pytest.raises(UserError, match=rf"^env.save_dir: {old} has checkpoints of MMF's trainer") as error:
            started("training.trainer=flava", f"env.save_dir={old}", *options)
    assert not (old / "checkpoints").exists()
    loaded, load = {}, FlavaTrainer.load

    def load_and_copy(self):
        load(self)
        loaded.update({key: value.clone() for key, value in self.model.state_dict().items()})

    monkeypatch.setattr(FlavaTrainer, "load", load_and_copy)
    command = re.findall(r"\S+=\S+", str(error.value))
    assert [option.partition("=")[0] for option in command] == [
        "checkpoint.resume_file", "checkpoint.resume_pretrained", "env.save_dir",
    ]  # fmt: skip
    started("training.trainer=flava", *(option.replace("NEW_FOLDER", str(new)) for option in command))
    assert loaded.keys() == saved.keys() and all(torch.equal(loaded[key], saved[key]) for key in saved)
    assert (new / "checkpoints" / "latest").is_file()
