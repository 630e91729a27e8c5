"""MMF's checkpoints are read again, whatever scheduler and metrics are in them, and nothing but MMF's own."""

from pathlib import Path
from types import SimpleNamespace

import git
import mmf.utils.checkpoint as checkpoint
import numpy as np
import pytest
import torch
from mmf.common.registry import registry
from mmf.utils.checkpoint import Checkpoint
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.errors import UserError
from tests.lines import needs_main

SCHEDULERS = {
    "pythia": {},
    "multi_step": {"use_warmup": True, "lr_steps": [3], "lr_ratio": 0.1, "warmup_iterations": 2, "warmup_factor": 0.2},
    "warmup_linear": {"num_warmup_steps": 1, "num_training_steps": 9},
    "warmup_cosine": {"num_warmup_steps": 1, "num_training_steps": 9},
}


def load(path: Path):
    """As Checkpoint._torch_load does it."""
    return Checkpoint._torch_load(SimpleNamespace(device="cpu"), str(path))


@pytest.fixture
def recipe(global_config):
    """The global configuration of a recipe with warm-up, frozen as MMF freezes it."""
    global_config.training.update(
        {"lr_steps": [3], "lr_ratio": 0.1, "use_warmup": True, "warmup_iterations": 2, "warmup_factor": 0.2}
        | {"seed": None, "tensorboard": True, "sum": "${training.seed}"}
    )
    OmegaConf.set_readonly(global_config, True)
    return global_config


def trained(scheduler_name: str, optimizer_name: str):
    setup_imports()
    model = torch.nn.Linear(2, 2)
    optimizer = registry.get_optimizer_class(optimizer_name)(model.parameters(), lr=0.1)
    params = OmegaConf.create(SCHEDULERS[scheduler_name])  # from a recipe: its lists are OmegaConf's
    scheduler = registry.get_scheduler_class(scheduler_name)(optimizer, **params)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    return optimizer, scheduler


@pytest.mark.parametrize(
    ("scheduler_name", "optimizer_name"),
    [
        ("pythia", "adam_w"),
        ("warmup_linear", "adam_w"),
        ("warmup_cosine", "adam_w"),
        pytest.param("multi_step", "adam_w_skip_params_with_zero_grad", marks=needs_main),
    ],
)
def test_a_checkpoint_of_mmf_is_read_again(scheduler_name, optimizer_name, recipe, tmp_path):
    optimizer, scheduler = trained(scheduler_name, optimizer_name)
    saved = {
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "fp16_scaler": torch.amp.GradScaler("cpu").state_dict(),
        "best_metric_value": np.float32(0.5),
        "best_update": np.int64(3),
        "config": OmegaConf.to_container(recipe),
        "git/branch": "main",
    }
    torch.save(saved, tmp_path / "current.ckpt")

    found = load(tmp_path / "current.ckpt")
    assert found["best_metric_value"] == 0.5 and found["best_update"] == 3
    other_optimizer, other = trained(scheduler_name, optimizer_name)
    other.last_epoch = 0
    other.load_state_dict(found["lr_scheduler"])
    other_optimizer.load_state_dict(found["optimizer"])
    for _ in range(4):
        assert other.get_last_lr() == scheduler.get_last_lr()
        for each in (optimizer, scheduler, other_optimizer, other):
            each.step()


class Foreign:
    pass


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_something_else_is_refused(zipped, tmp_path):
    path = tmp_path / "current.ckpt"
    torch.save({"model": {}, "extra": Foreign()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"current\.ckpt holds a tests\.compat\.test_checkpoint\.Foreign, which torch"):
        load(path)


def test_half_a_checkpoint_is_named(tmp_path):
    path = tmp_path / "current.ckpt"
    torch.save({"model": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for part in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        path.write_bytes(part)
        with pytest.raises(UserError, match=r"current\.ckpt is no whole checkpoint"):
            load(path)


def test_torch_itself_stays_as_strict_as_it_is(recipe, tmp_path):
    _, scheduler = trained("pythia", "adam_w")
    torch.save(scheduler.state_dict(), tmp_path / "x.ckpt")
    load(tmp_path / "x.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "x.ckpt")
    assert checkpoint.torch.save is torch.save


@pytest.fixture
def repository(tmp_path):
    """Stands for a checkout of MMF."""
    made = git.Repo.init(tmp_path / "mmf")
    with made.config_writer() as config:
        config.set_value("user", "name", "N")
        config.set_value("user", "email", "n@example.org")
    return made


def git_fields(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "get_mmf_env", lambda key: str(tmp_path))
    monkeypatch.setattr(checkpoint, "updir", lambda path, n: repository.working_dir)
    config = OmegaConf.create({"model": "toy", "checkpoint": {"save_git_details": True, "max_to_keep": -1}})
    made = Checkpoint(SimpleNamespace(config=config, model=torch.nn.Linear(1, 1)))
    return made._get_vcs_fields() if made.git_repo else None


def test_git_details(repository, tmp_path, monkeypatch):
    assert git_fields(repository, tmp_path, monkeypatch) is None
    commit = repository.index.commit("the first")
    branch = repository.active_branch.name
    assert git_fields(repository, tmp_path, monkeypatch)["git/branch"] == branch
    repository.git.checkout("--detach")
    fields = git_fields(repository, tmp_path, monkeypatch)
    assert fields["git/branch"] == "HEAD" and fields["git/commit_message"] == "the first"
    assert fields["git/commit_hash"].startswith(commit.hexsha)


def test_git_that_refuses_to_answer_is_done_without(repository, tmp_path, monkeypatch):
    repository.index.commit("the first")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # "dubious ownership", as in a container
    assert git_fields(repository, tmp_path, monkeypatch) is None


@pytest.mark.parametrize("saved_as", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_either_numpy_are_read(saved_as, tmp_path):
    """numpy 2 has moved what its numbers are made with."""
    torch.save({"best": np.float64(0.5)}, tmp_path / "current.ckpt", _use_new_zipfile_serialization=False)
    pickled = (tmp_path / "current.ckpt").read_bytes()
    own = np.float64(0.5).__reduce__()[0].__module__.encode()
    assert own in pickled
    (tmp_path / "current.ckpt").write_bytes(pickled.replace(own, saved_as.encode()))
    assert load(tmp_path / "current.ckpt")["best"] == 0.5


def test_numpy_1_has_no_core_with_an_underscore(monkeypatch, tmp_path):
    torch.save({"best": np.float64(0.5)}, tmp_path / "current.ckpt")
    monkeypatch.delattr(np, "_core", raising=False)
    assert load(tmp_path / "current.ckpt")["best"] == 0.5
