"""The schedules of temperature, momentum and frozen layer, by hand."""

import math

import pytest

from mmf_flava.config.dino import DinoConfig, TeacherMomentumConfig, TeacherTemperatureConfig
from mmf_flava.models.dino.schedule import DinoSchedule


def schedule(total=8, per_epoch=2, **settings):
    return DinoSchedule(DinoConfig(**settings), total, per_epoch)


@pytest.mark.parametrize(
    ("warmup_epochs", "expected"),
    [(3, [1, 1, 2, 2, 3, 3, 3, 3]), (2, [1, 1, 3, 3, 3, 3, 3, 3]), (1, [1, 1, 3, 3, 3, 3, 3, 3]), (0, [3] * 8)],
)
def test_the_temperature_increases_linearly_per_epoch(warmup_epochs, expected):
    found = schedule(teacher_temperature=TeacherTemperatureConfig(1.0, 3.0, warmup_epochs))
    assert [found.temperature(update) for update in range(8)] == expected


def test_the_last_epoch_of_the_increase_has_the_last_temperature_exactly():
    found = schedule(100, 1)
    assert found.temperature(0) == 0.04 and found.temperature(49) == found.temperature(99) == 0.07
    assert found.temperature(48) == pytest.approx(0.07 - 0.03 / 49)


def test_the_momentum_is_a_cosine_per_update():
    found = schedule(4, teacher_momentum=TeacherMomentumConfig(0.5, 1.0))
    expected = [0.5, 0.75 - math.sqrt(2) / 8, 0.75, 0.75 + math.sqrt(2) / 8]
    assert [found.momentum(update) for update in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize(("epochs", "frozen"), [(0, 0), (1, 2), (3, 6)])
def test_the_last_layer_is_frozen_in_the_first_epochs(epochs, frozen):
    found = schedule(freeze_last_layer=epochs)
    assert [found.freezes_last_layer(update) for update in range(8)] == [True] * frozen + [False] * (8 - frozen)
