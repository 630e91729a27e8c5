"""A run killed at random moments ends as the quiet one: two kills here, many with ``make chaos``."""

import signal

from tests.faults.killed_runs import quiet_run, under_fire


def test_killed_twice_while_saving_in_the_background(root):
    quiet, growth = quiet_run(root, 80, 1)
    assert min(growth[quarter]["least handles"] for quarter in ("second quarter", "last quarter")) > 0
    found = under_fire(quiet, signal.SIGKILL, 2, 80, 1, seed=3)
    assert found["sent"] == 2 and found["holds"], found
