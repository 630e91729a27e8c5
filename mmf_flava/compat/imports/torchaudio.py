"""Patch for image transforms of MMF's main branch if torchaudio is not installed."""

from importlib.util import find_spec
from typing import Any

from mmf_flava.compat.patch import overlay, patch, source_contains


def _requires_torchaudio(module: Any) -> bool:
    uses_it = source_contains("import transforms", "TorchvisionTransforms.__init__")
    return find_spec("torchaudio") is None and uses_it(module)


@patch(
    "mmf.datasets.processors.image_processors",
    what="MMF's own transforms, such as GrayScaleTo3Channels, are found without torchaudio",
    why="MMF looks up image transforms in torchaudio first, and fails if torchaudio is not installed",
    since="MMF's main branch of 2022",
    until="MMF looks up transforms in its registry first",
    needed=_requires_torchaudio,
)
def own_transforms(module: Any) -> None:
    transforms = module.transforms

    def find(name: str) -> Any:
        found = getattr(transforms, name, None) or module.registry.get_processor_class(name)
        if found is None:
            raise AttributeError(name)
        return found

    view = overlay(transforms)
    view.__getattr__ = find  # type: ignore[method-assign]
    module.transforms = view
