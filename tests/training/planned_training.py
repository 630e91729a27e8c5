"""Training as in DINO: a model with schedules and fixed parameters, ``flava_cosine``, clipping of each parameter."""

import copy

import torch.distributed as dist

from mmf_flava.models.pretraining import FlavaPretraining
from tests.training.toys import batch, toy, updater

FIXED = ("heads.mim.decoder.bias", "heads.mim.dense.weight")
FIXED_UPDATES, UPDATES = 2, 4
SCHEDULE = {
    "type": "flava_cosine",
    "params": {"num_training_steps": UPDATES, "num_warmup_steps": 2, "min_lr": 1e-3, "weight_decay_end": 0.4},
}
OPTIONS = {"scheduler": SCHEDULE, "clip": 0.05, "mode": "parameter", "params": {"weight_decay": 0.04, "eps": 1e-3}}


class PlannedToy(FlavaPretraining):
    """The small FLAVA with the methods for schedules of a model; two parameters are fixed in the first updates."""

    def plan_updates(self, total, per_epoch):
        self.calls = [(total, per_epoch)]

    def start_update(self, update):
        self.calls.append(update)

    def fixed_parameters(self):
        return [*FIXED] if self.calls[-1] < FIXED_UPDATES else []


def planned(weights=None, lr=0.02, **options):
    model = toy(weights, losses=("flava_mim",))
    model.__class__ = PlannedToy
    trained = updater(model, lr=lr, **{**OPTIONS, **options})
    if options.get("precision") == "fp16":
        trained.precision.load_state_dict({"loss_scale": 128.0})  # no gradient overflows at this scale
    return trained


def state(trained):
    """The weights, the optimizer's state by name, and the hyperparameters of the next update."""
    names = [trained.engine.names[weight] for weight in trained.engine.weights]
    moments = {names[index]: entry for index, entry in trained.state_dict()["state"].items()}
    groups = [(group["lr"], group["weight_decay"]) for group in trained.optimizer.param_groups]
    return copy.deepcopy({"weights": trained.model_state(), "moments": moments, "groups": groups})


def update(trained, number, rows=slice(None)):
    """Do an update of two batches."""
    for step in range(2):
        trained.accumulate(batch("imagenet", 2 * number + step, rows), last=step == 1)
    assert trained.step()


def train(rows=slice(None), first=0, trained=None, **options):
    """Train to ``UPDATES``; return the states before training and after every update."""
    trained = trained or planned(**options)
    states = [state(trained)]
    for number in range(first, UPDATES):
        update(trained, number, rows)
        states.append(state(trained))
    return states


def train_and_resume(after, rows=slice(None), **options):
    """Train to ``UPDATES`` from the saved state of update ``after``; return the last state and the model's calls."""
    interrupted = planned(**options)
    for number in range(after):
        update(interrupted, number, rows)
    saved = copy.deepcopy([interrupted.model_state(), interrupted.state_dict(), interrupted.schedule_state()])
    if dist.is_initialized():
        dist.broadcast_object_list(saved)
    resumed = planned(saved[0], **options)
    resumed.load_state_dict(saved[1])
    resumed.load_schedule_state(saved[2])
    return train(rows, after, resumed)[-1], resumed.engine.model.calls


def clipped_gradients(rows=slice(None), max_norm=1.0, **options):
    """Return the gradients of an update: the difference of the weights before and after a step of SGD with rate 1."""
    options = {"optimizer": "SGD", "params": {"momentum": 0.0}, "scheduler": None, **options}
    trained = planned(clip=max_norm, lr=1.0, **options)
    before = trained.model_state()
    before = {name: value.clone() for name, value in before.items()}
    for number in range(FIXED_UPDATES):
        trained.num_steps = FIXED_UPDATES  # no parameter is fixed
        trained.accumulate(batch("imagenet", number, rows), last=number == 1)
    assert trained.step()
    after = trained.model_state()
    return {name: before[name] - after[name] for name in before}
