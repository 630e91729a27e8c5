"""torchvision beside a torch that its C++ library was not built for."""

from __future__ import annotations

from types import ModuleType

from mmf_flava.compat.cure import cure

_libraries: list[object] = []  # torch forgets the definitions of a library that is collected


@cure(
    "torchvision.extension",
    when="after",
    what="the schemas of nms and qnms, without kernels",
    why="the package index has torchvision for CUDA only; beside a CPU torch its C++ library cannot be loaded, and"
    " torchvision then fails to import with 'operator torchvision::nms does not exist'. Calling nms still fails",
    since="torchvision 0.17",
    until="torchvision registers its meta kernels only for operators that exist",
    needed=lambda module: not module._has_ops(),
)
def schemas(_: ModuleType) -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)
