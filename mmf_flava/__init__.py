"""FLAVA as a plugin for MMF. Public names are imported lazily: importing this package imports neither torch nor MMF."""

TYPE_CHECKING = False  # True for type checkers; typing.TYPE_CHECKING is not used, because importing typing is slow
if TYPE_CHECKING:
    from typing import Any

    from mmf_flava.config.model import FlavaConfig
    from mmf_flava.errors import UserError
    from mmf_flava.evaluation.embedder import Embedder
    from mmf_flava.models.flava import Flava
    from mmf_flava.models.pretrained import load_pretrained
    from mmf_flava.weights.encoders import load_image_encoder, load_text_encoder

__version__ = "0.1.0"

_LAZY_IMPORTS = {
    "Embedder": "evaluation.embedder",
    "Flava": "models.flava",
    "FlavaConfig": "config.model",
    "UserError": "errors",
    "load_image_encoder": "weights.encoders",
    "load_pretrained": "models.pretrained",
    "load_text_encoder": "weights.encoders",
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
    """Import a public name on first access."""
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY_IMPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY_IMPORTS})
