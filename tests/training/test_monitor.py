"""Selection of the best evaluation."""

import math

import pytest

from mmf_flava.config.run import EvaluationConfig, RetrievalConfig, ZeroShotConfig
from mmf_flava.errors import UserError
from mmf_flava.training.monitor import Monitor

EVALUATION = EvaluationConfig(zero_shot=ZeroShotConfig(), retrieval=RetrievalConfig(recall_at=[1]))


def test_lower_loss_is_better():
    monitor = Monitor("total_loss", True, ["flava_mim", "flava_mlm"], EvaluationConfig())
    losses = [(3.0, 1.0), (2.0, 2.5), (math.nan, 0.1), (2.0, 1.5), (2.0, 1.5)]
    found = [monitor.improved({"losses": {"flava_mim": a, "flava_mlm": b}}) for a, b in losses]
    assert found == [True, False, False, True, False]
    assert not monitor.improved({"losses": {}})


def test_higher_accuracy_is_better_before_and_after_a_resume():
    monitor = Monitor("val/zero_shot/accuracy", False, [], EVALUATION)
    assert monitor.improved({"losses": {}, "zero_shot": {"accuracy": 0.5}})
    resumed = Monitor("zero_shot/accuracy", False, [], EVALUATION)
    resumed.load_state_dict(monitor.state_dict())
    assert not resumed.improved({"losses": {}, "zero_shot": {"accuracy": 0.5}})
    assert not resumed.improved({"losses": {}})
    other = Monitor("retrieval/text_to_image_r1", False, [], EVALUATION)
    other.load_state_dict(monitor.state_dict())
    assert other.improved({"losses": {}, "retrieval": {"text_to_image_r1": 0.1}})


@pytest.mark.parametrize(
    ("criteria", "minimize", "words"),
    [
        ("zero_shot/accurracy", False, "Did you mean 'zero_shot/accuracy'"),
        ("retrieval/text_to_image_r5", False, "text_to_image_r1"),
        ("zero_shot/accuracy", True, "would keep the checkpoint with the worst zero_shot/accuracy. Set it to false"),
        ("losses/flava_mim", False, "Set it to true"),
    ],
)
def test_unknown_metric_or_wrong_direction_raises_user_error(criteria, minimize, words):
    with pytest.raises(UserError, match=words):
        Monitor(criteria, minimize, ["flava_mim"], EVALUATION)
