"""Patches for torchvision without a loadable C++ library, and for a removed torchvision function."""

import importlib
from typing import Any

from mmf_flava.compat.patch import patch
from mmf_flava.errors import UserError

_libraries: list[object] = []  # torch drops the definitions of a library that is garbage collected


@patch(
    "torchvision.extension",
    what="the schemas of the operators nms and qnms are defined, without kernels",
    why="with a CPU build of torch, the C++ library of the CUDA build of torchvision cannot be loaded, and importing "
    "torchvision fails with 'operator torchvision::nms does not exist'. Calling nms still fails",
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
    why="MMF imports all its datasets at start-up, and charades imports read_video, which torchvision has removed",
    since="torchvision 0.26",
    until="MMF reads videos with torchcodec",
    needed=lambda _: not hasattr(importlib.import_module("torchvision.io"), "read_video"),
)
def read_video(_: None) -> None:
    def read_video(filename: str, *args: Any, **kwargs: Any) -> Any:
        version = importlib.import_module("torchvision").__version__
        raise UserError(
            f"{filename} cannot be read: torchvision {version} does not read videos. MMF's dataset charades requires "
            "torchvision 0.25 or older."
        )

    vars(importlib.import_module("torchvision.io"))["read_video"] = read_video
