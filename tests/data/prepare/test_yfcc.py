"""YFCC100M's metadata, in the published form."""

import bz2
import hashlib
import sqlite3

import pytest

from mmf_flava.data.prepare.yfcc import read_yfcc100m

from .lazy import evaluated

URL = "http://farm4.staticflickr.com/3153/2970773875_164f0c0b83.jpg"
HASH = "d29e7c6a3028418c64eb15e3cf577c2"
COLUMNS = [
    "photoid",
    "uid",
    "unickname",
    "datetaken",
    "dateuploaded",
    "capturedevice",
    "title",
    "description",
    "usertags",
    "machinetags",
    "longitude",
    "latitude",
    "accuracy",
    "pageurl",
    "downloadurl",
    "licensename",
    "licenseurl",
    "serverid",
    "farmid",
    "secret",
    "secretoriginal",
    "ext",
    "marker",
]


def row(title, description, marker="0"):
    values = {"photoid": "2970773875", "title": title, "description": description, "downloadurl": URL, "marker": marker}
    return [values.get(column, "x") for column in COLUMNS]


ROWS = [
    row("Birthday+party+for+Anna", ""),
    row("", "The+%3Cb%3Eold%3C%2Fb%3E+church%3Cbr%2F%3Eby+the+lake"),
    row("a", "b"),
    row("", "The+old+church", "1"),
]


def check(annotations):
    first, second, *others = annotations
    assert first.captions == ("Birthday party for Anna",)
    assert second.captions == ("The old church by the lake",)
    assert [annotation.dropped for annotation in others] == ["too few words", "video"]
    assert (first.url, first.ids) == (URL, {"flickr:2970773875"})
    digest = hashlib.md5(URL.encode()).digest()
    assert {"2970773875", "".join(f"{byte:x}" for byte in digest), digest.hex()} < set(first.names)
    return first


@pytest.mark.parametrize("compress", [bytes, bz2.compress])
@pytest.mark.parametrize("columns", [23, 24, 25])
def test_text(tmp_path, columns, compress):
    before = {23: [], 24: ["0"], 25: ["0"]}[columns]
    after = [HASH] if columns == 25 else []
    lines = ["\t".join([*before, fields[0], *after, *fields[1:]]) for fields in ROWS]
    path = tmp_path / "yfcc100m_dataset-0.bz2"
    path.write_bytes(compress("".join(f"{line}\n" for line in [*lines, "short"]).encode()))
    *annotations, last = evaluated(read_yfcc100m(path))
    assert last.dropped == "malformed line"
    assert (HASH in check(annotations).names) == (columns == 25)


def test_database(tmp_path):
    path = tmp_path / "yfcc100m #1?.sql"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE settings (name TEXT)")
        columns = ", ".join(f"{name} {'INTEGER' if name in ('photoid', 'marker') else 'TEXT'}" for name in COLUMNS)
        database.execute(f"CREATE TABLE yfcc100m_dataset ({columns}, PRIMARY KEY (photoid, description))")
        database.executemany(f"INSERT INTO yfcc100m_dataset VALUES ({', '.join('?' * 23)})", ROWS)
    check(evaluated(read_yfcc100m(path)))


def test_database_without_the_table(tmp_path):
    with sqlite3.connect(tmp_path / "a.sql") as database:
        database.execute("CREATE TABLE settings (name TEXT)")
    with pytest.raises(ValueError, match=r"no table has the columns photoid, .* tables: settings"):
        evaluated(read_yfcc100m(tmp_path / "a.sql"))
