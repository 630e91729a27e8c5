"""FLAVA as a plugin for MMF. Importing this package is cheap: nothing here imports torch or MMF."""

TYPE_CHECKING = False  # type checkers take it for true by its name; typing itself would cost every Python start
if TYPE_CHECKING:
    from typing import Any

    from mmf_flava.config.model import FlavaConfig
    from mmf_flava.errors import UserError
    from mmf_flava.evaluation.embedder import Embedder
    from mmf_flava.models.flava import Flava
    from mmf_flava.models.pretrained import load_image_encoder, load_pretrained, load_text_encoder

__version__ = "0.1.0"

_HOMES = {
    "Embedder": "evaluation.embedder",
    "Flava": "models.flava",
    "FlavaConfig": "config.model",
    "UserError": "errors",
    "load_image_encoder": "models.pretrained",
    "load_pretrained": "models.pretrained",
    "load_text_encoder": "models.pretrained",
}
__all__ = [
    "Embedder",
    "Flava",
    "FlavaConfig",
    "UserError",
    "__version__",
    "load_image_encoder",
    "load_pretrained",
    "load_text_encoder",
]


def __getattr__(name: str) -> "Any":
    """Imports a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
