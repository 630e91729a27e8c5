"""MMF's own distributed functions on two gloo processes, and the device that each process takes."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import multiprocessing, nn


def two_processes(rank: int, rendezvous: str) -> None:
    from mmf.trainers.base_trainer import BaseTrainer
    from mmf.utils import distributed

    place = {"init_method": f"file://{rendezvous}", "world_size": 2, "rank": rank, "backend": "nccl"}
    config = OmegaConf.create({"distributed": place, "device_id": 0, "training": {"find_unused_parameters": False}})
    assert distributed.distributed_init(config) == rank
    assert (distributed.get_rank(), distributed.get_world_size()) == (rank, 2)
    assert distributed.is_master() == (rank == 0)
    distributed.synchronize()
    assert distributed.broadcast_scalar(rank + 7, src=0) == 7

    trainer = BaseTrainer(config)
    trainer._set_device()
    assert trainer.device == torch.device("cpu")
    trainer.model = nn.Linear(1, 1)
    trainer.parallelize_model()
    trainer.model(torch.full((1, 1), float(rank))).backward()
    # the mean of the inputs 0 and 1: the processes do train together
    assert trainer.model.module.weight.grad.item() == 0.5
    dist.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA, MMF's own way is taken")
def test_gloo(tmp_path):
    multiprocessing.spawn(two_processes, (str(tmp_path / "rendezvous"),), nprocs=2)


@pytest.mark.parametrize(
    ("environment", "no_spawn", "device"),
    [({"LOCAL_RANK": "3"}, True, 3), ({"SLURM_LOCALID": "2"}, True, 2), ({"LOCAL_RANK": "3"}, False, 1), ({}, True, 1)],
)
def test_the_device_is_the_local_rank(environment, no_spawn, device, monkeypatch):
    import mmf_cli.run

    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mmf_cli.run, "main", lambda configuration, **options: None)
    config = OmegaConf.create({"device_id": None, "start_rank": 0, "distributed": {"rank": 0, "no_spawn": no_spawn}})
    mmf_cli.run.distributed_main(1, SimpleNamespace(get_config=lambda: config))
    assert config.device_id == device


@pytest.mark.parametrize(("world_size", "method"), [("1", None), ("2", "env://")])
def test_torchrun_with_one_process_is_no_distributed_run(world_size, method, monkeypatch):
    from mmf.utils.distributed import infer_init_method

    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "0", "WORLD_SIZE": world_size}.items():
        monkeypatch.setenv(name, value)
    config = OmegaConf.create({"distributed": {"init_method": None, "world_size": 8, "rank": 0, "port": -1}})
    infer_init_method(config)
    assert config.distributed.init_method == method
    assert config.distributed.world_size == int(world_size)
