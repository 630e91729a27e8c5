"""The averages of the transcribed tables follow from their rows."""

from statistics import fmean

import pytest

from mmf_flava.evaluation.table.paper import TABLES, _read_csv, paper_table, table_rows


def group_averages(table, column):
    """Return the average of each group, computed from the rows of a column; 0 for a missing group, as in the paper."""
    means = {}
    for group in ("NLP", "vision", "multimodal"):
        values = [table.cells[row.name][column] for row in table_rows() if row.group == group]
        assert len({value is None for value in values}) == 1, f"{column}: {group} is incomplete"
        means[group] = 0.0 if values[0] is None else fmean(values)
    return means


@pytest.mark.parametrize("name", TABLES)
def test_printed_averages_follow_from_the_rows(name):
    """The tolerance is 0.01 because the paper rounds some values down."""
    table, compared = paper_table(name), 0
    for column in table.columns:
        means = group_averages(table, column)
        for row in table_rows():
            printed = table.cells.get(row.name, {}).get(column)
            if row.group == "average" and printed is not None:
                assert fmean(means[group] for group in row.metrics) == pytest.approx(printed, abs=0.0095)
                compared += 1
    assert compared == {"table4": 20 + 8, "table_c1": 38 + 14}[name]


def test_rows_match_the_papers_rows():
    counts = [sum(row.group == group for row in table_rows()) for group in ("NLP", "vision", "multimodal", "extra")]
    assert counts == [8, 22, 11, 29]
    names = {row.name for row in table_rows() if row.group != "extra"}
    assert {name for table in TABLES for name in paper_table(table).cells} == names
    assert [len(paper_table(name).columns) for name in TABLES] == [8, 14]


def test_table_4_equals_table_c1_except_for_the_last_digit():
    table, superset = paper_table("table4"), paper_table("table_c1")
    differing = 0
    for row, cells in table.cells.items():
        if row in superset.cells:
            for column, value in cells.items():
                assert value == pytest.approx(superset.cells[row][column], abs=0.0101)
                differing += value != superset.cells[row][column]
    assert differing == 8


def test_misprint_is_corrected_and_its_printed_value_is_kept():
    table = paper_table("table4")
    assert table.cells["QQP"]["FLAVA w/o init"] == 88.61
    (record,) = (record for record in _read_csv("table4") if record["row"] == "QQP")
    (misprint,) = (misprint for misprint in table.misprints if misprint.row)
    assert record["FLAVA w/o init"] == misprint.printed == "98.61"
    others = [table.cells[row.name]["FLAVA w/o init"] for row in table_rows()[:8] if row.name != "QQP"]
    assert abs(fmean([98.61, *others]) - 75.55) > 1
