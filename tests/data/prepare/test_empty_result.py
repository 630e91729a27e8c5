"""A preparation without a result is an error that says what did not match."""

import json

import pytest

from mmf_flava.data.prepare.empty_result import FIRST_ROWS, EmptyResultCheck
from mmf_flava.data.prepare.shard_preparation import RowResult, ShardPreparation
from mmf_flava.errors import UserError

MISSING = RowResult(dropped="no image", unmatched="no file 1.jpg in /images")
LEFT_OUT = RowResult(dropped="not English")
RECORD = RowResult({"txt": b"a"}, {"images": 1})


def prepare(out, results, given="one"):
    def convert(work, first):
        (work / "index").touch()
        for number, result in enumerate(results[first:], start=first):
            read.append(number)
            yield result

    read = []
    preparation = ShardPreparation(
        "test",
        {"given": given},
        convert,
        dict,
        ("images",),
        2,
        source="a.tsv",
        remedy="Set --images.",
    )
    try:
        return preparation.run(out, progress=False)
    finally:
        prepare.read = len(read)


def test_no_match_in_the_first_rows_is_an_error_that_leaves_nothing(tmp_path):
    words = (
        r"^a\.tsv: none of the first 1,001 rows gives a record \(1,000 no image, 1 not English\)\. "
        r"The first no image: no file 1\.jpg in /images\. Set --images\.$"
    )
    with pytest.raises(UserError, match=words):
        prepare(tmp_path, [LEFT_OUT, *[MISSING] * 1500])
    assert prepare.read == FIRST_ROWS + 1
    assert list(tmp_path.iterdir()) == []
    assert prepare(tmp_path, [RECORD], given="two")["counts"]["images"] == 1, "another input may be prepared"


def test_all_rows_dropped_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"none of the 2,000 rows gives a record \(2,000 not English\)\. Set"):
        prepare(tmp_path, [LEFT_OUT] * 2000)
    with pytest.raises(UserError, match=r"a\.tsv: there are no rows\."):
        prepare(tmp_path, [])
    assert not (tmp_path / "manifest.json").exists()


def test_rows_after_a_record_may_be_dropped(tmp_path):
    rows = [*[MISSING] * (FIRST_ROWS - 1), RECORD, *[MISSING] * 1500]
    assert prepare(tmp_path / "a", rows)["dropped"] == {"no image": 2499}
    rows = [*[LEFT_OUT] * 1500, RECORD]
    assert prepare(tmp_path / "b", rows)["dropped"] == {"not English": 1500}


def test_empty_manifest_of_an_earlier_version_is_prepared_again(tmp_path):
    state = {"input": {"given": "one"}, "counts": {"rows": 1, "images": 0}, "dropped": {"no image": 1}, "shards": []}
    (tmp_path / "manifest.json").write_text(json.dumps(state))
    assert prepare(tmp_path, [RECORD])["counts"] == {"rows": 1, "images": 1}


def test_reasons_are_explained_by_frequency():
    check = EmptyResultCheck("x", "Correct it.")
    check.add_dropped("no text", "maintext is null", count=3)
    check.add_dropped("malformed row", "ValueError: cut")
    with pytest.raises(UserError) as error:
        check.finish()
    assert str(error.value) == (
        "x: none of the 4 rows gives a record (3 no text, 1 malformed row). The first no text: maintext is null. "
        "The first malformed row: ValueError: cut. Correct it."
    )
