"""What MMF imports from other packages and is no longer there."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from mmf_flava.compat.cure import cure
from mmf_flava.errors import UserError


def _moved(old: str, new: str, **extra: Any) -> None:
    """Declares ``old`` as a virtual module with the contents of ``new``; ``extra`` makes names that are in neither."""

    def moved(module: ModuleType) -> None:
        real = vars(importlib.import_module(new))
        vars(module).update({name: value for name, value in real.items() if not name.startswith("__")})
        for name, make in extra.items():
            vars(module).setdefault(name, make())

    moved.__name__ = old.rpartition(".")[2]
    cure(
        old,
        when="virtual",
        what=f"{old} leads to {new}",
        why="MMF 1.0.0rc10 imports the flat module that transformers had up to version 3",
        since="transformers 4.0",
        until="MMF imports from transformers.models",
    )(moved)


def _layer_norm() -> type:
    from torch import nn

    return nn.LayerNorm


_moved("transformers.modeling_bert", "transformers.models.bert.modeling_bert", BertLayerNorm=_layer_norm)
_moved("transformers.configuration_bert", "transformers.models.bert.configuration_bert")
_moved("transformers.configuration_auto", "transformers.models.auto.configuration_auto")
_moved("transformers.modeling_auto", "transformers.models.auto.modeling_auto")
_moved("transformers.tokenization_auto", "transformers.models.auto.tokenization_auto")


def _has_no_adamw(_: object) -> bool:
    return not hasattr(importlib.import_module("transformers.optimization"), "AdamW")


@cure(
    "mmf.modules.optimizers",
    when="before",
    what="transformers.optimization.AdamW, on torch's AdamW",
    why="MMF registers that optimizer as adam_w, and transformers has dropped its own",
    since="transformers 4.50",
    until="MMF takes AdamW from torch",
    needed=_has_no_adamw,
)
def adamw(_: None) -> None:
    import torch

    class AdamW(torch.optim.AdamW):
        """torch's AdamW with the defaults of transformers' (no weight decay, eps 1e-6) and its ``correct_bias``."""

        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, correct_bias=True):
            if not correct_bias:
                raise ValueError("adam_w with correct_bias=False is no longer in transformers: leave correct_bias out")
            super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    importlib.import_module("transformers.optimization").AdamW = AdamW  # type: ignore[attr-defined]


@cure(
    "demjson",
    when="virtual",
    what="demjson.decode, by YAML's reader",
    why="MMF reads --config_override with it; it can no longer be built (it needs setuptools' use_2to3)",
    since="setuptools 58",
    until="MMF reads --config_override with OmegaConf",
)
def demjson(module: ModuleType) -> None:
    import yaml

    # JSON is YAML, and the unquoted keys that demjson allowed are YAML too
    vars(module)["decode"] = yaml.safe_load


@cure(
    "torchtext",
    when="virtual",
    what="an empty torchtext",
    why="mmf.utils.vocab imports it for its pretrained GloVe vectors; torchtext is archived and built for torch 2.3",
    since="torch 2.4",
    until="MMF imports torchtext only where it loads vectors",
)
def torchtext(module: ModuleType) -> None:
    vars(module)["vocab"] = importlib.import_module("torchtext.vocab")


@cure(
    "torchtext.vocab",
    when="virtual",
    what="a torchtext.vocab without any pretrained vectors",
    why="see torchtext",
    since="torch 2.4",
    until="MMF imports torchtext only where it loads vectors",
)
def torchtext_vocab(module: ModuleType) -> None:
    vars(module)["pretrained_aliases"] = {}


@cure(
    "pytorch_lightning.callbacks.base",
    when="virtual",
    what="pytorch_lightning.callbacks.base with Callback",
    why="MMF's Lightning trainer imports its base class from a file that is gone",
    since="pytorch-lightning 2.0",
    until="MMF imports it from pytorch_lightning.callbacks",
)
def lightning_callbacks(module: ModuleType) -> None:
    vars(module)["Callback"] = importlib.import_module("pytorch_lightning.callbacks").Callback


@cure(
    "mmf.datasets.builders.charades._utils",
    when="before",
    what="torchvision.io.read_video, which says what has become of it",
    why="MMF imports all its datasets at start-up, and charades imports a function that torchvision has dropped",
    since="torchvision 0.26",
    until="MMF reads videos with torchcodec",
    needed=lambda _: not hasattr(importlib.import_module("torchvision.io"), "read_video"),
)
def read_video(_: None) -> None:
    def read_video(filename: str, *args: Any, **kwargs: Any) -> Any:
        version = importlib.import_module("torchvision").__version__
        raise UserError(
            f"{filename} cannot be read: torchvision {version} no longer reads videos, and MMF's charades dataset "
            "knows no other way."
        )

    vars(importlib.import_module("torchvision.io"))["read_video"] = read_video
