"""Tasks are run by any number of processes, which may end at any time; the results are those of one process."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmf_flava.data.prepare import tasks
from mmf_flava.data.prepare.tasks import Abandoned, TaskFolder


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(tasks, "QUIET", 0.05)
    monkeypatch.setattr(tasks, "POLL", 0.06)


def square(number, is_done):
    return {"square": number**2, "last": number >= 4}


def squares(results):
    return [result["square"] for result in results]


@pytest.mark.parametrize("count", [None, 5])
def test_results_are_in_order(tmp_path, count):
    folder = TaskFolder(tmp_path / "work", "input", count)
    assert squares(folder.walk(square)) == [0, 1, 4, 9, 16]
    assert squares(folder.walk(None)) == [0, 1, 4, 9, 16], "no task is run twice"


def test_no_tasks(tmp_path):
    assert TaskFolder(tmp_path, "input", 0).walk(square) == []


@pytest.mark.parametrize("count", [None, 5])
@pytest.mark.parametrize("claimed", [{0}, {4}, {1, 2, 4}, {0, 1, 2, 3, 4}])
def test_tasks_of_killed_processes_are_run_last(tmp_path, count, claimed):
    for number in claimed:
        (tmp_path / f"{number:05d}.0.claim").touch()
    order = []

    def run(number, is_done):
        order.append(number)
        return square(number, is_done)

    assert squares(TaskFolder(tmp_path, "input", count).walk(run)) == [0, 1, 4, 9, 16]
    others = [number for number in range(5) if number not in claimed]
    ends = [5] if count is None and 4 in claimed else []
    assert order == [*others, *ends, *sorted(claimed)], "the end is found by whoever gets there"


def test_interleaved_processes_share_the_tasks(tmp_path):
    """The second process runs all that it can while the first one is in its second task."""
    folder, order = TaskFolder(tmp_path, "input"), []

    def first(number, is_done):
        order.append(("first", number))
        if number == 1:
            with pytest.raises(StopIteration):
                folder.walk(second)
        return square(number, is_done)

    def second(number, is_done):
        if number == 1:
            raise StopIteration
        order.append(("second", number))
        return square(number, is_done)

    assert squares(folder.walk(first)) == [0, 1, 4, 9, 16]
    assert order == [("first", 0), ("first", 1), ("second", 2), ("second", 3), ("second", 4)]


def test_task_is_given_up_if_its_result_appears(tmp_path):
    folder = TaskFolder(tmp_path, "input", 1)
    (tmp_path / "00000.0.claim").touch()

    def run(number, is_done):
        assert not is_done()
        (tmp_path / "00000.json").write_text(json.dumps({"input": "input", "last": True, "square": 7}))
        assert is_done()
        raise Abandoned

    added = []
    assert squares(folder.walk(run, added.append)) == squares(added) == [7]


@pytest.mark.parametrize("content", ["", "[]", '{"last": true}', '{"input": "input", "last": 1}', "\0"])
def test_damaged_and_other_results_are_written_again(tmp_path, content):
    for number in range(5):
        (tmp_path / f"{number:05d}.json").write_text(content)
    assert squares(TaskFolder(tmp_path, "input").walk(square)) == [0, 1, 4, 9, 16]


def test_work_that_others_have_finished_ends(tmp_path):
    ended = itertools.chain([False] * 3, itertools.repeat(True))
    done = []
    with pytest.raises(Abandoned):
        TaskFolder(tmp_path, "input").walk(
            lambda number, is_done: done.append(number) or square(number, is_done), has_ended=lambda: next(ended)
        )
    assert done == [0, 1, 2]


def test_a_task_whose_process_lives_is_not_run_twice(tmp_path, monkeypatch):
    """The second process waits for the task of the first, which takes longer than a process may be quiet."""
    monkeypatch.setattr(tasks, "TOUCH", 0.01)
    monkeypatch.setattr(tasks, "QUIET", 0.5)
    folder, second = TaskFolder(tmp_path, "input", 1), []

    def run(number, is_done):
        with ThreadPoolExecutor() as threads:
            found = threads.submit(folder.walk, lambda number, is_done: second.append(number))
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                assert not is_done()
                time.sleep(0.02)
            waiting.append(found)
            threads.shutdown(wait=False)
            return square(number, is_done)

    waiting = []
    monkeypatch.setattr(ThreadPoolExecutor, "__exit__", lambda *_: None)
    assert squares(folder.walk(run)) == squares(waiting[0].result()) == [0]
    assert not second


def test_the_task_of_an_interrupted_process_is_free_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "QUIET", 1000)
    folder = TaskFolder(tmp_path, "input")

    def interrupted(number, is_done):
        if number == 2:
            raise KeyboardInterrupt
        return square(number, is_done)

    with pytest.raises(KeyboardInterrupt):
        folder.walk(interrupted)
    assert squares(folder.walk(square)) == [0, 1, 4, 9, 16]
