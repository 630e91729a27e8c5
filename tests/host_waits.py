"""Counting of the operations by which the host waits for the device: fake CUDA tensors need no GPU."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

COPIES = ("aten::_to_copy", "aten::copy_")
# their results are values on the host, or have shapes that depend on values
READS = ("aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::nonzero", "aten::masked_select")


class HostWaits(TorchDispatchMode):
    """Context manager, inside of a ``FakeTensorMode``: list the operations that make the host wait for CUDA.

    The value of every tensor that is read is 0.

    Attributes:
        found: names of the operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name, kwargs or {}
        if name in COPIES:
            source = args[-1] if name == "aten::copy_" else args[0]
            target = args[0].device if name == "aten::copy_" else kwargs.get("device") or source.device
            waits = source.device.type != torch.device(target).type and not kwargs.get("non_blocking")
        else:
            indices = args[1] if name.startswith("aten::index") and len(args) > 1 else ()
            is_mask = isinstance(indices, list) and any(
                _on_cuda(index) and index.dtype == torch.bool for index in indices
            )
            waits = (name in READS and _on_cuda(args[0])) or is_mask
        if waits:
            self.found.append(name)
        return 0.0 if name == "aten::_local_scalar_dense" else func(*args, **kwargs)  # fake tensors have no values


def _on_cuda(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"
