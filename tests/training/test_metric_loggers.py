"""TensorBoard and W&B loggers; W&B is replaced by a fake module that records the calls."""

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmf_flava.config.run import WandbConfig
from mmf_flava.errors import UserError
from mmf_flava.training.metric_loggers import import_wandb, open_metric_loggers

CONFIG = OmegaConf.create({"training": {"tensorboard": False, "experiment_name": "toy"}, "model": "flava", "env": {}})


class Error(Exception):
    pass


class FakeWandb:
    """Fake of the module ``wandb`` and of its runs."""

    Error = Error
    id = "abc"

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.logged: list[dict[str, float]] = []
        self.finished = False

    def init(self, **options: Any) -> "FakeWandb":
        if options["mode"] == "online":
            raise Error("no API key configured")
        self.options = options
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "update")

    def log(self, metrics: dict[str, float]) -> None:
        self.logged.append(metrics)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_no_logger_is_enabled_by_default(tmp_path: Path) -> None:
    assert open_metric_loggers(tmp_path, CONFIG, WandbConfig(), resumed=False) == []


def test_metrics_and_recipe_are_sent_to_wandb(tmp_path: Path, wandb: FakeWandb) -> None:
    (logger,) = open_metric_loggers(
        tmp_path, CONFIG, WandbConfig(enabled=True, project="mine", tags=["a"]), resumed=False
    )
    logger.add_scalars({"train/losses/flava_mim": 4.5}, 20)
    logger.close()
    assert wandb.logged == [{"train/losses/flava_mim": 4.5, "update": 20}] and wandb.finished
    assert (wandb.options["project"], wandb.options["name"], wandb.options["tags"]) == ("mine", "toy", ["a"])
    assert wandb.options["config"] == OmegaConf.to_container(CONFIG) and wandb.options["id"] is None


def test_resumed_run_keeps_its_wandb_id(tmp_path: Path, wandb: FakeWandb) -> None:
    for resumed, run_id in ((True, None), (True, "abc"), (False, None)):
        open_metric_loggers(tmp_path, CONFIG, WandbConfig(enabled=True), resumed)
        assert (wandb.options["id"], wandb.options["resume"]) == (run_id, "allow" if run_id else None)


def test_folders_of_the_loggers(tmp_path: Path, wandb: FakeWandb) -> None:
    for env, folders in (
        ({"tensorboard_logdir": "", "wandb_logdir": None}, ("logs", "logs")),
        ({"tensorboard_logdir": str(tmp_path / "a"), "wandb_logdir": str(tmp_path / "b")}, ("a", "b")),
    ):
        config = OmegaConf.merge(CONFIG, {"env": env, "training": {"tensorboard": True}})
        tensorboard, _ = open_metric_loggers(tmp_path, config, WandbConfig(enabled=True), resumed=False)
        written = Path(tensorboard.logger.summary_writer.log_dir).parent
        assert (written, Path(wandb.options["dir"])) == tuple(tmp_path / name for name in folders)
        tensorboard.close()
        assert (tmp_path / "logs" / "wandb_id").read_text() == "abc"


def test_missing_wandb_or_login_raises_user_error(
    tmp_path: Path, wandb: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"no API key configured.*mode=offline"):
        open_metric_loggers(tmp_path, CONFIG, WandbConfig(enabled=True, mode="online"), resumed=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        import_wandb()


def test_tensorboard_writes_to_logs(tmp_path: Path) -> None:
    config = OmegaConf.merge(CONFIG, {"training": {"tensorboard": True}})
    (logger,) = open_metric_loggers(tmp_path, config, WandbConfig(), resumed=False)
    logger.add_scalars({"train/lr": 0.1}, 1)
    logger.close()
    assert list((tmp_path / "logs").rglob("events*"))
