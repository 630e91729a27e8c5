"""A run killed at random times ends like an uninterrupted one: two kills here, many with ``make chaos``."""

import json
import signal

from tests.faults.killed_runs import interrupted_run, uninterrupted_run


def test_run_killed_twice_with_background_saves_equals_uninterrupted_run(root):
    uninterrupted, growth = uninterrupted_run(root, 80, 1)
    assert min(growth[quarter]["minimum open files"] for quarter in ("second quarter", "last quarter")) > 0
    result = interrupted_run(uninterrupted, signal.SIGKILL, 2, 80, 1, seed=3)
    assert result["sent"] == 2 and result["passed"], json.dumps(result)
