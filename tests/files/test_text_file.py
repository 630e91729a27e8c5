"""The encoding of a text file is found out, and no letter is lost in silence."""

import bz2
import gzip
import lzma

import pytest

from mmf_flava.data.prepare.source_files import open_bytes, open_text
from mmf_flava.files.text_file import is_binary

TEXT = "Caf\xe9 \u201cd\xe9j\xe0\u201d \u2013 na\xefve\nStra\xdfe\n"
LATIN_1 = TEXT.replace("\u201c", "").replace("\u201d", "").replace("\u2013", "-")


@pytest.mark.parametrize("opener", [open, gzip.open, bz2.open, lzma.open])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_letters_are_those_of_the_file(tmp_path, caplog, opener, encoding):
    path, text = tmp_path / "a.txt", LATIN_1 if encoding == "latin-1" else TEXT
    with opener(path, "wb") as file:
        file.write(text.encode(encoding))
    with open_text(path) as file:
        assert list(file) == text.splitlines(keepends=True)
    with open_text(path) as file:
        assert file.read() == text
    warnings = [record.getMessage() for record in caplog.records]
    if encoding in ("cp1252", "latin-1"):
        count = sum(not letter.isascii() for letter in text)
        assert len(warnings) == 2
        assert warnings[0].startswith(f"{path}: {count} bytes were not valid UTF-8 and read as Windows-1252")
        assert "'Caf\xe9" in warnings[0]
    else:
        assert not warnings


def test_valid_utf8_beside_an_invalid_byte_is_kept(tmp_path, caplog):
    (tmp_path / "a").write_bytes("\xe9t\xe9 \u4e2d ".encode() + b"\xe9 \x81\n")
    with open_text(tmp_path / "a") as file:
        assert list(file) == ["\xe9t\xe9 \u4e2d \xe9 \ufffd\n"]  # Windows-1252 has no 0x81
    assert "2 bytes were not valid UTF-8" in caplog.text


def test_truncated_utf16_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(TEXT.encode("utf-16")[:-1])
    with open_text(tmp_path / "a") as file, pytest.raises(UnicodeDecodeError, match="truncated"):
        file.read()


@pytest.mark.parametrize(
    ("content", "binary"), [(b"%PDF\0\1\2\xff", True), (b"", False), (b"a", False), (b"a\n" * 3000, False)]
)
def test_binary_files(tmp_path, content, binary):
    (tmp_path / "a").write_bytes(content)
    with open_bytes(tmp_path / "a") as file:
        assert is_binary(file) == binary
