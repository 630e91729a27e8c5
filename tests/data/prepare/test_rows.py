"""A bad row of a foreign file costs one row of a preparation, and is counted by reason."""

import json
from collections import Counter

import pytest

from mmf_flava.data.prepare import pmd, pmd_records
from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.prepare.documents import documents
from mmf_flava.data.prepare.pmd import PmdOptions, prepare_pmd
from mmf_flava.data.prepare.pmd_parts import PARTS
from mmf_flava.data.prepare.pmd_records import read_pmd_records
from mmf_flava.data.prepare.rows import MALFORMED, BadRow, convert_row
from mmf_flava.errors import UserError
from tests.data.bad_samples import encoded, red

GOOD = {"image_url": "https://x/1.jpg", "text": "a red square"}
BAD_LINES = {
    "[" * 100_000: MALFORMED,
    '{"image_url": "x", "text": 1e999}': "unreadable caption",
    '{"image_url": "x"': MALFORMED,
    '["x"]': MALFORMED,
    "7": MALFORMED,
    "null": MALFORMED,
    '{"text": {"a": 1}}': "unreadable caption",
    '{"text": [["a"]]}': "unreadable caption",
    '{"text": null}': "no text",
    "9" * 5000: MALFORMED,
}


def test_unexpected_exceptions_become_bad_rows():
    def fail(row):
        raise RuntimeError(row)

    bad = convert_row("x", fail)
    assert (bad.reason, bad.message) == ("unexpected", "row: unexpected error (RuntimeError: x)")
    assert bad.failure.type == "RuntimeError"
    assert convert_row(ValueError("cut"), str) == BadRow(MALFORMED, "ValueError: cut")
    assert convert_row({}, lambda row: row["text"]).reason == MALFORMED
    with pytest.raises(UserError):
        convert_row(UserError("x"), str)


@pytest.fixture
def source(tmp_path):
    """Annotations of PMD with a good row before each bad one, and the image."""
    lines = [line for bad in BAD_LINES for line in (json.dumps(GOOD), bad)]
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "src/1.jpg").write_bytes(encoded(red(), "JPEG"))
    return tmp_path / "src"


def prepare(source, monkeypatch, **options):
    monkeypatch.setattr(pmd, "read_pmd_records", lambda path, part: map(_named, read_pmd_records(path, part)))
    options = PmdOptions("redcaps", source, source, "pmd", **options)
    return prepare_pmd(source.parent / "out", options, progress=False)


def _named(row):
    def annotation():
        found = row()
        return Annotation(found.captions, names=("1.jpg",), dropped=found.dropped, bad=found.bad)

    return annotation


def test_bad_rows_are_counted(source, monkeypatch):
    manifest = prepare(source, monkeypatch)
    assert manifest["counts"] == {"rows": 20, "images": 10, "pairs": 10}
    assert manifest["dropped"] == {MALFORMED: 6, "no text": 1, "unreadable caption": 3}


def test_unexpected_errors_are_counted_and_ten_in_a_row_stop(source, monkeypatch, capsys):
    original = pmd_records.make_annotation

    def fail(captions, *arguments, **fields):
        if calls and calls.pop():
            raise RuntimeError("a defect")
        return original(captions, *arguments, **fields)

    calls = [True] * 2  # the first row of a file is converted twice, because it is checked for its format
    monkeypatch.setattr(pmd_records, "make_annotation", fail)
    manifest = prepare(source, monkeypatch)
    assert manifest["dropped"] == {MALFORMED: 6, "no text": 1, "unexpected": 1, "unreadable caption": 3}
    output = "".join(capsys.readouterr())
    assert output.count('raise RuntimeError("a defect")') == 1

    calls += [True] * 100
    (source / "a.jsonl").write_text(f"{json.dumps(GOOD)}\n" * 20)
    with pytest.raises(RuntimeError, match=r'10 records in a row(?s:.*)raise RuntimeError\("a defect"\)'):
        prepare_pmd(source.parent / "other", PmdOptions("redcaps", source, source, "pmd"), progress=False)


def test_file_in_another_format_is_one_error(source, monkeypatch):
    (source / "a.jsonl").write_text("<html>\n" * 40)
    options = PmdOptions("redcaps", source / "a.jsonl", source, "pmd")
    with pytest.raises(UserError, match=r"a\.jsonl is not in the format of facebook/pmd"):
        prepare_pmd(source.parent / "out", options, progress=False)


@pytest.mark.parametrize(
    ("part", "content", "expected"),
    [
        ("redcaps", {"annotations": [{"image_id": 1}, {"image_id": 1, "url": "u", "caption": "x"}]}, [MALFORMED, ""]),
        ("visual_genome", [{"id": 1}, 7, {"id": 2, "regions": [{"phrase": "x"}]}], [MALFORMED, MALFORMED, ""]),
        ("sbu", {"image_urls": [1, "u"], "captions": [None, "x"]}, ["no text", ""]),
        ("coco", {"images": [{"split": "train"}, {"filename": "a", "sentences": [{"raw": "x"}]}]}, [MALFORMED, ""]),
        (
            "coco",
            {
                "annotations": [{"image_id": []}, {"image_id": 1, "caption": "x"}, {"image_id": 1}],
                "images": [{"id": 1, "file_name": "a"}, {"id": {}}],
            },
            [MALFORMED, MALFORMED, "", MALFORMED],
        ),
        (
            "localized_narratives",
            '{"image_id": 1}\n{"caption"\n{"image_id": 1, "caption": "x"}',
            [MALFORMED] * 2 + [""],
        ),
        ("wit", "language\timage_url\tcaption_reference_description\nen\tu\tx\rx\nen\tu\tx\n", [MALFORMED, ""]),
    ],
)
def test_readers_drop_bad_rows(tmp_path, part, content, expected):
    path = tmp_path / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert [row().dropped for row in PARTS[part].reader(path)] == expected


def test_text_that_is_not_utf8_in_parquet_is_a_bad_row(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    buffers = arrow.array([b"one", b"\xff\xfe", b"three"]).buffers()
    values = arrow.Array.from_buffers(arrow.string(), 3, buffers)
    write_table(arrow.table({"text": values}), tmp_path / "a.parquet")
    dropped = Counter()
    assert list(documents([tmp_path / "a.parquet"], "text", dropped)) == ["one", "three"]
    assert dropped == {MALFORMED: 1}
