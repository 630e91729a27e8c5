"""Bad entries of a dataset of MMF are replaced by the next good entries."""

import errno
from collections.abc import Callable

import pytest
from mmf.common.registry import registry

from mmf_flava.data.mmf_entries import GoodEntries
from mmf_flava.errors import UserError


class Annotations:
    """Dataset of MMF's kind with one entry per number, whose ``read`` may raise an exception."""

    __module__ = "mmf.datasets"
    dataset_name, dataset_type, start_idx = "toy", "train", 0

    def __init__(self, size: int, read: Callable[[int], object]):
        self.size, self.read = size, read
        self.data = [{"id": number} for number in range(size)]
        self.annotation_db, self.config = self, {"annotations": {"train": "toy.jsonl"}}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict:
        self.read(index)
        return {"number": index}


def fails(*indices: int, error: type[Exception] = ZeroDivisionError, args: tuple = ()) -> Callable[[int], None]:
    def read(index: int) -> None:
        if index in indices:
            raise error(*args)

    return read


def test_next_good_entry_replaces_bad_ones():
    entries = GoodEntries(Annotations(30, fails(3, 4, 29)))
    assert [entries[index]["number"] for index in (2, 3, 4, 5, 29)] == [2, 5, 5, 5, 0]
    assert [entry["record"] for entry in entries[3]["replaced"]] == [3, 4]
    assert [entries[index]["sample_id"] for index in (2, 3)] == ["2", "5"]
    (entry,) = entries[29]["replaced"]
    assert (entry["sample_id"], entry["reason"]) == ("29", "unexpected")
    assert "dataset_config.toy: entry 30 of toy.jsonl: unexpected error (ZeroDivisionError" in entry["message"]


def test_hash_of_entries_differs_for_other_annotations():
    hashes = set()
    for change in ({}, {70: {"id": 71}}, {0: {"id": "0"}}):
        annotations = Annotations(100, fails())
        annotations.data = [change.get(entry["id"], entry) for entry in annotations.data]
        hashes.add(GoodEntries(annotations).entries_sha256())
    assert len(hashes) == 3
    first, second = (GoodEntries(Annotations(1, fails())) for _ in range(2))
    assert first.entries_sha256() == second.entries_sha256()


def test_ten_unexpected_errors_in_a_row_stop_the_run():
    entries = GoodEntries(Annotations(1000, fails(*range(500, 510))))
    assert entries[501]["number"] == 510
    with pytest.raises(RuntimeError, match=r"(?s)10 records in a row .*Traceback .*ZeroDivisionError"):
        entries[500]


@pytest.mark.parametrize(
    ("error", "args"),
    [(UserError, ("recipe",)), (MemoryError, ()), (KeyboardInterrupt, ()), (OSError, (errno.ENOSPC, "full"))],
)
def test_exceptions_that_are_not_caused_by_an_entry_pass_through(error, args):
    with pytest.raises(error):
        GoodEntries(Annotations(1, fails(0, error=error, args=args)))[0]


def test_many_bad_entries_in_a_row_are_one_message():
    entries = GoodEntries(Annotations(10_000, fails(*range(300, 10_000), error=FileNotFoundError)))
    with pytest.raises(UserError, match=r"entry \d+ of toy\.jsonl cannot be used: FileNotFoundError"):
        entries[5000]


def test_datasets_of_users_are_not_changed():
    class Own(Annotations):
        pass

    own = Own(3, fails(1))
    assert GoodEntries.of(own) is own and GoodEntries.of(None) is None
    assert isinstance(GoodEntries.of(Annotations(3, fails())), GoodEntries)


def test_view_has_the_attributes_of_the_dataset():
    registry.register("config", None)
    entries = GoodEntries(Annotations(3, fails()))
    assert (entries.dataset_name, len(entries), entries.identifiers(2)) == ("toy", 3, {"id": 2})
    with pytest.raises(AttributeError):
        entries.unknown  # noqa: B018
