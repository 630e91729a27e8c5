"""Import stubs of modules and classes that MMF imports and that transformers has moved or removed."""

import importlib
from types import ModuleType
from typing import Any

from mmf_flava.compat.patch import patch


def _register_moved_module(old: str, new: str, **extra: Any) -> None:
    """Register ``old`` as a virtual module with the contents of ``new``.

    Args:
        extra: additional names of the virtual module, and functions that create their values.
    """

    def change(module: ModuleType) -> None:
        real = vars(importlib.import_module(new))
        vars(module).update({name: value for name, value in real.items() if not name.startswith("__")})
        for name, create in extra.items():
            vars(module).setdefault(name, create())

    change.__name__ = old.rpartition(".")[2]
    patch(
        old,
        when="virtual",
        what=f"{old} has the contents of {new}",
        why="MMF 1.0.0rc10 imports modules under the flat names of transformers 3",
        since="transformers 4.0",
        until="MMF imports from transformers.models",
    )(change)


def _layer_norm() -> type:
    from torch import nn

    return nn.LayerNorm


_register_moved_module(
    "transformers.modeling_bert", "transformers.models.bert.modeling_bert", BertLayerNorm=_layer_norm
)
_register_moved_module("transformers.configuration_bert", "transformers.models.bert.configuration_bert")
_register_moved_module("transformers.configuration_auto", "transformers.models.auto.configuration_auto")
_register_moved_module("transformers.modeling_auto", "transformers.models.auto.modeling_auto")
_register_moved_module("transformers.tokenization_auto", "transformers.models.auto.tokenization_auto")


def _lacks_adamw(_: object) -> bool:
    return not hasattr(importlib.import_module("transformers.optimization"), "AdamW")


@patch(
    "mmf.modules.optimizers",
    when="before",
    what="transformers.optimization.AdamW is a subclass of torch's AdamW",
    why="MMF registers this optimizer as adam_w, and transformers has removed it",
    since="transformers 4.50",
    until="MMF uses torch's AdamW",
    needed=_lacks_adamw,
)
def adamw(_: None) -> None:
    import torch

    class AdamW(torch.optim.AdamW):
        """torch's AdamW with the arguments and defaults of transformers' AdamW (no weight decay, eps 1e-6)."""

        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, correct_bias=True):
            if not correct_bias:
                raise ValueError("adam_w: correct_bias=False is not supported. Remove correct_bias.")
            super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    importlib.import_module("transformers.optimization").AdamW = AdamW  # type: ignore[attr-defined]
