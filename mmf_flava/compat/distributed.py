"""MMF's processes: on gloo as on NCCL, and each on its own device."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure, shadow, source_has

SINCE, GLOO_WHY = "MMF 1.0.0rc1", "MMF believes to be rank 0 of 1 wherever torch has no NCCL, and always calls .cuda()"


@cure(
    "mmf.utils.distributed",
    when="after",
    what="rank, world size and barrier of whatever process group there is",
    why=GLOO_WHY,
    since=SINCE,
    until="MMF asks torch.distributed alone",
    needed=source_has("is_nccl_available", "get_rank"),
)
def process_group(module: ModuleType) -> None:
    from torch import distributed as dist

    vars(module)["dist"] = shadow(dist, is_nccl_available=dist.is_available)


@cure(
    "mmf.utils.distributed",
    when="after",
    what="distributed_init joins a gloo group where there is no CUDA",
    why=GLOO_WHY,
    since=SINCE,
    until="MMF chooses the backend by the device",
    needed=source_has(".cuda()", "distributed_init"),
)
def gloo(module: ModuleType) -> None:
    import torch
    from torch import distributed as dist

    nccl_init = module.distributed_init

    @functools.wraps(nccl_init)
    def distributed_init(config: Any) -> int:
        theirs = torch.cuda.is_available() or (hasattr(module, "is_xla") and module.is_xla())
        if theirs or dist.is_initialized() or config.distributed.world_size == 1:
            return nccl_init(config)
        dist.init_process_group(
            backend="gloo",
            init_method=config.distributed.init_method,
            world_size=config.distributed.world_size,
            rank=config.distributed.rank,
        )
        module.suppress_output(module.is_master())
        config.distributed.rank = dist.get_rank()
        return config.distributed.rank

    vars(module)["distributed_init"] = distributed_init


@cure(
    "mmf.utils.distributed",
    when="after",
    what="torchrun with one process is a run without process group",
    why="MMF takes torchrun's environment for a distributed run, and then refuses one of world size 1",
    since=SINCE,
    until="MMF accepts WORLD_SIZE=1",
    needed=source_has("WORLD_SIZE", "infer_init_method"),
)
def world_of_one(module: ModuleType) -> None:
    infer = module.infer_init_method

    @functools.wraps(infer)
    def infer_init_method(config: Any) -> None:
        if config.distributed.init_method is None and "RANK" in os.environ and os.environ.get("WORLD_SIZE") == "1":
            config.distributed.world_size = 1
        else:
            infer(config)

    vars(module)["infer_init_method"] = infer_init_method


@cure(
    "mmf_cli.run",
    when="after",
    what="each process that torchrun or Slurm has started takes the device of its local rank",
    why="MMF gives device 0 to every process that it has not spawned itself",
    since=SINCE,
    until="MMF reads LOCAL_RANK",
    needed=source_has("device_id", "distributed_main"),
)
def local_rank(module: ModuleType) -> None:
    main = module.distributed_main

    @functools.wraps(main)
    def distributed_main(device_id: int, configuration: Any, predict: bool = False) -> None:
        local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID"))
        if configuration.get_config().distributed.no_spawn and local is not None:
            device_id = int(local)
        main(device_id, configuration, predict)

    vars(module)["distributed_main"] = distributed_main


@cure(
    "mmf.trainers.base_trainer",
    when="after",
    what="without CUDA the trainer's device is the CPU, and its model is wrapped in DistributedDataParallel there too",
    why="MMF takes a distributed run for one on CUDA; on gloo it would leave every process to train on its own",
    since=SINCE,
    until="MMF chooses the device by what there is",
    needed=source_has('torch.device("cuda", self.local_rank)', "BaseTrainer._set_device"),
)
def cpu_device(module: ModuleType) -> None:
    import torch

    set_device = module.BaseTrainer._set_device

    def _set_device(self: Any) -> None:
        set_device(self)
        if not torch.cuda.is_available():
            self.device = torch.device("cpu")
            module.registry.register("current_device", self.device)

    module.BaseTrainer._set_device = _set_device
    module.BaseTrainer.parallelize_model = _parallelize_on_cpu(module, module.BaseTrainer.parallelize_model)


@cure(
    "mmf.trainers.core.device",
    when="after",
    what="without CUDA the trainer's device is the CPU, and its model is wrapped in DistributedDataParallel there too",
    why="MMF takes a distributed run for one on CUDA, and fails where there is none",
    since="MMF's main branch",
    until="MMF chooses the device by what there is",
    needed=source_has('torch.device("cuda", self.local_rank)', "TrainerDeviceMixin.configure_device"),
)
def cpu_mixin(module: ModuleType) -> None:
    import torch

    mixin = module.TrainerDeviceMixin
    configure = mixin.configure_device

    def configure_device(self: Any) -> None:
        place = self.config.distributed
        method = place.init_method
        if method is None or torch.cuda.is_available() or self.config.training.get("device") == "xla":
            configure(self)
            return
        place.init_method = None  # or MMF would take the device for CUDA
        try:
            configure(self)
        finally:
            place.init_method = method
        self.distributed = True

    mixin.configure_device = configure_device
    mixin.parallelize_model = _parallelize_on_cpu(module, mixin.parallelize_model)


def _parallelize_on_cpu(module: ModuleType, parallelize: Callable[[Any], None]) -> Callable[[Any], None]:
    import torch

    def parallelize_model(self: Any) -> None:
        parallelize(self)
        if self.distributed and getattr(self.device, "type", None) == "cpu":
            module.registry.register("distributed", True)
            unused = self.config.training.find_unused_parameters
            self.model = torch.nn.parallel.DistributedDataParallel(self.model, find_unused_parameters=unused)

    return parallelize_model


@cure(
    "mmf_cli.run",
    when="after",
    what="training.seed is the first process's on all, whatever their generators are seeded with",
    why="MMF draws another seed on each process where it is -1, and its main branch adds the rank to any; the order of "
    "the data is made from it, and must be one",
    since=SINCE,
    until="MMF keeps the seed of a run apart from a process's",
    needed=lambda module: hasattr(module, "set_seed"),
)
def set_seed(module: ModuleType) -> None:
    from torch import distributed as dist

    seed_process = module.set_seed

    @functools.wraps(seed_process)
    def set_seed(seed: int | None) -> int | None:
        seeds = [seed_process(seed)]
        if dist.is_available() and dist.is_initialized():
            dist.broadcast_object_list(seeds, src=0)
        return seeds[0]

    vars(module)["set_seed"] = set_seed


class _Rank(int):
    """A number that can be added to a seed of None, which stays None."""

    def __radd__(self, seed: int | None) -> int | None:  # type: ignore[override]
        return None if seed is None else seed + int(self)


@cure(
    "mmf_cli.run",
    when="after",
    what="training.seed: null leaves the generators alone, as MMF's defaults say",
    why="MMF adds the rank to the seed, and None cannot be added to",
    since="MMF's main branch",
    until="MMF looks before it adds",
    needed=source_has("seed + get_rank()", "main"),
)
def null_seed(module: ModuleType) -> None:
    get_rank = module.get_rank
    vars(module)["get_rank"] = lambda: _Rank(get_rank())
