"""Patches of FullyShardedDataParallel (FSDP) of fairscale 0.4.13 for CPUs, bfloat16 and unused parameters."""

from __future__ import annotations

import contextlib
import itertools
from types import SimpleNamespace
from typing import Any

from mmf_flava.compat.patch import overlay, patch, source_contains, wrap
from mmf_flava.compat.run_device import uses_cuda

FSDP = "fairscale.nn.data_parallel.fully_sharded_data_parallel"
SINCE, UNTIL = "fairscale 0.4", "fairscale, which is archived, is replaced by torch's own FSDP"


def _on_cpu(_: object) -> bool:
    return not uses_cuda()


class Stream:
    """Replacement of CUDA streams on the CPU, where operations run in order. All instances are equal."""

    def wait_stream(self, other: Stream) -> None: ...

    def synchronize(self) -> None: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    __hash__ = None  # type: ignore[assignment]


@patch(
    FSDP,
    what="CUDA streams do nothing, and the default device is the CPU",
    why="FSDP always uses CUDA streams; without CUDA it raises KeyError 'all_gather'",
    since=SINCE,
    until=UNTIL,
    needed=_on_cpu,
)
def streams(module: Any) -> None:
    torch = module.torch
    cuda = overlay(
        torch.cuda,
        Stream=Stream,
        current_stream=lambda *device: Stream(),
        stream=lambda stream: contextlib.nullcontext(),
        synchronize=lambda *device: None,
        # FSDP creates its streams only if this function returns True
        is_available=lambda: True,
    )
    module.torch = overlay(torch, cuda=cuda)
    module._get_default_cuda_device = lambda module: torch.device("cpu")


@patch(
    FSDP,
    what="Tensor.record_stream does nothing for tensors on the CPU",
    why="FSDP calls record_stream on every gradient, and torch implements it for CUDA only",
    since=SINCE,
    until=UNTIL,
    needed=_on_cpu,
)
def record_stream(module: Any) -> None:
    @wrap(module.torch.Tensor, "record_stream")
    def record_stream(original: Any, self: Any, stream: Any) -> None:
        if not self.is_cpu:
            original(self, stream)


@patch(
    FSDP,
    what="clip_grad_norm_ does not move the norm to a GPU",
    why="clip_grad_norm_ calls .cuda() on the norm before it adds the norms of all ranks",
    since=SINCE,
    until=UNTIL,
    needed=_on_cpu,
)
def norm_on_cpu(module: Any) -> None:
    @wrap(module, "calc_grad_norm")
    def calc_grad_norm(original: Any, params: Any, p: float) -> Any:
        # clip_grad_norm_ uses no other attribute of the result
        return SimpleNamespace(cuda=lambda: original(params, p))


@patch(
    "fairscale.internal.reduce_scatter_bucketer",
    what="buckets are flattened before they are reduced",
    why="a bucket has the shape (world size, n), which gloo supports neither for CPU nor for CUDA tensors",
    since=SINCE,
    until=UNTIL,
)
def flat_buckets(module: Any) -> None:
    real = module.dist

    def _reduce_scatter_base(output: Any, input: Any, group: Any = None) -> Any:
        return real.reduce_scatter_tensor(output.view(-1), input.reshape(-1), group=group)

    module.dist = overlay(real, _reduce_scatter_base=_reduce_scatter_base)


@patch(
    FSDP,
    what="the cast of nested FSDP units to the compute precision waits for the optimizer step",
    why="the cast runs on a stream that waits only if the root unit has mixed precision: with an fp32 root, the cast "
    "may read weights before the optimizer step has written them",
    since=SINCE,
    until=UNTIL,
    needed=source_contains(
        "if self.mixed_precision or self.move_params_to_cpu", "FullyShardedDataParallel._wait_for_previous_optim_step"
    ),
)
def cast_waits(module: Any) -> None:
    @wrap(module.FullyShardedDataParallel, "_cast_fp32_param_shards_to_fp16")
    def _cast_fp32_param_shards_to_fp16(original: Any, self: Any, params: Any = None) -> None:
        # the current stream is "all_gather", which waits for the optimizer step
        self._streams["fp32_to_fp16"].wait_stream(module.torch.cuda.current_stream())
        original(self, params)


@patch(
    FSDP,
    what="mixed precision casts the inputs to compute_dtype",
    why="FSDP always casts the inputs to float16, also for bfloat16 weights",
    since=SINCE,
    until=UNTIL,
    needed=source_contains("x.half()", "cast_floats_to_right_precision"),
)
def cast_to_compute_dtype(module: Any) -> None:
    import torch

    @wrap(module.FullyShardedDataParallel, "forward")
    def forward(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        self._lazy_init()  # determines the root unit; only the root casts inputs
        if self._is_root and self.mixed_precision and self.compute_dtype is not torch.float16:

            def cast(tensor: Any) -> Any:
                return tensor.to(self.compute_dtype) if tensor.dtype is torch.float32 else tensor

            args, kwargs = module.apply_to_tensors(cast, args), module.apply_to_tensors(cast, kwargs)
        return original(self, *args, **kwargs)


@patch(
    FSDP,
    what="a backward pass may skip FSDP units that the batch does not use or that are frozen",
    why="FSDP asserts that every unit has received a gradient, but a batch of images does not train the text encoder",
    since=SINCE,
    until=UNTIL,
    needed=source_contains(
        "assert_state(TrainingState.BACKWARD_POST)", "FullyShardedDataParallel._wait_for_post_backward"
    ),
)
def unused_units(module: Any) -> None:
    states = module.TrainingState

    @wrap(module.FullyShardedDataParallel, "_wait_for_post_backward")
    def _wait_for_post_backward(original: Any, self: Any) -> None:
        for unit in module.get_fsdp_instances(self, skip_empty=True):
            trained = any(parameter.requires_grad for parameter in unit.params)
            expected = states.BACKWARD_POST if trained else states.BACKWARD_PRE
            if unit.training_state != expected:
                unit._lazy_init()
                unit._free_full_params()
                unit._use_fp32_param_shard()
                unit.training_state = expected
        original(self)


@patch(
    FSDP,
    what="outputs of FSDP units are identified by a unique number",
    why="FSDP stores id(tensor), which Python may reuse for a later tensor. FSDP then does not register the hook of "
    "the later tensor, possibly on one process only, and the processes gather different weights",
    since=SINCE,
    until=UNTIL,
    needed=source_contains("append(id(t))", "FullyShardedDataParallel._register_pre_backward_hooks"),
)
def lasting_ids(module: Any) -> None:
    numbers = itertools.count()

    def lasting_id(tensor: Any) -> int:
        if not hasattr(tensor, "_fsdp_number"):
            tensor._fsdp_number = next(numbers)
        return tensor._fsdp_number

    module.id = lasting_id
