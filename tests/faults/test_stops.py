"""A stop in each situation: once on one process here; repeatedly, also on two processes, with ``make chaos``."""

import json

from tests.faults.stops import SITUATIONS, STOPS, stop_repeatedly


def test_stop_in_any_situation_saves_and_resumes(root):
    results = stop_repeatedly(root, 4, processes=1)
    assert [result["sent"] for result in results] == [1] * len(SITUATIONS)
    assert {stop for result in results for stop in result["stops"]} == set(STOPS)
    for result in results:
        assert result["passed"], json.dumps(result)
