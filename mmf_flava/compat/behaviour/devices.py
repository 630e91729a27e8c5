"""Patches for devices and processes: ``training.device``, number of processes, and process groups."""

from datetime import timedelta
from functools import partial
from typing import Any

from mmf_flava.compat import flava_run
from mmf_flava.compat.patch import overlay, patch, source_contains, wrap
from mmf_flava.compat.run_device import uses_cuda
from mmf_flava.config.device import check_device, parse_device
from mmf_flava.config.run import TrainingConfig
from mmf_flava.errors import UserError

SINCE = "MMF 1.0.0rc1"


@patch(
    "mmf.utils.configuration",
    what="training.device must be cpu, cuda or cuda:N, and the device must be available",
    why="MMF trains on the CPU if the device is misspelt or CUDA is not available, with at most a warning",
    since=SINCE,
    until="MMF checks training.device",
)
def valid_device(module: Any) -> None:
    import torch

    @wrap(module.Configuration, "_update_specific", only_if=flava_run.is_current)
    def _update_specific(original: Any, self: Any, config: Any) -> Any:
        device, is_ours = str(config.training.device), config.training.trainer in flava_run.TRAINERS
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        options = getattr(self.args, "opts", None) or []
        # a recipe with device: cuda also runs without a GPU: MMF logs a warning and uses the CPU
        in_recipe = device == "cuda" and gpus == 0 and not any(str(o).startswith("training.device") for o in options)
        if (is_ours or device != "xla") and not in_recipe:  # MMF's own trainers support xla
            check_device(device, gpus)
        return original(self, config)


@patch(
    "mmf_cli.run",
    what="training with training.sharding: none, and every run with training.device: cpu or cuda:N, uses one process; "
    "cuda:N uses GPU N",
    why="MMF starts a process for each GPU of the machine, and a single process always uses GPU 0",
    since=SINCE,
    until="MMF reads training.device and has an option for sharding",
)
def one_process(module: Any) -> None:
    import torch

    @wrap(module, "infer_init_method", only_if=flava_run.is_current)
    def infer_init_method(original: Any, config: Any) -> None:
        original(config)
        distributed = config.distributed
        by_default = distributed.init_method is None and distributed.world_size == torch.cuda.device_count()
        if by_default and _needs_one_process(config):
            distributed.world_size = 1
        _check_index(config)

    @wrap(module, "main", only_if=flava_run.is_current)
    def main(original: Any, configuration: Any, *args: Any, **kwargs: Any) -> None:
        config = configuration.get_config()
        _check_index(config)
        if (index := _gpu_index(config)) is not None:
            config.device_id = index
        original(configuration, *args, **kwargs)


def _needs_one_process(config: Any) -> bool:
    training = config.training
    is_sharded = training.get("sharding", TrainingConfig.sharding) != "none"
    trains_alone = training.trainer == "flava" and "train" in config.run_type and not is_sharded
    return trains_alone or training.device == "cpu" or _gpu_index(config) is not None


def _gpu_index(config: Any) -> int | None:
    """Return the index N of ``training.device: cuda:N``, or None for other devices."""
    device = str(config.training.device)
    return None if device == "xla" else parse_device(device)[1]


def _check_index(config: Any) -> None:
    distributed = config.distributed
    is_distributed = distributed.init_method is not None or distributed.world_size > 1
    if is_distributed and _gpu_index(config) is not None:
        raise UserError(
            f"training.device: {config.training.device} selects one GPU, but this run has several processes. Set it to "
            "cuda to use one GPU for each process, or start one process."
        )


@patch(
    "mmf.trainers.base_trainer",
    what="with training.device: cuda:N, the model is not replicated on other GPUs",
    why="MMF replicates the model on all GPUs of the machine",
    since=SINCE,
    until="MMF reads training.device",
    needed=source_contains("DataParallel", "BaseTrainer.parallelize_model"),
)
def one_gpu(module: Any) -> None:
    _keep_on_one_gpu(module, module.BaseTrainer)


@patch(
    "mmf.trainers.core.device",
    what="with training.device: cuda:N, the trainer uses only GPU N",
    why="MMF selects GPU 0, and replicates the model on all GPUs of the machine",
    since="MMF's main branch",
    until="MMF reads training.device",
    needed=source_contains("torch.cuda.set_device(0)", "TrainerDeviceMixin.configure_device"),
)
def one_gpu_mixin(module: Any) -> None:
    import torch

    @wrap(module.TrainerDeviceMixin, "configure_device", only_if=flava_run.is_current)
    def configure_device(original: Any, self: Any) -> None:
        original(self)
        if (index := _gpu_index(self.config)) is not None and uses_cuda(self.config):
            self.device = torch.device("cuda", index)
            torch.cuda.set_device(self.device)

    _keep_on_one_gpu(module, module.TrainerDeviceMixin)


def _keep_on_one_gpu(module: Any, trainer: type) -> None:
    @wrap(trainer, "parallelize_model", only_if=flava_run.is_current)
    def parallelize_model(original: Any, self: Any) -> None:
        if _gpu_index(self.config) is None:
            original(self)
            return
        module.registry.register("data_parallel", False)
        module.registry.register("distributed", False)


@patch(
    "mmf.utils.distributed",
    what="the process group has the timeout training.process_group_timeout, and uses gloo for CPU tensors",
    why="NCCL ends the run if other ranks wait longer than ten minutes for an evaluation on rank 0, and does not "
    "support CPU tensors",
    since=SINCE,
    until="MMF has an option for the timeout",
    needed=source_contains("init_process_group", "distributed_init"),
)
def process_group_options(module: Any) -> None:
    @wrap(module, "distributed_init", only_if=flava_run.is_current)
    def distributed_init(original: Any, config: Any) -> int:
        dist, backend = module.dist, config.distributed.backend
        if backend == "nccl" and uses_cuda(config):
            config.distributed.backend = "cpu:gloo,cuda:nccl"
        module.dist = overlay(dist, init_process_group=partial(dist.init_process_group, timeout=_timeout(config)))
        try:
            return original(config)
        finally:
            module.dist, config.distributed.backend = dist, backend


@patch(
    "fairscale.internal.parallel",
    what="fairscale's process groups have the timeout training.process_group_timeout",
    why="fairscale creates them with torch's default timeout, which is only some minutes",
    since="fairscale 0.4",
    until="fairscale, which is archived, is replaced by torch's own FSDP",
)
def shard_groups(module: Any) -> None:
    from mmf.common.registry import registry

    dist = module.dist

    def new_group(*args: Any, **options: Any) -> Any:
        if flava_run.is_current() and (config := registry.get("config", no_warning=True)):
            options.setdefault("timeout", _timeout(config))
        return dist.new_group(*args, **options)

    module.dist = overlay(dist, new_group=new_group)


def _timeout(config: Any) -> timedelta:
    training = config.get("training") or {}
    minutes = training.get("process_group_timeout", TrainingConfig.process_group_timeout)
    return timedelta(minutes=minutes)
