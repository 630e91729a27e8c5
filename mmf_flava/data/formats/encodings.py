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

CHUNK = 1 << 20
WORD = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")  # with bytes that are not ASCII
LETTERS = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüÿŒœ"
IN_WORDS = "\u2019\u2018\u00b7\u2013\u2014"  # signs between letters: apostrophes, a dot and dashes
AFTER_WORDS = "ªºµ"  # letters that are signs
RUN = re.compile(f"[{LETTERS}]{{3}}")  # no Western European word has three such letters in a row
MAX_OTHERS = 1 << 20  # other words that are counted
MAX_OTHER_WORDS = 0.02  # share of the words that may be other ones


def refuse_unknown_encoding(path: Path) -> None:
    """Raise UserError if a text file is neither Unicode nor Windows-1252, which includes Latin-1."""
    with open_text(path) as text:
        if not text.encoding.startswith("utf-8"):
            return
    if _is_utf8(path):
        return
    valid, western = 0, 0
    others: list[bytes] = []
    for chunk in _chunks(path):
        for word in WORD.findall(chunk):
            try:
                word.decode()
                valid += 1
            except UnicodeDecodeError:
                if is_western(word.decode("cp1252", "replace")):
                    western += 1
                elif len(others) < MAX_OTHERS:
                    others.append(word)
    # if most words are UTF-8, some bytes are damaged
    if valid < western + len(others) and len(others) > MAX_OTHER_WORDS * (western + len(others)):
        raise UserError(
            f"{path}: the text is neither UTF-8 nor Windows-1252 (e.g. the bytes {others[0][:20]!r}), so its letters "
            'are unknown. Save it as UTF-8; in Excel, as "CSV UTF-8".'
        )


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(path):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _chunks(path: Path) -> Iterator[bytes]:
    with open_bytes(path) as file:
        while True:
            with damaged_file(path, "text file", "Copy or download it again."):
                chunk = file.read(CHUNK)
            if not chunk:
                return
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
