"""Kills after given updates and changes of the number of processes: one of each here, all with ``make chaos``."""

from tests.faults.exact_kills import change_processes, exact


def test_killed_directly_after_a_save_and_between_saves(root):
    result = exact(root, [(3, "saved"), (5, "updated")], updates=6, interval=3)
    assert result["updates done"] == 8, "updates 4 and 5 are repeated"
    assert result["passed"], result


def test_changing_the_number_of_processes_keeps_batches_and_losses(root):
    result = change_processes(root, (2, 4), updates=6)
    assert result["passed"], result
