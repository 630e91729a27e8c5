"""TensorBoard and W&B by MMF's switches; W&B is a stand-in that keeps what it is told."""

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmf_flava.config.run import WandbConfig
from mmf_flava.errors import UserError
from mmf_flava.training.boards import import_wandb, open_boards

CONFIG = OmegaConf.create({"training": {"tensorboard": False, "experiment_name": "toy"}, "model": "flava"})


class Error(Exception):
    pass


class Wandb:
    """``import wandb``, which is its own run."""

    Error = Error
    id = "abc"

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.logged: list[dict[str, float]] = []
        self.finished = False

    def init(self, **given: Any) -> "Wandb":
        if given["mode"] == "online":
            raise Error("no API key configured")
        self.given = given
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "update")

    def log(self, figures: dict[str, float]) -> None:
        self.logged.append(figures)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_none_is_open_by_default(tmp_path: Path) -> None:
    assert open_boards(tmp_path, CONFIG, WandbConfig(), resumed=False) == []


def test_figures_and_recipe_reach_wandb(tmp_path: Path, wandb: Wandb) -> None:
    (board,) = open_boards(tmp_path, CONFIG, WandbConfig(enabled=True, project="mine", tags=["a"]), resumed=False)
    board.add_scalars({"train/losses/flava_mim": 4.5}, 20)
    board.close()
    assert wandb.logged == [{"train/losses/flava_mim": 4.5, "update": 20}] and wandb.finished
    assert (wandb.given["project"], wandb.given["name"], wandb.given["tags"]) == ("mine", "toy", ["a"])
    assert wandb.given["config"] == OmegaConf.to_container(CONFIG) and wandb.given["id"] is None


def test_a_resumed_run_goes_on_and_a_new_one_does_not(tmp_path: Path, wandb: Wandb) -> None:
    for resumed, known in ((True, None), (True, "abc"), (False, None)):
        open_boards(tmp_path, CONFIG, WandbConfig(enabled=True), resumed)
        assert (wandb.given["id"], wandb.given["resume"]) == (known, "allow" if known else None)


def test_what_wandb_lacks_is_one_sentence(tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no API key configured.*mode=offline"):
        open_boards(tmp_path, CONFIG, WandbConfig(enabled=True, mode="online"), resumed=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        import_wandb()


def test_tensorboard_writes_to_logs(tmp_path: Path) -> None:
    config = OmegaConf.merge(CONFIG, {"training": {"tensorboard": True}})
    (board,) = open_boards(tmp_path, config, WandbConfig(), resumed=False)
    board.add_scalars({"train/lr": 0.1}, 1)
    board.close()
    assert list((tmp_path / "logs").rglob("events*"))
