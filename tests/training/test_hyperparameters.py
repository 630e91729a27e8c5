"""A resumed run has the hyperparameters and the schedule of the present recipe."""

import copy
import json

import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf
from torch.optim import lr_scheduler

from mmf_flava.errors import UserError
from mmf_flava.training.hyperparameters import INITIAL, advance, merge_groups
from tests.training.toys import batch, toy, updater

COSINE = {"type": "warmup_cosine", "params": {"num_warmup_steps": 2, "num_training_steps": 9}}
LINEAR = {"type": "warmup_linear", "params": {"num_warmup_steps": 4, "num_training_steps": 12}}
PYTHIA = {"type": "pythia", "params": {}}


@pytest.fixture(autouse=True)
def schedules():
    """Register torch's schedulers as a project in env.user_dir may do."""
    for name in ("ExponentialLR", "OneCycleLR", "CosineAnnealingLR", "StepLR"):
        registry.register_scheduler(name)(getattr(lr_scheduler, name))


def train(trained, steps):
    for number in range(steps):
        trained.accumulate(batch("imagenet", number))
        trained.step()
    return trained


def saved(trained):
    """The states as a checkpoint stores them."""
    state = copy.deepcopy(trained.state_dict())
    state["param_groups"] = json.loads(json.dumps(state["param_groups"], default=list))
    return copy.deepcopy(trained.model_state()), state, json.loads(json.dumps(trained.schedule_state()))


def resume(states, **options):
    weights, optimizer, schedule = states
    resumed = build(weights, **options)
    resumed.load_state_dict(optimizer)
    resumed.load_schedule_state(schedule)
    return resumed


def build(weights=None, **options):
    model = toy(weights, losses=("flava_mim",))
    steps = {"lr_steps": [2, 4], "lr_ratio": 0.1, "use_warmup": False, "warmup_iterations": 0, "warmup_factor": 1}
    registry.register("config", OmegaConf.create({"training": steps, "evaluation": {"predict": False}}))
    return updater(model, **options)


SCHEDULES = [
    None,
    COSINE,
    LINEAR,
    PYTHIA,
    {"type": "ExponentialLR", "params": {"gamma": 0.7}},
    {"type": "StepLR", "params": {"step_size": 2}},
    {"type": "CosineAnnealingLR", "params": {"T_max": 10}},
    {"type": "OneCycleLR", "params": {"max_lr": 0.01, "total_steps": 12}},
]


@pytest.mark.parametrize("scheduler", SCHEDULES, ids=lambda section: section and section["type"])
def test_same_recipe_resumes_exactly_and_other_rate_is_applied(scheduler):
    interrupted = train(build(scheduler=scheduler), 3)
    resumed = resume(saved(interrupted), scheduler=scheduler)
    assert resumed.optimizer.param_groups[0]["lr"] == interrupted.optimizer.param_groups[0]["lr"]
    train(interrupted, 3), train(resumed, 3)
    assert saved(interrupted)[1]["param_groups"] == saved(resumed)[1]["param_groups"]
    assert all(torch.equal(a, b) for a, b in zip(resumed.engine.weights, interrupted.engine.weights, strict=True))

    lower = resume(saved(interrupted), scheduler=scheduler, lr=0.001)
    straight = build(scheduler=scheduler, lr=0.001)
    train(straight, 6)
    assert lower.optimizer.param_groups[0]["lr"] == straight.optimizer.param_groups[0]["lr"]
    assert lower.optimizer.param_groups[0]["lr"] != interrupted.optimizer.param_groups[0]["lr"] or (
        scheduler and scheduler["type"] == "OneCycleLR"
    )


@pytest.mark.parametrize("new", [None, LINEAR, PYTHIA])
def test_another_schedule_continues_at_the_same_step(new):
    resumed = resume(saved(train(build(scheduler=COSINE), 3)), scheduler=new)
    straight = train(build(scheduler=new), 3)
    assert resumed.optimizer.param_groups[0]["lr"] == straight.optimizer.param_groups[0]["lr"]


def test_reset_optimizer_and_reset_counts_have_the_rate_of_their_first_update():
    interrupted = train(build(scheduler=COSINE), 3)
    weights, optimizer, schedule = saved(interrupted)
    fresh = build(weights, scheduler=COSINE)  # checkpoint.reset.optimizer
    fresh.load_schedule_state(schedule)
    assert fresh.optimizer.param_groups[0]["lr"] == interrupted.optimizer.param_groups[0]["lr"] > 0
    again = build(weights, scheduler=COSINE)  # checkpoint.reset.counts
    again.load_state_dict(optimizer)
    assert again.optimizer.param_groups[0]["lr"] == 0


def test_changed_hyperparameters_are_applied_and_others_keep_their_state():
    saved = [{"params": [0], "lr": 0.3, "initial_lr": 1.0, "weight_decay": 0.1, "d": 7.0, "eps": 1e-8,
              INITIAL: {"lr": 1.0, "weight_decay": 0.1, "d": 1.0, "eps": 1e-8}}]  # fmt: skip
    initial = [{"lr": 2.0, "weight_decay": 0.2, "d": 1.0, "eps": 1e-8}]
    current = [{"params": [0], "lr": 0.0, "initial_lr": 2.0, "weight_decay": 0.2, "d": 1.0, "eps": 1e-8}]
    merged = {"params": [0], "lr": 0.0, "initial_lr": 2.0, "weight_decay": 0.2, "d": 7.0, "eps": 1e-8}
    assert merge_groups(saved, initial, current) == [merged]
    with pytest.raises(UserError, match=r"groups of \[1\] parameters.*\[2\].*checkpoint.reset.optimizer=true"):
        merge_groups(saved, initial, [{**current[0], "params": [0, 1]}])


@pytest.mark.parametrize(
    ("optimizer", "before", "after"),
    [
        ("AdamW", {}, {"amsgrad": True}),
        ("AdamW", {"amsgrad": True}, {}),
        ("RMSprop", {}, {"momentum": 0.9, "centered": True}),
        ("SGD", {"momentum": 0.0}, {"momentum": 0.9}),
    ],
)
def test_options_that_need_other_state_are_applied(optimizer, before, after):
    resumed = resume(saved(train(build(optimizer=optimizer, params=before), 2)), optimizer=optimizer, params=after)
    train(resumed, 2)
    assert all(resumed.optimizer.param_groups[0][name] == value for name, value in after.items())


def test_a_long_schedule_is_not_replayed_step_by_step():
    calls = []
    weight = torch.nn.Parameter(torch.zeros(1))
    scheduler = lr_scheduler.LambdaLR(torch.optim.SGD([weight], 1.0), lambda step: calls.append(step) or 1 / (1 + step))
    advance(scheduler, 1_000_000)
    assert len(calls) == 2 and scheduler.last_epoch == 1_000_000
    assert scheduler.get_last_lr() == [1 / 1_000_001]
