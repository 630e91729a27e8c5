"""Text that is not UTF-8 is read as Windows-1252, if its words can be those of a Western European language.

Text in other encodings, such as Windows-1251 or GBK, would be read as wrong letters, so it is refused.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from mmf_flava.data.prepare.source_files import open_bytes, open_text
from mmf_flava.errors import UserError
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.files.text_file import INVALID

CHUNK = 1 << 20
WORD = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")  # with bytes that are not ASCII
OTHERS = re.compile("[^\x00-\x7f\udc80-\udcff]")
LETTERS = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿŒœ"
IN_WORDS = "\u2019\u2018\u00b7\u2013\u2014"  # signs between letters: apostrophes, a dot and dashes
AFTER_WORDS = "ªºµ"  # letters that are signs
RUN = re.compile(f"[{LETTERS}]{{3}}")  # no Western European word has three such letters in a row
MAX_OTHER_WORDS = 0.02  # share of the words that may be other ones


def refuse_unknown_encoding(path: Path) -> None:
    """Raise UserError if a text file is neither Unicode nor Windows-1252, which includes Latin-1."""
    with open_text(path) as text:
        if not text.encoding.startswith("utf-8"):
            return
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    valid = invalid = 0
    for chunk in _chunks(path):
        if not (text := decoder.decode(chunk)).isascii():
            valid += len(OTHERS.findall(text))
            invalid += len(INVALID.findall(text))
    if 2 * invalid <= valid:  # UTF-8, in which some bytes are damaged
        return
    count, others = 0, []
    for chunk in _chunks(path):
        words = WORD.findall(chunk)
        count += len(words)
        others += [word for word in words if not is_western(word.decode("cp1252", "replace"))]
    if len(others) > MAX_OTHER_WORDS * count:
        raise UserError(
            f"{path}: the text is neither UTF-8 nor Windows-1252 (e.g. the bytes {others[0][:20]!r}), so its letters "
            'are unknown. Save it as UTF-8; in Excel, as "CSV UTF-8".'
        )


def _chunks(path: Path) -> Iterator[bytes]:
    with damaged_file(path, "text file", "Copy or download it again."), open_bytes(path) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def is_western(word: str) -> bool:
    """Return whether a word, decoded as Windows-1252, can be a word of a Western European language."""
    for position, letter in enumerate(word):
        if letter.isascii() or letter in LETTERS:
            continue
        inside = word[:position][-1:].isalpha() and word[position + 1 :][:1].isalpha()
        if (
            letter == "\ufffd"
            or (letter.isalpha() and letter not in AFTER_WORDS)
            or (inside and letter not in IN_WORDS)
        ):
            return False
    return not RUN.search(word)
