"""MMF loads its own checkpoints, with any scheduler and metric, and no other classes."""

import pickle
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
from tests.mmf_versions import needs_main

SCHEDULERS = {
    "pythia": {},
    "multi_step": {"use_warmup": True, "lr_steps": [3], "lr_ratio": 0.1, "warmup_iterations": 2, "warmup_factor": 0.2},
    "warmup_linear": {"num_warmup_steps": 1, "num_training_steps": 9},
    "warmup_cosine": {"num_warmup_steps": 1, "num_training_steps": 9},
}


def load(path: Path):
    """Load the file with MMF's ``Checkpoint._torch_load``."""
    return Checkpoint._torch_load(SimpleNamespace(device="cpu"), str(path))


@pytest.fixture
def recipe(global_config):
    """The global configuration of a recipe with warm-up, read-only as in MMF."""
    global_config.training.update(
        {"lr_steps": [3], "lr_ratio": 0.1, "use_warmup": True, "warmup_iterations": 2, "warmup_factor": 0.2}
        | {"seed": None, "tensorboard": True, "sum": "${training.seed}"}
    )
    OmegaConf.set_readonly(global_config, True)
    return global_config


def train_one_step(scheduler_name: str, optimizer_name: str):
    setup_imports()
    model = torch.nn.Linear(2, 2)
    optimizer = registry.get_optimizer_class(optimizer_name)(model.parameters(), lr=0.1)
    params = OmegaConf.create(SCHEDULERS[scheduler_name])  # a recipe's lists are OmegaConf's
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
def test_own_checkpoint_is_loaded(scheduler_name, optimizer_name, recipe, tmp_path):
    optimizer, scheduler = train_one_step(scheduler_name, optimizer_name)
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

    loaded = load(tmp_path / "current.ckpt")
    assert loaded["best_metric_value"] == 0.5 and loaded["best_update"] == 3
    other_optimizer, other = train_one_step(scheduler_name, optimizer_name)
    other.last_epoch = 0
    other.load_state_dict(loaded["lr_scheduler"])
    other_optimizer.load_state_dict(loaded["optimizer"])
    for _ in range(4):
        assert other.get_last_lr() == scheduler.get_last_lr()
        for each in (optimizer, scheduler, other_optimizer, other):
            each.step()


class Foreign:
    pass


@pytest.mark.parametrize("zipped", [True, False])
def test_unknown_class_is_an_error(zipped, own_run, tmp_path):
    path = tmp_path / "current.ckpt"
    torch.save({"model": {}, "extra": Foreign()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"current\.ckpt contains tests\.compat\.test_checkpoint\.Foreign, which torch"):
        load(path)


def test_incomplete_checkpoint_is_an_error(own_run, tmp_path):
    path = tmp_path / "current.ckpt"
    torch.save({"model": torch.ones(1000)}, path)
    complete = path.read_bytes()
    for content in (b"", b"not a checkpoint", complete[: len(complete) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"current\.ckpt is not a complete checkpoint"):
            load(path)


def test_other_runs_get_the_error_of_torch(tmp_path):
    path = tmp_path / "current.ckpt"
    torch.save({"extra": Foreign()}, path)
    with pytest.raises(pickle.UnpicklingError) as raised:
        load(path)
    assert not isinstance(raised.value, UserError)


def test_torch_load_itself_is_unchanged(recipe, tmp_path):
    _, scheduler = train_one_step("pythia", "adam_w")
    torch.save(scheduler.state_dict(), tmp_path / "x.ckpt")
    load(tmp_path / "x.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "x.ckpt")
    assert checkpoint.torch.save is torch.save


@pytest.fixture
def repository(tmp_path):
    """A repository in the place of MMF's checkout."""
    repository = git.Repo.init(tmp_path / "mmf")
    with repository.config_writer() as config:
        config.set_value("user", "name", "N")
        config.set_value("user", "email", "n@example.org")
    return repository


def git_fields(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "get_mmf_env", lambda key: str(tmp_path))
    monkeypatch.setattr(checkpoint, "updir", lambda path, n: repository.working_dir)
    config = OmegaConf.create({"model": "toy", "checkpoint": {"save_git_details": True, "max_to_keep": -1}})
    checkpointer = Checkpoint(SimpleNamespace(config=config, model=torch.nn.Linear(1, 1)))
    return checkpointer._get_vcs_fields() if checkpointer.git_repo else None


def test_git_details_of_branch_and_detached_head(repository, tmp_path, monkeypatch):
    assert git_fields(repository, tmp_path, monkeypatch) is None
    commit = repository.index.commit("the first")
    branch = repository.active_branch.name
    assert git_fields(repository, tmp_path, monkeypatch)["git/branch"] == branch
    repository.git.checkout("--detach")
    fields = git_fields(repository, tmp_path, monkeypatch)
    assert fields["git/branch"] == "HEAD" and fields["git/commit_message"] == "the first"
    assert fields["git/commit_hash"].startswith(commit.hexsha)


def test_git_details_are_skipped_if_git_fails(repository, tmp_path, monkeypatch):
    repository.index.commit("the first")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # "dubious ownership", as in a container
    assert git_fields(repository, tmp_path, monkeypatch) is None


@pytest.mark.parametrize("saved_as", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numbers_of_both_numpy_versions_are_loaded(saved_as, tmp_path):
    """numpy 2 has moved the function that creates its numbers."""
    torch.save({"best": np.float64(0.5)}, tmp_path / "current.ckpt", _use_new_zipfile_serialization=False)
    pickled = (tmp_path / "current.ckpt").read_bytes()
    own = np.float64(0.5).__reduce__()[0].__module__.encode()
    assert own in pickled
    (tmp_path / "current.ckpt").write_bytes(pickled.replace(own, saved_as.encode()))
    assert load(tmp_path / "current.ckpt")["best"] == 0.5


def test_numpy_1_without_core_module_of_numpy_2(monkeypatch, tmp_path):
    torch.save({"best": np.float64(0.5)}, tmp_path / "current.ckpt")
    monkeypatch.delattr(np, "_core", raising=False)
    assert load(tmp_path / "current.ckpt")["best"] == 0.5
