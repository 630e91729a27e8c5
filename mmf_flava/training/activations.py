"""Count of the bytes that a forward pass saves for the backward pass, with fake CUDA tensors and without a GPU.

Under torch's ``FakeTensorMode`` the model computes shapes and dtypes only, which takes a few seconds at full size.
Attention saves the tensors that CUDA's flash and memory-efficient kernels save.
"""

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmf_flava.models.outputs import MaskedPrediction
from mmf_flava.models.transformer import Transformer


@dataclass(frozen=True)
class SavedBytes:
    """The result of ``count_saved``.

    activations: bytes of saved tensors. With activation checkpointing: the inputs of all blocks, the saved tensors of
        one block, and one gradient of the size of the largest of these tensors.
    weight_copies: bytes of half-precision copies of weights, made by autocast.
    logits: number of elements of the largest logits tensor of a masked prediction head.
    trained: names of the parameters that receive a gradient.
    """

    activations: int
    weight_copies: int
    logits: int
    trained: frozenset[str]


def count_saved(model: Any, batch: Any, autocast: bool = False, checkpointing: bool = False) -> SavedBytes:
    """Count the bytes that a forward pass of the pretraining model saves for backward, except weights and the batch.

    Call this function under ``FakeTensorMode``, with the model and the batch on CUDA.

    Args:
        autocast: run under autocast to bf16.
        checkpointing: assume ``training.activation_checkpointing: true``.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    ignored = {_key(tensor) for tensor in (*names, *batch.values()) if isinstance(tensor, Tensor)}
    saved, copies = _Storages(ignored), _WeightCopies({_key(parameter) for parameter in names})
    with ExitStack() as stack:
        blocks = [stack.enter_context(_checkpoint_block(block, saved)) for block in _blocks(model) if checkpointing]
        for context in (saved_tensors_hooks(saved.add, _identity), _CudaAttention(), _autocast(autocast), copies):
            stack.enter_context(context)
        output = model(batch)
    ignored.update(copies.storages.sizes)
    return SavedBytes(
        activations=saved.total() + max((block.total(saved.sizes) + block.largest() for block in blocks), default=0),
        weight_copies=copies.storages.total(),
        logits=max(
            (value.logits.numel() for value in output.values() if isinstance(value, MaskedPrediction)), default=0
        ),
        trained=frozenset(names[parameter] for parameter in _leaves(output["losses"].values())),
    )


def peak_bytes(function: Callable[[], Any]) -> int:
    """Return the peak memory in bytes of the tensors that ``function`` creates."""
    with _LiveBytes() as live:
        function()
    return live.peak


class _Storages:
    """Distinct tensor storages with their sizes in bytes. Keeps them alive, so that their keys stay unique."""

    def __init__(self, ignored: Collection[int] = ()) -> None:
        self.ignored = ignored
        self.sizes: dict[int, int] = {}
        self.kept: list[torch.UntypedStorage] = []

    def add(self, tensor: Tensor) -> Tensor:
        if _key(tensor) not in self.sizes:
            self.sizes[_key(tensor)] = tensor.untyped_storage().nbytes()
            self.kept.append(tensor.untyped_storage())
        return tensor

    def total(self, excluded: Collection[int] = ()) -> int:
        return sum(size for key, size in self.sizes.items() if key not in self.ignored and key not in excluded)

    def largest(self) -> int:
        return max((size for key, size in self.sizes.items() if key not in self.ignored), default=0)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _blocks(model: nn.Module) -> list[nn.Module]:
    return [block for module in model.modules() if isinstance(module, Transformer) for block in module.blocks]


@contextmanager
def _checkpoint_block(block: Any, saved: _Storages) -> Iterator[_Storages]:
    """Treat the block as checkpointed: add its input to ``saved``; yield the storages that its recomputation saves."""
    recomputed = _Storages(saved.ignored)
    block.forward = partial(_run_block, block.forward, saved, recomputed)
    try:
        yield recomputed
    finally:
        del block.forward


def _run_block(forward: Any, saved: _Storages, recomputed: _Storages, x: Tensor, **arguments: Any) -> Tensor:
    saved.add(x)
    with saved_tensors_hooks(recomputed.add, _identity):
        return forward(x, **arguments)


def _leaves(losses: Iterable[Tensor]) -> Iterator[nn.Parameter]:
    """Yield the parameters that a backward pass of the losses reaches."""
    nodes = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            yield node.variable
        following = {function for function, _ in node.next_functions if function is not None} - seen
        seen |= following
        nodes += following


class _WeightCopies(TorchDispatchMode):
    """Dispatch mode that records the tensors created by casting weights to another dtype."""

    def __init__(self, weights: Collection[int]) -> None:
        super().__init__()
        self.weights, self.storages = weights, _Storages()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and _key(args[0]) in self.weights:
            self.storages.add(result)
        return result


class _LiveBytes(TorchDispatchMode):
    """Dispatch mode that tracks the total size of the storages that operations create and have not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {_key(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and _key(value) not in inputs:
                storage = value.untyped_storage()
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _free(self, size: int) -> None:
        self.live -= size


class _CudaAttention(TorchFunctionMode):
    """Function mode that runs the attention kernels that torch selects on CUDA.

    For fake tensors, torch would select a kernel that saves the attention weights.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **_: Any
) -> Tensor:
    if attn_mask is None and query.dtype != torch.float32:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, dropout_p)[0]
    bias = None
    if attn_mask is not None:
        bias = query.new_zeros(attn_mask.shape).expand(*query.shape[:3], key.shape[2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, dropout_p)[0]


@contextmanager
def _autocast(enabled: bool) -> Iterator[None]:
    """Context manager: autocast to bf16 on CUDA. ``torch.autocast`` would disable itself on a machine without CUDA."""
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()
