"""Text that is not UTF-8 is read as Windows-1252, if its words can be those of a Western European language.

Text in other encodings, such as Windows-1251 or GBK, would be read as wrong letters, so it is refused.
"""

import codecs
import re
from pathlib import Path

from mmf_flava.data.prepare.source_files import open_bytes, open_text
from mmf_flava.errors import UserError
from mmf_flava.files.damaged_file import damaged_file
from mmf_flava.files.text_file import INVALID, WINDOWS_1252

CHUNK = 1 << 20
WORD = re.compile("[A-Za-z\udc80-\udcff]*[\udc80-\udcff][A-Za-z\udc80-\udcff]*")  # with bytes that are not UTF-8
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
    valid, invalid, words, others = 0, 0, 0, []
    with damaged_file(path, "text file", "Copy or download it again."), open_bytes(path) as file:
        while chunk := file.read(CHUNK):
            part = decoder.decode(chunk)
            if part.isascii():
                continue
            valid += len(OTHERS.findall(part))
            invalid += len(INVALID.findall(part))
            for word in WORD.findall(part) if invalid else ():
                words += 1
                if len(others) < words and not is_western(word.translate(WINDOWS_1252)):
                    others.append(word)
    if invalid > valid and len(others) > MAX_OTHER_WORDS * words:
        example = others[0][:20].encode("utf-8", "surrogateescape")
        raise UserError(
            f"{path}: the text is neither UTF-8 nor Windows-1252 (e.g. the bytes {example!r}), so its letters are "
            'unknown. Save it as UTF-8; in Excel, as "CSV UTF-8".'
        )


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
