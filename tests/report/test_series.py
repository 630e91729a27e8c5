"""The bounded series of a long run."""

from mmf_flava.report.series import ENDS, LIMIT, Series


def fill(updates):
    series = Series[int]()
    for update in updates:
        series.add(update, -update)
    return series


def test_few_values_are_all_kept():
    assert fill([3, 1, 2, 1]).items() == [(1, -1), (2, -2), (3, -3)]


def test_many_values_are_bounded_and_both_ends_are_complete():
    kept = [update for update, _ in fill(range(50_000)).items()]
    assert LIMIT / 4 < len(kept) <= LIMIT + 2 * ENDS
    assert kept[:ENDS] == list(range(ENDS)) and kept[-ENDS:] == list(range(50_000 - ENDS, 50_000))


def test_alternating_datasets_are_both_kept():
    kept = [update % 2 for update, _ in fill(range(50_000)).items()]
    assert 0.4 < sum(kept) / len(kept) < 0.6


def test_values_from_an_update_on_are_removed():
    series = fill(range(30_000))
    series.cut(150)
    kept = series.items()
    assert kept[:ENDS] == [(update, -update) for update in range(ENDS)] and kept[-1][0] < 150
    series.add(150, 7)
    series.add(20, 8)
    assert dict(series.items())[150] == 7 and dict(series.items())[20] == 8
