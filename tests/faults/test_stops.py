"""SIGTERM in each situation: once here on one process, on one and on two by the dozen with ``make chaos``."""

import json

from tests.faults.stops import SITUATIONS, stops


def test_a_stop_in_any_situation_saves_and_resumes(root):
    found = stops(root, 4, processes=1)
    assert [result["sent"] for result in found] == [1] * len(SITUATIONS)
    for result in found:
        assert result["holds"], json.dumps(result)
