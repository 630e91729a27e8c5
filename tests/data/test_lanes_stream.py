"""Tests that mixtures and length buckets have the same stream for any number of workers, processes and resumes.

``python -m tests.faults.ordered_streams`` compares more sizes and streams.
"""

import pytest

from tests.faults.ordered_streams import (
    BATCH,
    build_loader,
    num_batches,
    read_ranks,
    read_with_resumes,
    repeated_or_missing,
    take,
)

KINDS = ("buckets", "mixture", "mixture with buckets")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [117, 2003])
def test_stream_is_the_same_for_all_processes_and_after_resumes(kind, size):
    expected = take(build_loader(kind, size), num_batches(size))
    assert {len(batch) for batch in expected} == {BATCH}
    assert repeated_or_missing(kind, size, expected) == 0
    assert read_ranks(kind, size, 2) == read_ranks(kind, size, 4) == expected
    assert read_with_resumes(kind, size) == expected
    if size > BATCH:
        assert repeated_or_missing(kind, size, expected[:-1] + expected[-2:-1]) > 0, "a repeated batch must be noticed"


def test_stream_does_not_depend_on_workers():
    kind = "mixture with buckets"
    assert take(build_loader(kind, 500, num_workers=2), 8) == take(build_loader(kind, 500), 8)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_is_read_by_few_lanes_of_each_rank(kind):
    """Rank 3 of 4 reads the samples of the last quarter of the slots."""
    batches = take(build_loader(kind, 2003, rank=3, world_size=4), 8)
    assert {n % BATCH for batch in batches for n, _ in batch} == set(range(3 * BATCH // 4, BATCH))
