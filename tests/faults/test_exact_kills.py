"""SIGKILLs after an exact update, and a change of processes: once here, at every place with ``make chaos``."""

from tests.faults.exact_kills import exact, regrouped


def test_killed_with_a_checkpoint_just_written_and_with_updates_since(root):
    found = exact(root, [(3, "saved"), (5, "updated")], updates=6, interval=3)
    assert found["updates done"] == 8, "updates 4 and 5 are done again"
    assert found["holds"], found


def test_two_processes_in_the_midst_of_a_run_change_nothing(root):
    found = regrouped(root, (2, 4), updates=6)
    assert found["holds"], found
