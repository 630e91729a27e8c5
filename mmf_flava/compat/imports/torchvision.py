"""torchvision with a torch that its C++ library was not built for, and a function that it has removed."""

import importlib
from typing import Any

from mmf_flava.compat.patch import patch
from mmf_flava.errors import UserError

_libraries: list[object] = []  # torch drops the definitions of a library that is garbage collected


@patch(
    "torchvision.extension",
    what="the schemas of nms and qnms are defined, without kernels",
    why="the package index has torchvision for CUDA only. With a CPU build of torch its C++ library cannot be loaded, "
    "and importing it fails with 'operator torchvision::nms does not exist'. Calling nms still fails",
    since="torchvision 0.17",
    until="torchvision registers its meta kernels only for existing operators",
    needed=lambda module: not module._has_ops(),
)
def schemas(_: Any) -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)


@patch(
    "mmf.datasets.builders.charades._utils",
    when="before",
    what="torchvision.io.read_video exists and raises an error when called",
    why="MMF imports all its datasets at start-up, and charades imports a function that torchvision has removed",
    since="torchvision 0.26",
    until="MMF reads videos with torchcodec",
    needed=lambda _: not hasattr(importlib.import_module("torchvision.io"), "read_video"),
)
def read_video(_: None) -> None:
    def read_video(filename: str, *args: Any, **kwargs: Any) -> Any:
        version = importlib.import_module("torchvision").__version__
        raise UserError(
            f"{filename} cannot be read: torchvision {version} does not read videos, which MMF's charades dataset "
            "requires."
        )

    vars(importlib.import_module("torchvision.io"))["read_video"] = read_video
