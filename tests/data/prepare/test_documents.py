"""Text corpora as they are published: BookCorpus, books1, CCNews of Hugging Face and of news-please."""

import bz2
import gzip
import json
import logging
import lzma
import random
import tracemalloc
import zipfile
from collections import Counter

import pytest

from mmf_flava.data.prepare import documents as documents_module
from mmf_flava.data.prepare.documents import Documents, cut, documents, without_html
from mmf_flava.data.prepare.text_files import text_files
from mmf_flava.errors import UserError

NEWS = {  # the fields of Hugging Face's cc_news
    "title": "Rain expected",
    "text": "Rain is expected on Monday.\nIt will stop on Tuesday.",
    "domain": "www.example.com",
    "date": "2017-09-17 00:00:00",
    "description": "A forecast.",
    "url": "http://www.example.com/rain",
    "image_url": "http://www.example.com/rain.jpg",
}
ARTICLE = {  # the fields of news-please
    "authors": ["A. Writer"],
    "date_download": "2019-03-01 10:00:00",
    "date_modify": None,
    "date_publish": "2019-02-28 08:00:00",
    "description": "A forecast.",
    "filename": "http%3A%2F%2Fwww.example.com%2Fsnow.json",
    "image_url": "http://www.example.com/snow.jpg",
    "language": "en",
    "localpath": None,
    "maintext": "Snow is expected.\nRoads are closed.",
    "source_domain": "www.example.com",
    "title": "Snow",
    "title_page": None,
    "title_rss": None,
    "url": "http://www.example.com/snow",
}


def read(src, column=None):
    dropped = Counter()
    return list(documents(text_files(src), column, dropped)), dropped


def test_bookcorpus_without_empty_lines_is_cut_at_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(documents_module, "MAX_DOCUMENT", 1000)
    sentences = [f"the {n}th sentence of a usually nice book was written , she said .\n" for n in range(500)]
    (tmp_path / "books_large_p1.txt").write_text("".join(sentences))
    texts, dropped = read(tmp_path)
    assert "".join(texts) == "".join(sentences) and not dropped
    assert all(text.endswith(".\n") and 900 < len(text) <= 1000 for text in texts[:-1])


@pytest.mark.parametrize("content", ["word " * 400_000, "x" * 2_000_000, "a line of a book of many lines\n" * 60_000])
def test_memory_is_bounded(tmp_path, content):
    (tmp_path / "books_large_p1.txt").write_text(content)
    tracemalloc.start()
    lengths = [len(text) for text in documents([tmp_path / "books_large_p1.txt"])]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(lengths) == len(content) and max(lengths) <= 65_536
    assert peak < 1_500_000


@pytest.mark.parametrize("seed", range(3))
def test_parts_are_the_text(monkeypatch, seed):
    monkeypatch.setattr(documents_module, "MAX_DOCUMENT", 20)
    text = "".join(random.Random(seed).choices("abc \n", k=500))
    parts = list(cut(text))
    assert "".join(parts) == text and all(0 < len(part) <= 20 for part in parts)
    assert list(cut("")) == [] and list(cut("a" * 20)) == ["a" * 20]


def test_long_record_is_cut(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "word " * 30_000}))
    assert list(map(len, read(tmp_path)[0])) == [65_535, 65_535, 18_929]


def test_books1_without_its_side_files(tmp_path, caplog):
    books = tmp_path / "books1" / "epubtxt"
    books.mkdir(parents=True)
    (books / "a-book.epub.txt").write_text("Chapter 1\nOnce.\n\nChapter 2\nAgain, see http://example.com/.\n")
    (books / "urls.epub.txt").write_text("A short book.\n")
    urls = "".join(f"https://www.smashwords.com/books/download/{n}/8/latest/0/0/x.epub\n" for n in range(2000))
    (tmp_path / "books1" / "2020-08-27-epub_urls.txt").write_text(urls)
    (tmp_path / "books1" / "list.txt").write_text("epubtxt/a-book.epub.txt\nepubtxt/urls.epub.txt\n")
    (tmp_path / "books1" / "SHA256SUMS.txt").write_text(f"{'0' * 64}  a\n")
    (tmp_path / "books1" / "hashes.txt").write_text(f"{'0' * 32}  a-book.epub.txt\n")
    (tmp_path / "books1" / "README.txt").write_text("These are books.\n")
    (tmp_path / "books1" / "cover.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with caplog.at_level(logging.WARNING):
        texts, _ = read(tmp_path)
    assert texts == [
        "Chapter 1\nOnce.\n",
        "Chapter 2\nAgain, see http://example.com/.\n",
        "A short book.\n",
    ]
    assert "6 files are left out, because they are not texts: " in caplog.text
    assert "2020-08-27-epub_urls.txt (a list of URLs)" in caplog.text


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.json.gz", "a.jsonl.gz", "c4-train.00000-of-01024.json.gz"])
@pytest.mark.parametrize("form", ["lines", "array", "indented array", "container"])
def test_cc_news(tmp_path, name, form):
    rows = [NEWS, {**NEWS, "text": ""}, {**NEWS, "text": "Sun."}, {**NEWS, "text": None}]
    content = {
        "lines": "".join(json.dumps(row) + "\n" for row in rows),
        "array": json.dumps(rows),
        "indented array": json.dumps(rows, indent=2),
        "container": json.dumps({"version": 1, "data": rows}),
    }[form]
    with (gzip.open if name.endswith(".gz") else open)(tmp_path / name, "wt") as file:
        file.write(content)
    assert read(tmp_path) == ([NEWS["text"], "Sun."], {"no text": 2})
    assert read(tmp_path, "title")[0] == ["Rain expected"] * 4


def test_news_please_writes_a_file_per_article(tmp_path):
    for number, change in enumerate([{}, {"maintext": None}, {"maintext": "Fog.", "text": None}]):
        folder = tmp_path / "www.example.com"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.json").write_text(json.dumps({**ARTICLE, **change}, indent=4, sort_keys=True))
    (folder / "3.json").write_text('{"maintext": "cut')
    (folder / "4.json").write_text(json.dumps({"error": "not found"}))
    assert read(tmp_path) == ([ARTICLE["maintext"], "Fog."], {"no text": 1, "malformed row": 2})


def test_parquet_and_arrow(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    table = arrow.Table.from_pylist([NEWS, {**NEWS, "text": "Sun."}])
    write_table(table, tmp_path / "train-00000-of-00005.parquet")
    with arrow.ipc.new_stream(str(tmp_path / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("state.json", "dataset_info.json"):  # of datasets' save_to_disk
        (tmp_path / name).write_text("{}")
    assert read(tmp_path)[0] == [NEWS["text"], "Sun."] * 2


def test_arrays_of_texts_and_of_pandas(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(["one", "", "two"]))
    (tmp_path / "b.json").write_text(json.dumps({"text": {"0": "three", "1": "four"}, "date": {"0": 1, "1": 2}}))
    assert read(tmp_path) == (["one", "two", "three", "four"], {"no text": 1})


def test_truncated_array_keeps_its_records(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([NEWS] * 3)[:-10])
    assert read(tmp_path) == ([NEWS["text"]] * 2, {"malformed row": 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>Fish &amp; chips<br/>are <b>good</b>.</p>", "Fish & chips\nare good."),
        ("<html><head><title>x</title><script>if (a < b) c();</script></head><body>Rain.</body>", "x\n\n\n\nRain."),
        ("if a < b and b > c: <usr> & AT&T", "if a < b and b > c: <usr> & AT&T"),
        ("caf&eacute; &#8220;x&#8221;", "caf\xe9 \u201cx\u201d"),
    ],
)
def test_html(text, expected):
    assert without_html(text) == expected


def write_formats(folder):
    """Write text files in all encodings and compressions, and records in all formats, with rows that are dropped."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["caf\xe9", "a", "bc", "\u6771"], k=rng.randrange(1, 40))) for _ in range(40)]
    paragraphs = "\n\n".join(texts)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"):
        (folder / f"{encoding}.txt").write_bytes(("a plain line\n\n" + paragraphs).encode(encoding))
    (folder / "cp1252.txt").write_bytes(paragraphs.encode("cp1252", "ignore"))
    (folder / "book.txt").write_text("\n".join(texts))
    for suffix, opener in (("gz", gzip.open), ("bz2", bz2.open), ("xz", lzma.open)):
        with opener(folder / f"a.txt.{suffix}", "wt") as file:
            file.write(paragraphs)
    with zipfile.ZipFile(folder / "a.txt.zip", "w") as archive:
        archive.writestr("a.txt", paragraphs)
    rows = [{"text": text if number % 5 else None} for number, text in enumerate(texts)] + [{"text": texts[:3]}]
    lines = [json.dumps(row) if number % 7 else "{bad" for number, row in enumerate(rows)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    for name, content in {"array": rows, "object": {"data": rows}, "pandas": {"text": dict(enumerate(texts))}}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    table = arrow.Table.from_pylist(rows[:-1])
    write_table(table, folder / "a.parquet", row_group_size=7)
    for name, new in {"stream": arrow.ipc.new_stream, "file": arrow.ipc.new_file}.items():
        with new(str(folder / f"{name}.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=6)


def test_reading_begins_at_any_place(tmp_path, monkeypatch):
    monkeypatch.setattr(documents_module, "MAX_DOCUMENT", 50)
    write_formats(tmp_path)
    for path in text_files(tmp_path):
        files = [path, tmp_path / "utf-8.txt"]
        reader = Documents(files)
        units = [(texts, json.loads(json.dumps(reader.place))) for texts in reader]
        last = next(n for n, (_, place) in enumerate(units) if place[0] == 1)
        for number in range(last + 1):
            rest = list(Documents(files, place=units[number][1]))
            assert rest == [texts for texts, _ in units[number + 1 :]], (path.name, units[number])


def test_dropped_records_are_counted_from_the_place_on(tmp_path):
    rows = [{"text": "a"}, {}, {"text": ""}, {"text": "b"}, {}, {}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reader, first, rest = Documents([tmp_path / "a.jsonl"]), Counter(), Counter()
    reader.dropped = first
    units = iter(reader)
    assert next(units) == ["a"] and not first
    assert next(units) == ["b"] and first == {"malformed row": 1, "no text": 1}
    assert list(Documents(reader.files, dropped=rest, place=reader.place)) == [] and rest == {"malformed row": 2}


def test_nothing_to_read_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"headline": "x", "url": "y"}) + "\n")
    with pytest.raises(UserError, match=r"none of the 1 rows gives a record.*the columns are headline, url\. Set --c"):
        read(tmp_path)
    (tmp_path / "a.jsonl").write_text((json.dumps({"text": ""}) + "\n") * 1200)
    (tmp_path / "b.txt").write_text("a text\n")
    with pytest.raises(UserError, match=r"none of the first 1,000 rows gives a record \(1,000 no text\)"):
        read(tmp_path)
    (tmp_path / "a.jsonl").write_text((json.dumps({"headline": "x"}) + "\n") * 40)
    with pytest.raises(UserError, match=r"a\.jsonl cannot be read as records .* or remove the file from --src\."):
        read(tmp_path)
