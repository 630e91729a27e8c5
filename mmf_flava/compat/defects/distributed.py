"""Patches of MMF's distributed training: gloo backend, device of each process, and seeds."""

import contextlib
import os
from typing import Any

from mmf_flava.compat.patch import overlay, patch, source_contains, wrap
from mmf_flava.compat.run_device import hide_cuda, uses_cuda

SINCE, NCCL_ONLY = "MMF 1.0.0rc1", "without NCCL, MMF assumes rank 0 and world size 1, and still calls .cuda()"


@patch(
    "mmf.utils.distributed",
    what="rank, world size and barrier use the process group of any backend",
    why=NCCL_ONLY,
    since=SINCE,
    until="MMF relies only on torch.distributed",
    needed=source_contains("is_nccl_available", "get_rank"),
)
def process_group(module: Any) -> None:
    from torch import distributed as dist

    module.dist = overlay(dist, is_nccl_available=dist.is_available)


@patch(
    "mmf.utils.distributed",
    what="without CUDA, or with training.device: cpu, distributed_init creates a gloo group",
    why=NCCL_ONLY,
    since=SINCE,
    until="MMF chooses the backend by the device",
    needed=source_contains(".cuda()", "distributed_init"),
)
def gloo(module: Any) -> None:
    @wrap(module, "distributed_init")
    def distributed_init(original: Any, config: Any) -> int:
        dist = module.dist
        has_accelerator = uses_cuda(config) or (hasattr(module, "is_xla") and module.is_xla())
        if has_accelerator or dist.is_initialized() or config.distributed.world_size == 1:
            return original(config)
        dist.init_process_group(
            backend="gloo",
            init_method=config.distributed.init_method,
            world_size=config.distributed.world_size,
            rank=config.distributed.rank,
        )
        module.suppress_output(module.is_master())
        config.distributed.rank = dist.get_rank()
        return config.distributed.rank


@patch(
    "mmf.utils.distributed",
    what="torchrun with one process starts a run without a process group",
    why="MMF assumes a distributed run if torchrun's environment variables are set, and then rejects world size 1",
    since=SINCE,
    until="MMF accepts WORLD_SIZE=1",
    needed=source_contains("WORLD_SIZE", "infer_init_method"),
)
def world_of_one(module: Any) -> None:
    @wrap(module, "infer_init_method")
    def infer_init_method(original: Any, config: Any) -> None:
        if config.distributed.init_method is None and "RANK" in os.environ and os.environ.get("WORLD_SIZE") == "1":
            config.distributed.world_size = 1
        else:
            original(config)


@patch(
    "mmf_cli.run",
    what="each process started by torchrun or Slurm uses the GPU with its local rank as index, or its only visible GPU",
    why="MMF assigns device 0 to every process that MMF has not spawned",
    since=SINCE,
    until="MMF reads the environment variable LOCAL_RANK",
    needed=source_contains("device_id", "distributed_main"),
)
def local_rank(module: Any) -> None:
    import torch

    @wrap(module, "distributed_main")
    def distributed_main(original: Any, device_id: int, configuration: Any, predict: bool = False) -> None:
        local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
        if configuration.get_config().distributed.no_spawn and local is not None:
            # with srun --gpus-per-task=1 each process has one visible GPU with index 0
            device_id = 0 if torch.cuda.device_count() == 1 else int(local)
        original(device_id, configuration, predict)


@patch(
    "mmf_cli.run",
    what="with training.device: cpu, MMF neither selects a GPU nor logs its name",
    why="if CUDA is available, MMF selects the GPU with the index of the process, which may not exist",
    since=SINCE,
    until="MMF reads training.device before it calls CUDA",
    needed=source_contains("torch.cuda.set_device", "main"),
)
def no_gpu(module: Any) -> None:
    from mmf.utils import general

    @wrap(module, "main")
    def main(original: Any, configuration: Any, *args: Any, **kwargs: Any) -> None:
        with contextlib.nullcontext() if uses_cuda(configuration.get_config()) else hide_cuda(module, general):
            original(configuration, *args, **kwargs)


@patch(
    "mmf.trainers.core.evaluation_loop",
    what="with training.device: cpu, the batch sizes of all processes are compared on the CPU",
    why="MMF moves the batch sizes to the GPU if CUDA is available",
    since="MMF's main branch",
    until="MMF uses the trainer's device",
    needed=source_contains(".cuda()", "validate_batch_sizes"),
)
def batch_sizes_on_cpu(module: Any) -> None:
    @wrap(module, "validate_batch_sizes")
    def validate_batch_sizes(original: Any, size: int) -> bool:
        with contextlib.nullcontext() if uses_cuda() else hide_cuda(module):
            return original(size)


@patch(
    "mmf.trainers.base_trainer",
    what="without CUDA, or with training.device: cpu, the trainer's device is the CPU, and its model is wrapped in "
    "DistributedDataParallel as well",
    why="MMF assumes CUDA for every distributed run, so that with gloo each process trains a separate model, and "
    "ignores training.device",
    since=SINCE,
    until="MMF chooses the device by availability",
    needed=source_contains('torch.device("cuda", self.local_rank)', "BaseTrainer._set_device"),
)
def cpu_device(module: Any) -> None:
    import torch

    @wrap(module.BaseTrainer, "_set_device")
    def _set_device(original: Any, self: Any) -> None:
        original(self)
        if not uses_cuda(self.config):
            self.device = torch.device("cpu")
            module.registry.register("current_device", self.device)

    _parallelize_on_cpu(module, module.BaseTrainer)


@patch(
    "mmf.trainers.core.device",
    what="without CUDA, or with training.device: cpu, the trainer's device is the CPU, and its model is wrapped in "
    "DistributedDataParallel as well",
    why="MMF assumes CUDA for every distributed run, fails without CUDA, and ignores training.device",
    since="MMF's main branch",
    until="MMF chooses the device by availability",
    needed=source_contains('torch.device("cuda", self.local_rank)', "TrainerDeviceMixin.configure_device"),
)
def cpu_mixin(module: Any) -> None:
    @wrap(module.TrainerDeviceMixin, "configure_device")
    def configure_device(original: Any, self: Any) -> None:
        distributed = self.config.distributed
        method = distributed.get("init_method")
        if uses_cuda(self.config) or self.config.training.get("device") == "xla":
            original(self)
            return
        distributed.init_method = None  # if it is set, MMF selects a CUDA device
        try:
            with hide_cuda(module):
                original(self)
        finally:
            distributed.init_method = method
        self.distributed = method is not None

    _parallelize_on_cpu(module, module.TrainerDeviceMixin)


def _parallelize_on_cpu(module: Any, trainer: type) -> None:
    import torch

    @wrap(trainer, "parallelize_model")
    def parallelize_model(original: Any, self: Any) -> None:
        original(self)
        if self.distributed and getattr(self.device, "type", None) == "cpu":
            module.registry.register("distributed", True)
            unused = self.config.training.find_unused_parameters
            self.model = torch.nn.parallel.DistributedDataParallel(self.model, find_unused_parameters=unused)


@patch(
    "mmf_cli.run",
    what="training.seed has the same value on all processes; the seeds of their random number generators still differ",
    why="with seed -1 MMF samples a different seed on each process, and MMF's main branch adds the rank to any seed; "
    "the order of the data is derived from training.seed and must be the same on all processes",
    since=SINCE,
    until="MMF distinguishes the seed of a run from the seeds of its processes",
    needed=lambda module: hasattr(module, "set_seed"),
)
def set_seed(module: Any) -> None:
    from torch import distributed as dist

    @wrap(module, "set_seed")
    def set_seed(original: Any, seed: int | None) -> int | None:
        module.registry.register("flava_random_seed", seed == -1)  # a resumed run uses the seed of its checkpoint
        seeds = [original(seed)]
        if dist.is_available() and dist.is_initialized():
            dist.broadcast_object_list(seeds, src=0)
        return seeds[0]


class _Rank(int):
    """A rank that can be added to a seed. If the seed is None, the sum is None."""

    def __radd__(self, seed: int | None) -> int | None:  # type: ignore[override]
        return None if seed is None else seed + int(self)


@patch(
    "mmf_cli.run",
    what="training.seed: null does not seed the random number generators, as MMF's defaults document",
    why="MMF adds the rank to the seed, which fails for None",
    since="MMF's main branch",
    until="MMF tests whether the seed is None",
    needed=source_contains("seed + get_rank()", "main"),
)
def null_seed(module: Any) -> None:
    @wrap(module, "get_rank")
    def get_rank(original: Any) -> int:
        return _Rank(original())
