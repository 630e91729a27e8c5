"""MMF's distributed functions on two gloo processes, and the device of each process."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import nn

from mmf_flava.compat.mmf_api import MMF_VERSION
from tests.processes import run_ranks


def two_processes(rank: int, rendezvous: str) -> None:
    import mmf_cli.run
    from mmf.utils import distributed

    group = {"init_method": f"file://{rendezvous}", "world_size": 2, "rank": rank, "backend": "nccl"}
    training = {"find_unused_parameters": False, "device": "cpu"}
    config = OmegaConf.create({"distributed": group, "device_id": 0, "training": training})
    assert distributed.distributed_init(config) == rank
    assert (distributed.get_rank(), distributed.get_world_size()) == (rank, 2)
    assert distributed.is_master() == (rank == 0)
    distributed.synchronize()
    assert distributed.broadcast_scalar(rank + 7, src=0) == 7

    trainer = build_trainer(config)
    assert trainer.device == torch.device("cpu")
    assert trainer.distributed and config.distributed.init_method.startswith("file://")
    trainer.model = nn.Linear(1, 1)
    trainer.parallelize_model()
    trainer.model(torch.full((1, 1), float(rank))).backward()
    # the mean of the inputs 0 and 1: gradients are averaged across processes
    assert trainer.model.module.weight.grad.item() == 0.5

    # all processes have the same seed of the run, and generators of their own
    assert mmf_cli.run.set_seed(5 + rank) == 5
    assert torch.initial_seed() == 5 + rank
    seeds: list = [None, None]
    dist.all_gather_object(seeds, mmf_cli.run.set_seed(-1))
    assert seeds[0] == seeds[1] > 0
    dist.destroy_process_group()


def build_trainer(config):
    """Return the class or mixin of MMF that configures the device, with its device configured."""
    if MMF_VERSION == "rc10":
        from mmf.trainers.base_trainer import BaseTrainer

        trainer = BaseTrainer(config)
        trainer._set_device()
        return trainer
    from mmf.trainers.core.device import TrainerDeviceMixin

    trainer = TrainerDeviceMixin()
    trainer.config = config
    trainer.configure_device()
    return trainer


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA, MMF's own functions run")
def test_two_gloo_processes(tmp_path):
    run_ranks(two_processes, (str(tmp_path / "rendezvous"),), 2)


@pytest.mark.parametrize(("seed", "written"), [(7, 7), (None, None)])
def test_seed_of_one_process(seed, written, monkeypatch):
    """Run MMF's main() up to the seed; null means no seed."""
    import mmf_cli.run

    def stop(configuration):
        raise ZeroDivisionError

    for name in ("setup_imports", "registry"):
        monkeypatch.setattr(mmf_cli.run, name, Mock())
    monkeypatch.setattr(mmf_cli.run, "build_config", stop)
    config = OmegaConf.create({"training": {"seed": seed}, "device_id": 0})
    torch.manual_seed(99)
    with pytest.raises(ZeroDivisionError):
        mmf_cli.run.main(Mock(get_config=lambda: config))
    assert config.training.seed == written
    assert torch.initial_seed() == (seed or 99)


@pytest.mark.parametrize(
    ("environment", "gpus", "no_spawn", "device"),
    [
        ({"LOCAL_RANK": "3"}, 4, True, 3),
        ({"SLURM_LOCALID": "2"}, 4, True, 2),
        ({"LOCAL_RANK": "3"}, 4, False, 1),
        ({}, 4, True, 1),
        ({"LOCAL_RANK": "3"}, 1, True, 0),  # srun --gpus-per-task=1
        ({"SLURM_LOCALID": "2"}, 1, True, 0),
    ],
)
def test_device_is_the_local_rank(environment, gpus, no_spawn, device, monkeypatch):
    import mmf_cli.run

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mmf_cli.run, "main", lambda configuration, **options: None)
    config = OmegaConf.create({"device_id": None, "start_rank": 0, "distributed": {"rank": 0, "no_spawn": no_spawn}})
    mmf_cli.run.distributed_main(1, SimpleNamespace(get_config=lambda: config))
    assert config.device_id == device


@pytest.mark.parametrize(("world_size", "method"), [("1", None), ("2", "env://")])
def test_torchrun_with_one_process_is_not_distributed(world_size, method, monkeypatch):
    from mmf.utils.distributed import infer_init_method

    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "0", "WORLD_SIZE": world_size}.items():
        monkeypatch.setenv(name, value)
    group = {"init_method": None, "world_size": 8, "rank": 0, "port": -1}
    config = OmegaConf.create({"distributed": group, "training": {"device": "cpu"}})
    infer_init_method(config)
    assert config.distributed.init_method == method
    assert config.distributed.world_size == int(world_size)
