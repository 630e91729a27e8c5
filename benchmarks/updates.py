"""One training update of each implementation on one batch, with the optimizer and the clipping of ``RECIPE``.

mmf_flava's update is that of its trainer: ``Updater.accumulate`` and ``Updater.step``. The others have the usual loop:
autocast in bf16, backward pass, ``clip_grad_norm_`` with the same norm, and fused AdamW with the same parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from batches import Batch
from peers import PEERS, build_mmf_flava
from torch import nn

from mmf_flava.config.recipes import recipe_path
from mmf_flava.data.from_recipe import read_recipe

MMF_FLAVA = "mmf_flava"
RECIPE = "pretrain/own"
KEYS = ("dataset_config.pmd.data_dir=.", "training.max_epochs=null", "training.max_updates=1000")


@dataclass
class Update:
    """A model with its optimizer. ``run`` does one update and clears the gradients."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    run: Callable[[], Any]

    def state_bytes(self) -> int:
        """Return the bytes of weights, buffers and optimizer state, and of the gradients of the trained parameters."""
        tensors = [t for state in self.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
        tensors += self.model.state_dict().values()
        distinct = {tensor.data_ptr(): tensor for tensor in tensors}.values()
        return sum(tensor.nbytes for tensor in [*distinct, *self.optimizer.state])


def read_config(precision: str) -> Any:
    """Return the complete config of ``RECIPE`` in fp32 or bf16."""
    return read_recipe(recipe_path(RECIPE), [*KEYS, f"training.precision={precision}"])


def build_update(
    implementation: str, kind: str, batch: Batch, cached: bool, compiled: bool, config: Any, device: torch.device
) -> Update:
    """Build a full-size model with random weights and its update.

    Args:
        implementation: ``MMF_FLAVA`` or a key of ``PEERS``.
        cached: use the image codes of the batch instead of running the codebook.
        config: result of ``read_config``.
    """
    if implementation == MMF_FLAVA:
        from mmf_flava.training.settings import read_settings
        from mmf_flava.training.update import Updater

        with device:
            model, samples = build_mmf_flava(kind, batch, cached, compiled)
        updater = Updater(model.to(device).train(), config, read_settings(config).training, device)
        return Update(model, updater.optimizer, lambda: (updater.accumulate(samples), updater.step()))
    with device:
        model, forward = PEERS[implementation](kind, batch, cached, compiled)
    model = model.to(device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, **config.optimizer.params, fused=True)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.training.precision == "bf16"):
            loss = forward()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, config.training.max_grad_l2_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Update(model, optimizer, run)
