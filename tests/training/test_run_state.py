"""What a run restores from a checkpoint, and the update of an evaluated model."""

from dataclasses import fields
from unittest.mock import MagicMock, patch

import pytest

from mmf_flava.config.run import ResetConfig
from mmf_flava.files.checkpoint_names import pointer_text
from mmf_flava.training.run_state import RunState, evaluated_update


@pytest.mark.parametrize(
    "name", ["run", "run/checkpoints/best", "run/checkpoints/update_00000200", "weights.bin", None]
)
def test_evaluated_update(tmp_path, name):
    folder = tmp_path / "run" / "checkpoints"
    checkpoint = folder / "update_00000200"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text('{"update": 200}')
    (checkpoint / "checksums.sha256").touch()
    for pointer in ("latest", "best"):
        (folder / pointer).write_text(pointer_text(checkpoint))
    assert evaluated_update(None, name and str(tmp_path / name)) == (200 if name and "run" in name else 0)
    assert evaluated_update(checkpoint, None) == 200


STATE = {
    "update": 200, "seconds": 1.0, "scheduler": {}, "precision": {"loss_scale": 2.0}, "loader": {}, "guard": {},
    "best": {"criteria": "total_loss", "value": 1.0, "update": 100}, "losses": [{}, {}], "rng": [],
}  # fmt: skip


@pytest.fixture
def state(tmp_path):
    state = RunState(**{field.name: MagicMock() for field in fields(RunState)})
    state.results.folder = tmp_path / "run"
    with patch("mmf_flava.training.run_state.load_state", return_value=STATE):
        yield state


@pytest.mark.parametrize(("run", "best"), [("run", STATE["best"]), ("another", {})])
def test_the_best_value_of_another_run_does_not_count(state, tmp_path, run, best):
    path = tmp_path / run / "checkpoints" / "update_00000200"
    assert state.resume(path, ResetConfig()) == (200, 1.0)
    state.monitor.load_state_dict.assert_called_once_with(best, 200)


@pytest.mark.parametrize("reset", [False, True])
def test_the_loss_scale_may_start_anew(state, tmp_path, reset):
    state.resume(tmp_path, ResetConfig(fp16_scaler=reset))
    loaded = state.updater.load_schedule_state.call_args.args[0]
    assert loaded == {**STATE, "precision": {} if reset else {"loss_scale": 2.0}}
