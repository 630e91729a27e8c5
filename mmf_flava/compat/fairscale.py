"""fairscale 0.4.13's FullyShardedDataParallel on the CPU, and in bfloat16."""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

from mmf_flava.compat.cure import cure, shadow, source_has

FSDP = "fairscale.nn.data_parallel.fully_sharded_data_parallel"
SINCE, UNTIL = "fairscale 0.4", "fairscale, which is archived, gives way to torch's own FSDP"


def _no_cuda(_: object) -> bool:
    import torch

    return not torch.cuda.is_available()


@cure(
    "fairscale",
    when="before",
    what="silence about torch's deprecations in fairscale's own code",
    why="dozens of warnings per process, about which a user can do nothing",
    since="torch 2.0",
    until=UNTIL,
)
def silence(_: None) -> None:
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"fairscale\.")
    # torch names itself as the place of these
    warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.cuda\.amp\.custom_", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\._all_gather_base`", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)


class Stream:
    """Stands for a CUDA stream where everything happens in order anyway. All are one."""

    def wait_stream(self, other: Stream) -> None: ...

    def synchronize(self) -> None: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    __hash__ = None  # type: ignore[assignment]


@cure(
    FSDP,
    when="after",
    what="inert CUDA streams, and the CPU for a default device",
    why="FSDP drives CUDA streams unconditionally: without CUDA it ends in KeyError 'all_gather'",
    since=SINCE,
    until=UNTIL,
    needed=_no_cuda,
)
def streams(module: ModuleType) -> None:
    torch = module.torch
    cuda = shadow(
        torch.cuda,
        Stream=Stream,
        current_stream=lambda *device: Stream(),
        stream=lambda stream: contextlib.nullcontext(),
        synchronize=lambda *device: None,
        # FSDP makes its streams, which are inert, only where this is true
        is_available=lambda: True,
    )
    vars(module)["torch"] = shadow(torch, cuda=cuda)
    vars(module)["_get_default_cuda_device"] = lambda module: torch.device("cpu")


@cure(
    FSDP,
    when="after",
    what="Tensor.record_stream does nothing for tensors on the CPU",
    why="FSDP calls it on every gradient, and torch has it for CUDA alone",
    since=SINCE,
    until=UNTIL,
    needed=_no_cuda,
)
def record_stream(module: ModuleType) -> None:
    tensor = module.torch.Tensor
    record = tensor.record_stream

    @functools.wraps(record)
    def record_stream(self: Any, stream: Any) -> None:
        if not self.is_cpu:
            record(self, stream)

    tensor.record_stream = record_stream


@cure(
    FSDP,
    when="after",
    what="clip_grad_norm_ leaves the norm where it is",
    why="it calls .cuda() on the norm before it adds up the ranks'",
    since=SINCE,
    until=UNTIL,
    needed=_no_cuda,
)
def norm_on_cpu(module: ModuleType) -> None:
    calc_grad_norm = module.calc_grad_norm
    # .cuda() is all that clip_grad_norm_ asks of what it gets
    vars(module)["calc_grad_norm"] = lambda params, p: SimpleNamespace(cuda=lambda: calc_grad_norm(params, p))


@cure(
    "fairscale.internal.reduce_scatter_bucketer",
    when="after",
    what="buckets are flat when they are reduced",
    why="a bucket is (world, n); NCCL takes it as it is, gloo wants it flat",
    since=SINCE,
    until=UNTIL,
    needed=_no_cuda,
)
def flat_buckets(module: ModuleType) -> None:
    real = module.dist

    def _reduce_scatter_base(output: Any, input: Any, group: Any = None) -> Any:
        return real.reduce_scatter_tensor(output.view(-1), input.reshape(-1), group=group)

    vars(module)["dist"] = shadow(real, _reduce_scatter_base=_reduce_scatter_base)


@cure(
    FSDP,
    when="after",
    what="mixed precision casts the inputs to compute_dtype",
    why="it calls .half() on them whatever compute_dtype is, so bfloat16 weights meet float16 inputs",
    since=SINCE,
    until=UNTIL,
    needed=source_has("x.half()", "cast_floats_to_right_precision"),
)
def cast_to_compute_dtype(module: ModuleType) -> None:
    import torch

    forward = module.FullyShardedDataParallel.forward

    @functools.wraps(forward)
    def cast_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._lazy_init()  # knows the root, which alone casts
        if self._is_root and self.mixed_precision and self.compute_dtype is not torch.float16:

            def cast(tensor: Any) -> Any:
                return tensor.to(self.compute_dtype) if tensor.dtype is torch.float32 else tensor

            args, kwargs = module.apply_to_tensors(cast, args), module.apply_to_tensors(cast, kwargs)
        return forward(self, *args, **kwargs)

    module.FullyShardedDataParallel.forward = cast_forward


@cure(
    FSDP,
    when="after",
    what="units that a batch does not use, or of which it trains nothing, may end a backward pass",
    why="FSDP asserts that every unit has had a gradient; a batch of images trains no text encoder",
    since=SINCE,
    until=UNTIL,
    needed=source_has("assert_state(TrainingState.BACKWARD_POST)", "FullyShardedDataParallel._wait_for_post_backward"),
)
def unused_units(module: ModuleType) -> None:
    wait, done = module.FullyShardedDataParallel._wait_for_post_backward, module.TrainingState.BACKWARD_POST

    @functools.wraps(wait)
    def wait_for_post_backward(self: Any) -> None:
        for unit in module.get_fsdp_instances(self, skip_empty=True):
            if unit.training_state != done:
                unit._lazy_init()
                unit._free_full_params()
                unit._use_fp32_param_shard()
                unit.training_state = done
        wait(self)

    module.FullyShardedDataParallel._wait_for_post_backward = wait_for_post_backward


@cure(
    FSDP,
    when="after",
    what="outputs of units are remembered by a number that no other tensor gets",
    why="FSDP remembers id(tensor), which a later tensor may inherit: its hook is left out, on one process perhaps and "
    "not on another, and they gather different weights",
    since=SINCE,
    until=UNTIL,
    needed=source_has("append(id(t))", "FullyShardedDataParallel._register_pre_backward_hooks"),
)
def lasting_ids(module: ModuleType) -> None:
    numbers = itertools.count()

    def lasting_id(tensor: Any) -> int:
        if not hasattr(tensor, "_fsdp_number"):
            tensor._fsdp_number = next(numbers)
        return tensor._fsdp_number

    vars(module)["id"] = lasting_id
