"""The transcription of the paper's tables bears its own averages."""

from statistics import fmean

import pytest

from mmf_flava.evaluation.table.paper import TABLES, _read, paper_table, rows


def parts(table, column):
    """Averages of the parts that follow from a column's rows; 0 for one that the column lacks, as the paper counts."""
    means = {}
    for part in ("NLP", "vision", "multimodal"):
        figures = [table.cells[row.name][column] for row in rows() if row.part == part]
        assert len({figure is None for figure in figures}) == 1, f"{column}: {part} is there in part"
        means[part] = 0.0 if figures[0] is None else fmean(figures)
    return means


@pytest.mark.parametrize("name", TABLES)
def test_printed_averages_follow_from_the_rows(name):
    """Within 0.01: the paper rounds some down."""
    table, compared = paper_table(name), 0
    for column in table.columns:
        means = parts(table, column)
        for row in rows():
            printed = table.cells.get(row.name, {}).get(column)
            if row.part == "average" and printed is not None:
                assert fmean(means[part] for part in row.figures) == pytest.approx(printed, abs=0.0095)
                compared += 1
    assert compared == {"table4": 20 + 8, "table_c1": 38 + 14}[name]


def test_the_rows_are_the_papers():
    counts = [sum(row.part == part for row in rows()) for part in ("NLP", "vision", "multimodal", "extra")]
    assert counts == [8, 22, 11, 29]
    names = {row.name for row in rows() if row.part != "extra"}
    assert {name for table in TABLES for name in paper_table(table).cells} == names
    assert [len(paper_table(name).columns) for name in TABLES] == [8, 14]


def test_table_4_is_table_c1_but_for_the_last_digit():
    table, superset = paper_table("table4"), paper_table("table_c1")
    differing = 0
    for row, cells in table.cells.items():
        if row in superset.cells:
            for column, value in cells.items():
                assert value == pytest.approx(superset.cells[row][column], abs=0.0101)
                differing += value != superset.cells[row][column]
    assert differing == 8


def test_the_misprint_is_mended_and_its_printed_figure_kept():
    table = paper_table("table4")
    assert table.cells["QQP"]["FLAVA w/o init"] == 88.61
    (line,) = (line for line in _read("table4") if line["row"] == "QQP")
    (misprint,) = (misprint for misprint in table.misprints if misprint.row)
    assert line["FLAVA w/o init"] == misprint.printed == "98.61"
    assert (
        abs(fmean([98.61, *(table.cells[r.name]["FLAVA w/o init"] for r in rows()[:8] if r.name != "QQP")]) - 75.55) > 1
    )
