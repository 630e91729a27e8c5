"""Selection of the best evaluation, and early stopping."""

import math

import pytest
from omegaconf import OmegaConf

from mmf_flava.compat import mmf_api
from mmf_flava.config.criteria import known_criteria
from mmf_flava.errors import UserError
from mmf_flava.training.monitor import Monitor

KNOWN = {
    "total_loss": True,
    "losses/flava_mim": True,
    "zero_shot/accuracy": False,
    "retrieval/text_to_image_r1": False,
    "memes/roc_auc": False,
    "memes/f1": None,
}


def test_lower_loss_is_better():
    monitor = Monitor("total_loss", True, KNOWN)
    losses = [(3.0, 1.0), (2.0, 2.5), (math.nan, 0.1), (2.0, 1.5), (2.0, 1.5)]
    found = [monitor.improved({"losses": {"flava_mim": a, "flava_mlm": b}}, 1) for a, b in losses]
    assert found == [True, False, False, True, False]
    assert not monitor.improved({"losses": {}}, 1)


def test_higher_accuracy_is_better_before_and_after_a_resume():
    monitor = Monitor("val/zero_shot/accuracy", False, KNOWN)
    assert monitor.improved({"losses": {}, "zero_shot": {"accuracy": 0.5}}, 10)
    resumed = Monitor("zero_shot/accuracy", False, KNOWN)
    resumed.load_state_dict(monitor.state_dict(), 20)
    assert not resumed.improved({"losses": {}, "zero_shot": {"accuracy": 0.5}}, 30)
    assert not resumed.improved({"losses": {}}, 30)
    other = Monitor("retrieval/text_to_image_r1", False, KNOWN)
    other.load_state_dict(monitor.state_dict(), 20)
    assert other.improved({"losses": {}, "retrieval": {"text_to_image_r1": 0.1}}, 30)


@pytest.mark.parametrize(
    ("criteria", "values"),
    [
        ("memes/roc_auc", {"metrics": {"roc_auc": 0.75}}),
        ("memes/roc_auc", {"metrics": {"memes/roc_auc": 0.75, "vqa2/roc_auc": 0.5}}),
        ("val/memes/f1/macro", {"metrics": {"f1/macro": 0.75}}),
        ("losses/flava_mim", {"losses": {"flava_mim": 0.75}}),
    ],
)
def test_a_criteria_is_named_as_in_mmf_or_as_in_the_metrics_file(criteria, values):
    monitor = Monitor(criteria, criteria.startswith("losses"), KNOWN)
    assert monitor.improved({"losses": {"other": 1.0}} | values, 1)
    assert monitor.value == 0.75


def test_a_criteria_that_only_the_first_validation_can_check():
    monitor = Monitor("own/loss_a", True, {"total_loss": True, "losses": None, "own": None})
    assert monitor.improved({"losses": {"loss_a": 1.0}}, 1) and not monitor.improved({"losses": {}}, 2)
    with pytest.raises(UserError, match=r"does not compute 'own/loss_a'. Did you mean 'losses/loss_b'"):
        monitor.improved({"losses": {"loss_b": 1.0}}, 2)


def test_patience_ends_at_the_same_validation_as_in_mmf():
    early_stopping = pytest.importorskip("mmf.utils.early_stopping")
    for patience in (0, 5, 10, 25):
        monitor = Monitor("zero_shot/accuracy", False, KNOWN, patience)
        saves = type("Saves", (), dict.fromkeys(("save", "restore", "finalize"), lambda *_, **__: None))()
        theirs = early_stopping.EarlyStopping(None, saves, "accuracy", patience, minimize=False)
        ended, expected = [], []
        for update, value in zip(range(10, 90, 10), (0.1, 0.3, 0.2, 0.4, 0.4, 0.3, 0.2, 0.1), strict=True):
            improved = monitor.improved({"losses": {}, "zero_shot": {"accuracy": value}}, update)
            ended.append(not improved and monitor.patience_ended(update))
            average = type("Average", (), {"global_avg": value})
            meter = type("Meter", (), {"meters": {"val/accuracy": average}})
            expected.append(theirs(update, update, meter))
        assert ended == expected and any(ended)
        assert monitor.update == theirs.best_monitored_update == 40


def test_values_of_averages_are_not_compared_with_values_of_weights():
    averaged, other = (Monitor("total_loss", True, KNOWN) for _ in range(2))
    averaged.averages = True
    averaged.improved({"losses": {"a": 1.0}}, 4)
    other.load_state_dict(averaged.state_dict(), 4)
    assert other.value is None and other.improved({"losses": {"a": 2.0}}, 6)
    averaged.load_state_dict(averaged.state_dict(), 4)
    assert averaged.value == 1.0 and not averaged.improved({"losses": {"a": 2.0}}, 6)


def test_patience_needs_a_value():
    monitor = Monitor("zero_shot/accuracy", False, KNOWN, 0)
    assert not monitor.improved({"losses": {}}, 5) and not monitor.patience_ended(5)
    assert monitor.improved({"losses": {}, "zero_shot": {"accuracy": 0.5}}, 6) and monitor.patience_ended(7)


def test_patience_counts_from_the_best_update_of_the_checkpoint():
    monitor = Monitor("total_loss", True, KNOWN, 10)
    monitor.load_state_dict({"criteria": "total_loss", "value": 1.0, "update": 20}, 25)
    assert [monitor.patience_ended(update) for update in (29, 30, 31)] == [False, False, True]
    for state in ({"criteria": "total_loss", "value": 1.0}, {"criteria": "zero_shot/accuracy", "value": 1.0}, {}):
        monitor = Monitor("total_loss", True, KNOWN, 10)
        monitor.load_state_dict(state, 25)  # of an earlier version, of another criteria, of another run
        monitor.value = 1.0
        assert [monitor.patience_ended(update) for update in (35, 36)] == [False, True]
    assert not Monitor("total_loss", True, KNOWN).patience_ended(10**6)


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
        Monitor(criteria, minimize, KNOWN)


def test_the_criteria_of_a_run_are_those_of_its_config():
    config = OmegaConf.create(mmf_api.defaults())
    early_stop = {"criteria": "b/f1/macro", "minimize": False, "patience": 7}
    config = OmegaConf.merge(
        config,
        {
            "model": "flava_classification",
            "datasets": "a,b",
            "model_config": {"flava_classification": {"losses": [{"type": "cross_entropy"}]}},
            "evaluation": {
                "metrics": ["accuracy", {"type": "f1"}, {"type": "mean_rank", "key": "rank"}],
                "retrieval": {"recall_at": [3]},
            },
            "training": {"early_stop": early_stop},
        },
    )
    assert known_criteria(config) == {
        "total_loss": True,
        **dict.fromkeys(("losses/cross_entropy", "a/cross_entropy", "b/cross_entropy"), True),
        **{f"{prefix}/{name}": False for name in ("accuracy", "f1") for prefix in ("metrics", "a", "b")},
        **dict.fromkeys(("metrics/rank", "a/rank", "b/rank"), None),
        **dict.fromkeys(("retrieval/image_to_text_r3", "retrieval/text_to_image_r3"), False),
    }
    assert Monitor.of_run(config).patience is None
    config.training.early_stop.enabled = True
    assert Monitor.of_run(config).patience == 7


def test_losses_that_are_not_computed_are_no_criteria():
    config = OmegaConf.merge(mmf_api.defaults(), {"model": "a", "datasets": "b", "evaluation": {"losses": False}})
    assert known_criteria(config) == {}
    assert Monitor("total_loss", True, {}).improved({"losses": {}}, 1) is False  # a run without validations
    config.evaluation.metrics = ["accuracy"]
    with pytest.raises(UserError, match="the validation does not compute 'total_loss'"):
        Monitor("total_loss", True, known_criteria(config))
