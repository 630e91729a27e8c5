"""DINO's published code with random weights; needs a checkout of facebookresearch/dino on PYTHONPATH.

Its function ``train_one_epoch`` runs on the CPU with one process: moves of tensors to a GPU do nothing here. The drop
path is 0, because the random numbers of both implementations differ.
"""

import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf
from torch import nn

from mmf_flava.config.dino import (
    DinoConfig,
    DinoEncoderConfig,
    DinoHeadConfig,
    TeacherMomentumConfig,
    TeacherTemperatureConfig,
)
from mmf_flava.config.run import TrainingConfig
from mmf_flava.models.dino.network import DinoNetwork
from mmf_flava.models.dino.pretraining import FlavaDino
from mmf_flava.models.dino.schedule import DinoSchedule
from mmf_flava.training.update import Updater
from tests.models.conftest import sample_list
from tests.models.dino.toys import dino

main_dino = pytest.importorskip("main_dino")
utils = pytest.importorskip("utils")
vision_transformer = pytest.importorskip("vision_transformer")

EPOCHS, PER_EPOCH = 3, 2
STD = 0.2  # of the weights of the small size; the initial 0.02 is small for its width
LAST_LAYER = "head.last_layer.weight_"
# image size, patch size, width, layers, heads, hidden size and bottleneck of the head, outputs, size of the local crops
SIZES = {"small": (32, 8, 48, 3, 3, 64, 32, 50, 16), "base": (224, 16, 768, 12, 12, 2048, 256, 65536, 96)}
ARGUMENTS = {"clip_grad": 0.3, "freeze_last_layer": 1}
MOMENTUM = TeacherMomentumConfig(0.9, 1.0)
TEMPERATURE = TeacherTemperatureConfig(0.04, 0.07, 2)
SCHEDULE = {"min_lr": 1e-3, "weight_decay_end": 0.4}
RATE, DECAY, WARMUP_EPOCHS = 0.05, 0.04, 1


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory):
    """A process group of one process, which the published code needs."""
    folder = tmp_path_factory.mktemp("dino")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self, *_, **__: self)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(utils.MetricLogger, "synchronize_between_processes", lambda self: None)


def config(size="small", norm_last_layer=True):
    image, patch, width, layers, heads, hidden, bottleneck, outputs, _ = SIZES[size]
    encoder = DinoEncoderConfig(width, layers, heads, 4 * width, drop_path=0.0, image_size=image, patch_size=patch)
    return {"encoder": encoder, "head": DinoHeadConfig(hidden, bottleneck, outputs, norm_last_layer)}


def peer_network(settings: DinoConfig, norm_last_layer: bool):
    encoder, head = settings.image_encoder, settings.head
    backbone = vision_transformer.VisionTransformer(
        [encoder.image_size],
        encoder.patch_size,
        embed_dim=encoder.hidden_size,
        depth=encoder.num_layers,
        num_heads=encoder.num_heads,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=encoder.layer_norm_eps),
    )
    projection = vision_transformer.DINOHead(
        encoder.hidden_size,
        head.out_dim,
        norm_last_layer=norm_last_layer,
        hidden_dim=head.hidden_size,
        bottleneck_dim=head.bottleneck_size,
    )
    return utils.MultiCropWrapper(backbone, projection)


def peer_name(name: str) -> str:
    return name.replace("encoder.", "backbone.")


def copy_weights(network: DinoNetwork, peer: nn.Module) -> None:
    """Copy our weights to the published code's network."""
    state = {peer_name(name): value.clone() for name, value in network.state_dict().items()}
    missing, unexpected = peer.load_state_dict(state, strict=False)
    assert not unexpected and {*missing} <= {f"{LAST_LAYER}g"}


class Peers:
    """Our model and the published code's networks and loss, with the same weights.

    Args:
        initial: whether student and teacher have (different) initial weights; otherwise, their weights are larger.
    """

    def __init__(
        self, size: str = "small", norm_last_layer: bool = True, num_local: int = 3, initial: bool = False
    ) -> None:
        self.size, self.num_local = size, num_local
        self.model: FlavaDino = dino(
            **config(size, norm_last_layer),
            teacher_temperature=copy.deepcopy(TEMPERATURE),
            teacher_momentum=copy.deepcopy(MOMENTUM),
            freeze_last_layer=ARGUMENTS["freeze_last_layer"],
        )
        settings = self.model.settings
        for network in (self.model.student, self.model.teacher) if initial else ():
            network.load_state_dict(DinoNetwork(settings.image_encoder, settings.head).state_dict())
            for parameter in network.parameters() if size == "small" else ():
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=STD)
        self.student, self.teacher = (peer_network(settings, normed) for normed in (norm_last_layer, True))
        for network, peer in ((self.model.student, self.student), (self.model.teacher, self.teacher)):
            copy_weights(network, peer)
        self.teacher.requires_grad_(False)
        self.loss = main_dino.DINOLoss(settings.head.out_dim, 2 + num_local, *self._temperatures(), EPOCHS)
        nn.init.normal_(self.model.center, std=0.1)
        self.loss.center.copy_(self.model.center)

    def _temperatures(self):
        return TEMPERATURE.first, TEMPERATURE.last, TEMPERATURE.warmup_epochs

    def crops(self, number: int, samples: int = 3):
        generator = torch.Generator().manual_seed(number)
        sizes = [SIZES[self.size][0]] * 2 + [SIZES[self.size][-1]] * self.num_local
        return [torch.randn(samples, 3, size, size, generator=generator) for size in sizes]

    def batch(self, number: int, samples: int = 3):
        crops = self.crops(number, samples)
        fields = {"crops_global": torch.stack(crops[:2], dim=1)}
        if self.num_local:
            fields["crops_local"] = torch.stack(crops[2:], dim=1)
        return sample_list("imagenet", **fields)

    def differences(self) -> dict[str, float]:
        """Return the largest absolute differences of the centres and of the weights."""
        found = {"center": largest(self.model.center, self.loss.center)}
        for name, network, peer in (
            ("student", self.model.student, self.student),
            ("teacher", self.model.teacher, self.teacher),
        ):
            theirs = peer.state_dict()
            found[name] = max(largest(value, theirs[peer_name(key)]) for key, value in network.state_dict().items())
        return found


def largest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return (ours - theirs).abs().max().item()


@pytest.mark.parametrize(
    ("size", "norm_last_layer", "num_local"),
    [("small", True, 0), ("small", True, 3), ("small", False, 0), ("small", False, 3), ("base", True, 3)],
)
def test_loss_centre_gradients_and_teacher_of_one_step(size, norm_last_layer, num_local):
    peers = Peers(size, norm_last_layer, num_local, initial=True)
    samples = 8 if size == "small" else 2
    model, update = peers.model.train(), 3
    model.plan_updates(EPOCHS * PER_EPOCH, PER_EPOCH)
    model.start_update(update)
    (loss,) = model(peers.batch(0, samples))["losses"].values()
    loss.backward()
    crops = peers.crops(0, samples)
    expected = peers.loss(peers.student(crops), peers.teacher(crops[:2]), update // PER_EPOCH)
    expected.backward()
    gradients = dict(peers.student.named_parameters())
    gradients = {name: gradients[peer_name(name)].grad for name, _ in model.student.named_parameters()}
    found = {name: parameter.grad for name, parameter in model.student.named_parameters()}
    gradient = max(largest(found[name], gradients[name]) for name in found)
    largest_gradient = max(value.abs().max().item() for value in gradients.values())
    assert largest_gradient > 1e-2
    before = copy.deepcopy(peers.teacher.state_dict())
    momentum = utils.cosine_scheduler(MOMENTUM.first, MOMENTUM.last, EPOCHS, PER_EPOCH)[update]
    with torch.no_grad():
        for student, teacher in zip(peers.student.parameters(), peers.teacher.parameters(), strict=True):
            student.mul_(0.9)
            teacher.mul_(momentum).add_((1 - momentum) * student)
        for parameter in model.student.parameters():
            parameter.mul_(0.9)
    model.after_step(dict(model.named_parameters()))
    differences = peers.differences()
    differences |= {"loss": largest(loss, expected), "gradients": gradient}
    # rounding errors of gradients are proportional to the gradients, which are larger for the small size
    limits = dict.fromkeys(differences, 1e-6) | ({"gradients": 3e-6} if size == "small" else {})
    assert all(value < limits[name] for name, value in differences.items()), differences
    assert max(largest(value, before[name]) for name, value in peers.teacher.state_dict().items()) > 1e-3


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_training_with_all_schedules_clipping_and_the_frozen_layer(norm_last_layer):
    """Three epochs of two updates, with SGD, because Adam amplifies rounding errors of small gradients."""
    peers, total = Peers("small", norm_last_layer), EPOCHS * PER_EPOCH
    student = nn.parallel.DistributedDataParallel(peers.student)
    optimizer = torch.optim.SGD(utils.get_params_groups(student), lr=0, momentum=0.9)
    schedules = (
        utils.cosine_scheduler(RATE, SCHEDULE["min_lr"], EPOCHS, PER_EPOCH, warmup_epochs=WARMUP_EPOCHS),
        utils.cosine_scheduler(DECAY, SCHEDULE["weight_decay_end"], EPOCHS, PER_EPOCH),
        utils.cosine_scheduler(MOMENTUM.first, MOMENTUM.last, EPOCHS, PER_EPOCH),
    )
    losses, forward = [], main_dino.DINOLoss.forward
    peers.loss.forward = lambda *arguments: losses.append(forward(peers.loss, *arguments)) or losses[-1]
    for epoch in range(EPOCHS):
        loader = [(peers.crops(PER_EPOCH * epoch + step), None) for step in range(PER_EPOCH)]
        networks = (student, peers.teacher, peers.teacher, peers.loss)
        arguments = SimpleNamespace(epochs=EPOCHS, **ARGUMENTS)
        main_dino.train_one_epoch(*networks, loader, optimizer, *schedules, epoch, None, arguments)
    trained = ours(peers, total)
    for update in range(total):
        assert trained.optimizer.param_groups[0]["lr"] == schedules[0][update]
        assert [group["weight_decay"] for group in trained.optimizer.param_groups] == [schedules[1][update], 0]
        (loss,) = trained.accumulate(peers.batch(update)).values()
        assert largest(loss, losses[update].detach()) < 5e-6, update
        assert trained.step()
    assert all(value < 1e-6 for value in peers.differences().values()), peers.differences()


def ours(peers: Peers, total: int) -> Updater:
    schedule = {"num_training_steps": total, "num_warmup_steps": WARMUP_EPOCHS * PER_EPOCH, **SCHEDULE}
    values = {
        "training": {
            "clip_gradients": True,
            "clip_norm_mode": "parameter",
            "lr_scheduler": True,
            "max_updates": total,
        },
        "optimizer": {"type": "SGD", "params": {"lr": RATE, "momentum": 0.9, "weight_decay": DECAY}},
        "scheduler": {"type": "flava_cosine", "params": schedule},
    }
    training = TrainingConfig(max_grad_l2_norm=ARGUMENTS["clip_grad"])
    return Updater(peers.model.train(), OmegaConf.create(values), training, torch.device("cpu"), PER_EPOCH)


def test_schedules_of_the_published_run_are_equal_to_the_digit():
    """ViT-B/16 on ImageNet-1k: 400 epochs, 1,281,167 images, batches of 1,024."""
    epochs, per_epoch = 400, 1_281_167 // 1024
    schedule = DinoSchedule(DinoConfig(), epochs * per_epoch, per_epoch)
    momenta = utils.cosine_scheduler(0.996, 1, epochs, per_epoch)
    loss = main_dino.DINOLoss(2, 12, 0.04, 0.07, 50, epochs)
    for update in [*range(0, len(momenta), 997), len(momenta) - 1]:
        assert schedule.momentum(update) == momenta[update]
        assert schedule.temperature(update) == loss.teacher_temp_schedule[update // per_epoch]
    assert np.all(loss.teacher_temp_schedule[:3] < loss.teacher_temp_schedule[1:4])
