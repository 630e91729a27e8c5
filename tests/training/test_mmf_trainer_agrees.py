"""MMF's model ``cnn_lstm`` has the same losses and weights with ``training.trainer: flava`` as with MMF's own trainer.

MMF's trainer gets the batches, the initial weights and the generator states of a run of FLAVA's trainer.
"""

import copy
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmf.common.registry import registry
from mmf_cli.run import run

from mmf_flava.compat.mmf_api import MMF_VERSION
from mmf_flava.training.trainer import FlavaTrainer
from tests.finetuning import stock_toys

UPDATES = 20
MMF_TRAINER, MODULE, CLASS = {
    "rc10": ("base_trainer", "base_trainer", "BaseTrainer"),
    "main": ("mmf", "mmf_trainer", "MMFTrainer"),
}[MMF_VERSION]
# MMF's trainer uses torch's default kernel, which rounds differently
ADAM = {"optimizer": {"type": "Adam", "params": {"lr": 0.01, "weight_decay": 0.01, "fused": False}}}
CLIPPED = {"optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9}}}
# the learning rate of MMF 1.0.0rc10 is that of the update before
SCHEDULE = {"scheduler": {"type": "warmup_linear", "params": {"num_warmup_steps": 5, "num_training_steps": UPDATES}}}
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Adam": (ADAM, {}),
    "clipped SGD": (CLIPPED, {"clip_gradients": True, "max_grad_l2_norm": 0.5}),
    **({"schedule": (ADAM | SCHEDULE, {"lr_scheduler": True})} if MMF_VERSION == "main" else {}),
}


class Recorder:
    """Records the initial weights, the training batches, the generator state before each, and the losses."""

    def __init__(self) -> None:
        self.batches: list[tuple[Any, torch.Tensor]] = []
        self.losses: list[dict[str, torch.Tensor]] = []

    def attach(self, model: Any) -> None:
        self.model, self.initial = model, copy.deepcopy(model.state_dict())
        model.register_forward_pre_hook(self.before)
        model.losses.register_forward_hook(self.after)

    def before(self, model: Any, arguments: Any) -> None:
        if model.training:
            self.batches.append((copy.deepcopy(arguments[0]), torch.get_rng_state()))

    def after(self, losses: Any, arguments: Any, output: Any) -> None:
        if self.model.training:
            self.losses.append({name: value.detach().clone() for name, value in output.items()})


class Replay:
    """A loader of MMF that yields recorded batches instead of its own."""

    def __init__(self, loader: Any, batches: list[Any]) -> None:
        self.loader, self.batches = loader, batches

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def train(recipe: Path, trainer: str, change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Train; return the weights after the last update. ``change(trainer)`` is called after ``load``."""
    for name in ("config", "clevr_text_processor", "clevr_answer_processor"):
        registry.unregister(name)
    owner = FlavaTrainer if trainer == "flava" else getattr(importlib.import_module(f"mmf.trainers.{MODULE}"), CLASS)
    load, trained = owner.load, {}

    def load_and_change(self: Any) -> None:
        load(self)
        change(self)
        optimizer = self.updater.optimizer if trainer == "flava" else self.optimizer
        # the last update's weights: after training, both trainers load the best weights
        optimizer.register_step_post_hook(lambda *_: trained.update(copy.deepcopy(self.model.state_dict())))

    with monkeypatch.context() as patch:
        patch.setattr(owner, "load", load_and_change)
        run(
            [f"config={recipe}", "model=cnn_lstm", "dataset=clevr", f"training.trainer={trainer}",
             f"env.data_dir={recipe.parent}", f"env.save_dir={recipe.parent / trainer}"]
        )  # fmt: skip
    return trained


@pytest.mark.parametrize("name", RECIPES)
def test_losses_and_weights_equal_those_of_mmfs_trainer(name, tmp_path, monkeypatch):
    sections, training = RECIPES[name]
    for split, size in (("train", 44), ("val", 6), ("test", 6)):
        stock_toys.write_clevr(tmp_path, split, size)
    stock_toys.write_vocabularies(tmp_path)
    model = stock_toys.WITH_DROPOUT
    training = {
        "seed": 1, "batch_size": 8, "max_updates": UPDATES, "num_workers": 0, "tensorboard": False,
        "evaluation_interval": UPDATES, "checkpoint_interval": UPDATES, **training,
        "early_stop": {"criteria": "val/total_loss", "minimize": True},
    }  # fmt: skip
    recipe = stock_toys.write_recipe(
        tmp_path / "stock.yaml", model_config={"cnn_lstm": model}, training=training, run_type="train_val", **sections
    )
    own, mmfs = Recorder(), Recorder()
    trained = train(recipe, "flava", lambda trainer: own.attach(trainer.model), monkeypatch)

    def replay(trainer: Any) -> None:
        trainer.model.load_state_dict(own.initial)
        trainer.train_loader = Replay(trainer.train_loader, [batch for batch, _ in own.batches])
        trainer.model.register_forward_pre_hook(
            lambda model, _: torch.set_rng_state(own.batches[len(mmfs.losses)][1]) if model.training else None
        )
        mmfs.attach(trainer.model)

    expected = train(recipe, MMF_TRAINER, replay, monkeypatch)
    assert len(own.losses) == len(mmfs.losses) == UPDATES
    assert own.losses[0].keys() == {"train/clevr/logit_bce"}
    for losses, other in zip(own.losses, mmfs.losses, strict=True):
        assert losses.keys() == other.keys() and all(losses[key].equal(other[key]) for key in losses)
    assert own.losses[-1] != own.losses[0]
    assert trained.keys() == expected.keys()
    assert [key for key in trained if not trained[key].equal(expected[key])] == []
