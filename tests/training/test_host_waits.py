"""How often the host waits for the device in an update of each kind of batch, counted with fake CUDA tensors.

Without a CUDA driver, torch cannot run the backward pass. It has no operation of ours that waits.
"""

import pytest
import torch
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import FakeTensorMode

from mmf_flava.config.run import TrainingConfig
from mmf_flava.data.collate import collate
from mmf_flava.training.guard import UpdateGuard
from mmf_flava.training.signals import StopSignals
from mmf_flava.training.update import Updater
from mmf_flava.training.update_losses import UpdateLosses
from tests.host_waits import HostWaits
from tests.training.toys import FIELDS, SAMPLES, batch, toy

CUDA = torch.device("cuda")
CONFIG = {
    "training": {"clip_gradients": True, "clip_norm_mode": "all", "max_updates": 12, "lr_scheduler": False},
    "optimizer": {"type": "SGD", "params": {"lr": 0.1}},  # Adam reads its step count, on the CPU
    "scheduler": None,
}


def collated(kind):
    fields = batch(kind)
    names = [name for name in (*FIELDS[kind], "is_correct") if name in fields]
    samples = [{name: fields[name][row] for name in names} for row in range(SAMPLES)]
    if "is_correct" in names:
        samples = [{**sample, "is_correct": int(sample["is_correct"])} for sample in samples]
    return collate(samples, kind, "train")


@pytest.mark.parametrize("kind", FIELDS)
def test_an_update_waits_once(kind, tmp_path, monkeypatch):
    samples = collated(kind)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with CUDA:
            model = toy()
        trained = Updater(model, OmegaConf.create(CONFIG), TrainingConfig(max_grad_l2_norm=1.0), CUDA)

        def backward(loss):
            for weight in trained.engine.weights:
                weight.grad = torch.ones_like(weight)

        monkeypatch.setattr(trained.precision, "backward", backward)
        guard, signals = UpdateGuard(tmp_path / "skipped.jsonl"), StopSignals()
        with HostWaits() as waits:
            losses = UpdateLosses(model, [samples], CUDA)
            guard.add_batch(samples, trained.accumulate(samples.to(CUDA), update=losses))
            assert not waits.found
            norm = guard.check(0, losses.means, trained.squared_norm())
            assert norm == 0 and trained.step(norm)
            assert not signals.received_by_any(CUDA)
        assert waits.found == ["aten::_to_copy"]  # of the norm, the losses and the signals


@pytest.mark.parametrize(
    ("operation", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: torch.tensor(2.0, device=CUDA), 1),
        (lambda x: x.new_zeros(2).copy_(torch.zeros(2)), 1),
        (lambda x: torch.full((), 2.0, device=CUDA), 0),
        (lambda x: torch.zeros(2).to(CUDA, non_blocking=True), 0),
        (lambda x: torch.nonzero_static(x, size=1), 0),
        (lambda x: torch.zeros(2).sum().item(), 0),
    ],
)
def test_waits_are_counted(operation, waits):
    with FakeTensorMode(), HostWaits() as counted:
        operation(torch.zeros(2, device=CUDA))
    assert len(counted.found) == waits
