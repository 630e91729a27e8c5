"""CSV and TSV: delimiters, quotation marks, encodings, and rows that break the rules."""

import gzip
import logging

import pytest

from mmf_flava.data.formats.delimited import Delimited
from mmf_flava.data.formats.tables import open_table
from mmf_flava.errors import UserError


@pytest.fixture
def rows(tmp_path):
    """``rows(text)``: the numbers and values of the rows of a file."""

    def rows(text, name="table", encoding="utf-8"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        table = open_table(tmp_path / name)
        assert isinstance(table, Delimited)
        return [
            (number, row if isinstance(row, str) else [row.get(name, "") for name in table.columns])
            for number, row in table.rows(table.columns)
        ]

    return rows


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_the_delimiter_is_found(rows, delimiter):
    text = 'image,title,label\n1.png,"a, b; c\td|e",x\n2.png,plain,y\n'
    text = text.replace(",", delimiter).replace(f"a{delimiter} b", "a, b")
    assert rows(text) == [(2, ["1.png", "a, b; c\td|e", "x"]), (3, ["2.png", "plain", "y"])]


def test_excels_first_line_names_the_delimiter(rows):
    assert rows("sep=;\nimage;title\n1.png;a, b, c\n", "x.csv") == [(3, ["1.png", "a, b, c"])]
    assert rows("sep=\t\nimage\ttitle\n1.png\ta\n", "x.csv") == [(3, ["1.png", "a"])]


def test_quoted_fields_have_line_ends_and_quotation_marks(rows):
    text = 'image,title\r\n1.png,"two\r\nlines, ""quoted"""\r\n\r\n2.png,b\r\n,\r\n3.png,"c"'
    assert rows(text) == [(2, ["1.png", 'two\r\nlines, "quoted"']), (5, ["2.png", "b"]), (7, ["3.png", "c"])]
    assert rows('image, title, label\n1.png, "a, b", "x"\n') == [(2, ["1.png", "a, b", "x"])]
    assert rows("image,title\r1.png,a\r2.png,b\r") == [(2, ["1.png", "a"]), (3, ["2.png", "b"])]


def test_a_bad_row_costs_only_itself(rows):
    """The numbers are those of the lines in the file, also after rows of several lines."""
    text = 'image,title,label\n1.png,a,x\n2.png,a, b,x\n3.png,"open,x\n4.png,"two\nlines",x\n5.png,a\n6.png,a,x,\n'
    assert rows(text) == [
        (2, ["1.png", "a", "x"]),
        (3, "4 fields, but the first line has 3"),
        (4, ["3.png", '"open', "x"]),
        (5, ["4.png", "two\nlines", "x"]),
        (7, "2 fields, but the first line has 3"),
        (8, ["6.png", "a", "x"]),
    ]
    assert rows('image,title\n1.png,"a, "b" c"\n2.png,b\n') == [
        (2, 'its quotation marks are unbalanced: 1.png,"a, "b" c"'),
        (3, ["2.png", "b"]),
    ]


def test_tsv_without_quoting_loses_no_row(rows):
    text = 'image\ttitle\n1.png\t"hello" he said\n2.png\t"open\n3.png\tclosed"\n4.png\t5" nail\n'
    titles = ['"hello" he said', '"open', 'closed"', '5" nail']
    assert [row for _, row in rows(text)] == [[f"{n}.png", title] for n, title in enumerate(titles, 1)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"])
def test_letters_are_read_in_every_encoding(rows, caplog, encoding):
    caption = "Ein Café, größer als Señor Ångström"
    with caplog.at_level(logging.WARNING):
        assert rows(f'image,title\n1.png,"{caption}"\n', encoding=encoding) == [(2, ["1.png", caption])]
    assert ("and read as Windows-1252" in caplog.text) == (encoding in ("cp1252", "latin-1"))


@pytest.mark.parametrize(
    ("encoding", "caption"),
    [
        ("cp1251", "кошка на окне"),
        ("gbk", "一只猫坐在窗台上"),
        ("shift-jis", "猫が窓辺に座る"),
        ("cp1250", "źdźbło żółte, ąę"),
        ("cp1253", "η γάτα κάθεται"),
        ("mac-roman", "größer, Café, Señor"),
        ("cp850", "größer, Café, Señor"),
    ],
)
def test_unknown_encodings_are_refused(rows, encoding, caption):
    with pytest.raises(UserError, match=r"neither UTF-8 nor Windows-1252 \(e\.g\. the bytes b'.*Save it as UTF-8"):
        rows(f"image,title\n1.png,{caption}\n", encoding=encoding)


def test_a_damaged_letter_does_not_change_the_encoding(rows, caplog):
    text = "image,title\n1.png,größer\n2.png,Käfer\n3.png,x\n".encode()
    assert [row for _, row in rows(text.replace(b"x\n", b"x\xfc\n"))][:2] == [["1.png", "größer"], ["2.png", "Käfer"]]
    assert "and read as Windows-1252, the first one in '3.png,xü'" in caplog.text


def test_compressed_tables_are_read(rows):
    assert rows(gzip.compress(b"image,title\n1.png,a\n"), "x.csv.gz") == [(2, ["1.png", "a"])]
    with pytest.raises(UserError, match=r"x\.csv\.gz is not a valid (text|compressed) file"):
        rows(gzip.compress(b"image,title\n1.png,a\n" * 99)[:-9], "x.csv.gz")


def test_a_first_line_without_names_is_refused(rows):
    with pytest.raises(UserError, match=r"does not name the columns, but data \(1\.png\)\. Insert.*'image;caption'"):
        rows("1.png;a\n2.png;b\n")
    with pytest.raises(UserError, match="does not name the columns, but is empty"):
        rows(",,\n1.png,b,c\n")


def test_column_names_are_unique(rows, tmp_path):
    rows(",image,title,title\n0,1.png,a,b\n")
    assert open_table(tmp_path / "table").columns == ["", "image", "title", "title.1"]
