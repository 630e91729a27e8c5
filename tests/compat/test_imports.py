"""Replacements for modules and names that MMF imports and other packages have removed."""

import importlib

import pytest
import torch

from mmf_flava.errors import UserError
from tests.mmf_versions import needs_main, needs_rc10


def test_adam_w_is_torchs_adamw_with_the_defaults_of_transformers():
    optimizers = importlib.import_module("mmf.modules.optimizers")
    registered = importlib.import_module("mmf.common.registry").registry.get_optimizer_class("adam_w")
    assert issubclass(registered, torch.optim.AdamW) and optimizers
    (group,) = registered([torch.nn.Parameter(torch.ones(1))]).param_groups
    assert (group["lr"], group["eps"], group["weight_decay"]) in [(1e-3, 1e-6, 0.0), (1e-3, 1e-8, 1e-2)]


@needs_rc10
@pytest.mark.parametrize("name", ["modeling_bert", "configuration_auto"])
def test_former_modules_of_transformers(name):
    place = name.rpartition("_")[2]
    former = importlib.import_module(f"transformers.{name}")
    present = vars(importlib.import_module(f"transformers.models.{place}.{name}"))
    assert all(vars(former)[each] is value for each, value in present.items() if not each.startswith("__"))


@needs_main
def test_former_module_of_lightnings_callback():
    former = importlib.import_module("pytorch_lightning.callbacks.base")
    assert former.Callback is importlib.import_module("pytorch_lightning").Callback
    assert issubclass(
        importlib.import_module("mmf.trainers.lightning_core.loop_callback").LightningLoopCallback, former.Callback
    )


@needs_main
def test_reading_a_video_is_an_error():
    utils = importlib.import_module("mmf.datasets.builders.charades._utils")
    with pytest.raises(UserError, match=r"^a\.mp4 cannot be read: torchvision [\d.+a-z]+ does not read videos"):
        utils.read_video("a.mp4", 0, 1)


def test_torchtext_has_no_pretrained_vectors():
    vocab = importlib.import_module("torchtext.vocab")
    assert importlib.import_module("torchtext").vocab is vocab
    assert vocab.pretrained_aliases == {}
