"""The device and the processes of FLAVA's runs, on a machine whose GPUs are faked."""

import argparse
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from mmf.common.registry import registry
from mmf.utils.configuration import Configuration
from mmf.utils.env import setup_imports
from omegaconf import OmegaConf

from mmf_flava.compat.mmf_api import MMF_VERSION
from mmf_flava.compat.run_device import uses_cuda
from mmf_flava.errors import UserError
from tests.conftest import DEMO
from tests.mmf_versions import needs_main

FINETUNING = "projects/flava/configs/finetune/demo_imagenet.yaml"


@pytest.fixture
def gpus(monkeypatch):
    """``gpus(4)`` fakes a machine with four GPUs; returns the selected ones."""

    def fake(count: int) -> list:
        selected: list = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", selected.append)
        monkeypatch.setattr(torch.cuda, "init", lambda: None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "fake GPU")
        return selected

    return fake


@pytest.fixture
def started(monkeypatch):
    """``started(option, ...)`` runs ``mmf_run`` up to its trainer and returns the configurations of its processes."""
    import mmf_cli.run

    before = registry.get("config", no_warning=True)
    processes: list = []

    def build_trainer(config):
        processes.append(config)
        return Mock()

    def spawn(fn, args, nprocs):
        processes.extend([args[0].get_config()] * nprocs)

    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mmf_cli.run, "build_trainer", build_trainer)
    monkeypatch.setattr(torch.multiprocessing, "spawn", spawn)

    def run(*options: str, config: str = DEMO) -> list:
        processes.clear()
        mmf_cli.run.run([f"config={config}", *options])
        return processes

    yield run
    registry.register("config", before)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([], 1),
        (["training.sharding=ddp"], 4),
        (["training.sharding=fsdp"], 4),
        (["training.sharding=ddp", "training.device=cpu"], 1),
        (["training.sharding=ddp", "training.device=cuda:1"], 1),
        (["run_type=test"], 4),  # an evaluation needs no sharding
        (["distributed.world_size=2"], 2),  # an error of the trainer
    ],
)
def test_training_without_sharding_starts_one_process(options, count, started, gpus, tmp_path):
    gpus(4)
    assert len(started(*options, f"env.save_dir={tmp_path}")) == count


def test_finetuning_uses_all_gpus(started, gpus, tmp_path):
    gpus(4)
    assert len(started(f"env.save_dir={tmp_path}", config=FINETUNING)) == 4


@pytest.mark.parametrize(("device", "selected"), [("cuda", [0]), ("cuda:1", [1]), ("cpu", [])])
def test_one_process_selects_the_device_of_the_run(device, selected, started, gpus, tmp_path):
    found = gpus(4)
    (config,) = started(f"training.device={device}", f"env.save_dir={tmp_path}")
    assert found == selected
    assert config.training.device == device


def test_one_gpu_and_several_processes_raise_user_error(started, gpus, tmp_path):
    gpus(4)
    options = ("training.sharding=ddp", "distributed.world_size=2", f"env.save_dir={tmp_path}")
    with pytest.raises(
        UserError, match=r"training\.device: cuda:1 selects one GPU, but this run has several processes"
    ):
        started(*options, "training.device=cuda:1")


def build_configuration(*options: str):
    setup_imports()
    before = registry.get("config", no_warning=True)
    try:
        return Configuration(argparse.Namespace(config_override=None, opts=[f"config={DEMO}", *options])).get_config()
    finally:
        registry.register("config", before)


def test_default_device_depends_on_the_machine(gpus):
    gpus(0)
    assert build_configuration().training.device == "cpu"
    gpus(1)
    assert build_configuration().training.device == "cuda"


@pytest.mark.parametrize(
    ("device", "count", "words"),
    [
        ("gpu", 1, ": 'gpu' is not a device.* Did you mean 'cuda'"),
        ("cuda", 0, " is cuda, but torch found no GPU"),
        ("cuda:4", 4, ": cuda:4 was not found"),
        ("xla", 1, ": 'xla' is not a device"),
    ],
)
def test_unavailable_devices_raise_user_error(device, count, words, gpus):
    gpus(count)
    with pytest.raises(UserError, match=f"training.device{words}"):
        build_configuration(f"training.device={device}")


def test_device_of_the_registered_configuration(gpus, global_config):
    gpus(1)
    assert uses_cuda()  # MMF's default is cuda
    global_config.training.device = "cpu"
    assert not uses_cuda()
    assert uses_cuda(OmegaConf.create({"training": {"device": "cuda:0"}}))
    gpus(0)
    assert not uses_cuda(OmegaConf.create({"training": {"device": "cuda"}}))


def group_config(device: str, **training):
    group = {"init_method": "tcp://h:1", "world_size": 2, "rank": 0, "backend": "nccl"}
    return OmegaConf.create({"distributed": group, "device_id": 0, "training": {"device": device, **training}})


@pytest.fixture
def created(monkeypatch):
    """The options of process groups, which are not created."""
    from mmf.utils import distributed

    groups: list = []
    monkeypatch.setattr(dist, "init_process_group", lambda **options: groups.append(options))
    monkeypatch.setattr(dist, "new_group", lambda **options: groups.append(options))
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(distributed, "suppress_output", lambda is_main: None)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "x")
    return groups


@pytest.mark.parametrize(("device", "backend"), [("cuda", "cpu:gloo,cuda:nccl"), ("cpu", "gloo")])
def test_backends_and_timeout_of_the_process_group(device, backend, created, gpus, own_run):
    from mmf.utils.distributed import distributed_init

    gpus(2)
    config = group_config(device, process_group_timeout=90)
    distributed_init(config)
    assert [(group["backend"], group["timeout"]) for group in created] == [(backend, timedelta(minutes=90))]
    assert config.distributed.backend == "nccl"


def test_default_timeout_is_hours_and_a_selected_backend_is_kept(created, gpus, own_run):
    from mmf.utils.distributed import distributed_init

    gpus(1)
    config = group_config("cuda")
    config.distributed.backend = "gloo"
    distributed_init(config)
    assert [(group["backend"], group["timeout"]) for group in created] == [("gloo", timedelta(hours=6))]


def test_process_group_of_other_runs_is_left_to_mmf(created, gpus):
    from mmf.utils.distributed import distributed_init

    gpus(2)
    distributed_init(group_config("cuda"))
    assert [(group["backend"], group.get("timeout")) for group in created] == [("nccl", None)]


def test_process_groups_of_fairscale_have_the_timeout(created, global_config, own_run):
    from fairscale.internal import parallel

    global_config.training.process_group_timeout = 90
    parallel.dist.new_group(ranks=[0, 1])
    assert created == [{"ranks": [0, 1], "timeout": timedelta(minutes=90)}]


def build_trainer(config):
    """Return a trainer of MMF with its device configured."""
    if MMF_VERSION == "rc10":
        from mmf.trainers.base_trainer import BaseTrainer

        trainer = BaseTrainer(config)
        trainer._set_device()
    else:
        from mmf.trainers.core.device import TrainerDeviceMixin

        trainer = TrainerDeviceMixin()
        trainer.config = config
        trainer.configure_device()
    return trainer


@pytest.mark.parametrize("method", ["tcp://h:1", None])
def test_trainer_of_mmf_uses_the_cpu_on_a_machine_with_gpus(method, gpus):
    selected = gpus(2)
    config = group_config("cpu")
    config.distributed.init_method = method
    trainer = build_trainer(config)
    assert trainer.device == torch.device("cpu")
    assert trainer.distributed is (method is not None)
    assert config.distributed.init_method == method and not selected


def test_trainer_of_mmf_uses_one_gpu_only(gpus, own_run, monkeypatch):
    gpus(4)
    config = group_config("cuda:1", find_unused_parameters=False)
    config.distributed.init_method, config.device_id = None, 1
    trainer = build_trainer(config)
    trainer.model = model = torch.nn.Linear(1, 1)
    monkeypatch.setattr(torch.nn, "DataParallel", Mock(side_effect=AssertionError("several GPUs")))
    trainer.parallelize_model()
    assert trainer.model is model
    assert trainer.device.type == "cuda"


@needs_main
def test_trainer_of_mmf_selects_the_gpu(gpus, own_run):
    selected = gpus(4)
    config = group_config("cuda:1")
    config.distributed.init_method = None
    assert build_trainer(config).device == torch.device("cuda", 1)
    assert selected[-1] == torch.device("cuda", 1)


@needs_main
def test_batch_sizes_are_compared_on_the_device_of_the_run(gpus, global_config, monkeypatch):
    from mmf.trainers.core.evaluation_loop import validate_batch_sizes

    gpus(2)
    monkeypatch.setattr(torch.Tensor, "cuda", Mock(side_effect=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        validate_batch_sizes(3)
    global_config.training.device = "cpu"
    assert validate_batch_sizes(3)


@pytest.mark.parametrize(("device", "selected"), [("cuda", [1]), ("cpu", [])])
def test_main_of_other_runs_selects_a_gpu_only_for_cuda(device, selected, gpus, monkeypatch):
    import mmf_cli.run

    found = gpus(2)
    monkeypatch.setattr(mmf_cli.run, "setup_imports", lambda: None)
    monkeypatch.setattr(mmf_cli.run, "build_config", Mock(side_effect=ZeroDivisionError))
    config = OmegaConf.create({"training": {"device": device, "seed": 1}, "device_id": 1})
    configuration = SimpleNamespace(get_config=lambda: config, import_user_dir=lambda: None)
    with pytest.raises(ZeroDivisionError):
        mmf_cli.run.main(configuration)
    assert found == selected
