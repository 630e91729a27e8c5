import bz2
import gzip
import json
import lzma
from zipfile import ZipFile

import pytest

from mmf_flava.data.prepare.source_files import open_text, read_arrow, read_json, read_parquet
from mmf_flava.errors import UserError

TEXT = "ein Käfer\n"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_compression_is_recognised_by_content(tmp_path, compress):
    (tmp_path / "a.txt").write_bytes(compress(b"\xef\xbb\xbf" + TEXT.encode()))
    with open_text(tmp_path / "a.txt") as file:
        assert list(file) == [TEXT]


def test_zip_archives_of_one_file_are_read(tmp_path):
    with ZipFile(tmp_path / "image_data.json.zip", "w") as archive:
        archive.writestr("data/image_data.json", json.dumps([1]))
        archive.writestr("__MACOSX/._image_data.json", "x")
    assert read_json(tmp_path / "image_data.json.zip") == [1]
    with ZipFile(tmp_path / "image_data.json.zip", "a") as archive:
        archive.writestr("data/other.json", "1")
    with pytest.raises(UserError, match=r"image_data\.json\.zip: the archive contains 2 files\. Unpack it"):
        read_json(tmp_path / "image_data.json.zip")


def test_parquet_pages_are_verified(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    path = tmp_path / "a.parquet"
    table = arrow.table({"text": ["a kettle on a stove"] * 3 + ["a red door"]})
    write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    assert [row["text"] for row in read_parquet(path)][3] == "a red door"
    path.write_bytes(path.read_bytes().replace(b"a red door", b"a bed door"))
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        list(read_parquet(path))


def test_arrow_files_and_streams(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"text": ["a", "b", "c"]})
    for name, create in {"stream": arrow.ipc.new_stream, "file": arrow.ipc.new_file}.items():
        with create(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        assert [row["text"] for row in read_arrow(tmp_path / name)] == ["a", "b", "c"]
