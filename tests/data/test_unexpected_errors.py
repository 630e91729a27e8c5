import pytest

from mmf_flava.data.record import Failure
from mmf_flava.data.unexpected_errors import UnexpectedErrors


def failure(kind="KeyError", place="a.py:1"):
    return Failure(kind, place, f"Traceback of {kind} at {place}")


def test_each_traceback_is_logged_once():
    logged = []
    errors = UnexpectedErrors("pmd", logged.append)
    for kind, place in [("KeyError", "a.py:1"), ("KeyError", "a.py:1"), ("KeyError", "a.py:2"), ("OSError", "a.py:1")]:
        errors.add_bad(failure(kind, place))
        errors.add_good()
    assert [text.partition("\n")[2] for text in logged] == [
        "Traceback of KeyError at a.py:1",
        "Traceback of KeyError at a.py:2",
        "Traceback of OSError at a.py:1",
    ]


def test_ten_in_a_row_stop_the_run():
    errors = UnexpectedErrors("pmd", None)
    for _ in range(5):
        for _ in range(9):
            errors.add_bad(failure())
        errors.add_good()
    for _ in range(9):
        errors.add_bad(failure())
    errors.add_bad(None)
    for _ in range(9):
        errors.add_bad(failure())
    with pytest.raises(RuntimeError, match=r"pmd: 10 records in a row failed .*\nTraceback of KeyError at a.py:1"):
        errors.add_bad(failure())


def test_the_first_records_stop_the_run():
    errors = UnexpectedErrors("pmd", None)
    for number in range(31):
        errors.add_bad(failure() if number == 3 else None)
    with pytest.raises(RuntimeError, match=r"the first 32 records failed.*\nTraceback of KeyError"):
        errors.add_bad(None)


def test_known_reasons_and_later_records_stop_no_run():
    errors = UnexpectedErrors("pmd", None)
    for _ in range(100):
        errors.add_bad(None)
    errors = UnexpectedErrors("pmd", None)
    errors.add_good()
    for number in range(100):
        errors.add_bad(None if number % 10 else failure())
