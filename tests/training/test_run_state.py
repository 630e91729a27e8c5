"""The update of an evaluated model is that of its checkpoint, however the checkpoint is named."""

import pytest

from mmf_flava.files.checkpoint_names import pointer_text
from mmf_flava.training.run_state import evaluated_update


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
