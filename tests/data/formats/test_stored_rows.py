"""Rows of tables with random access: in memory, or in the cache if they are many."""

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

from mmf_flava.data.formats import stored_rows
from mmf_flava.data.image_list import ImageList
from mmf_flava.errors import UserError
from mmf_flava.files.download import default_cache_dir
from tests.faults.file_format import write_image


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A CSV file of 300 rows whose rows are stored in the cache."""
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(stored_rows, "MAX_MEMORY", 1000)
    write_image(tmp_path / "1.png", 1)
    lines = "".join(f'{n},1.png,"a, {n}\nKäfer",{n % 3}\n' for n in range(300))
    (tmp_path / "t.csv").write_text(f"id,image,caption,label\n{lines}")
    return tmp_path / "t.csv"


def stored():
    return sorted((default_cache_dir() / "tables").glob("*.jsonl"))


def test_many_rows_are_stored_once_in_the_cache(path):
    records = ImageList(path)
    assert len(stored()) == 1 and records.column("name") == [str(n) for n in range(300)]
    assert records.column("captions")[7] == ("a, 7\nKäfer",) and records.read(299).key == "299"
    assert len(pickle.dumps(records)) < 300 * 9 + 3000
    modified = stored()[0].stat().st_mtime_ns
    assert ImageList(path).column("label") == [str(n % 3) for n in range(300)]
    assert [file.stat().st_mtime_ns for file in stored()] == [modified]


def test_another_table_or_other_columns_are_stored_anew(path):
    ImageList(path)
    ImageList(path, columns={"caption": "label"})
    path.write_text(path.read_text().replace("Käfer", "Beetle"))
    assert ImageList(path).column("captions")[0] == ("a, 0\nBeetle",)
    assert len(stored()) == 3


def test_a_row_is_named_by_its_line_in_the_table(path):
    path.write_text(path.read_text() + "1,2\n")
    with pytest.raises(Exception, match=r"t\.csv: line 602 is invalid \(2 fields"):
        ImageList(path).read(300)


def test_processes_share_the_stored_rows(path):
    with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(_labels, [path] * 6))
    assert found == [[str(n % 3) for n in range(300)]] * 6 and len(stored()) == 1


def _labels(path):
    return ImageList(path).column("label")


def test_a_cache_that_cannot_be_written_is_named(path, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"t\.csv: its rows cannot be written to .*MMF_CACHE_DIR"):
        ImageList(path)
    monkeypatch.setattr(stored_rows, "MAX_MEMORY", 1 << 24)
    assert len(ImageList(path)) == 300 and not os.path.exists(tmp_path / "cache")
