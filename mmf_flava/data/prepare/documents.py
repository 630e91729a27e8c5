"""Documents of text corpora: text files, JSON, parquet and Arrow files, as CCNews and BookCorpus are published.

Documents are cut at 65,536 characters, at the end of a line or word. Files such as BookCorpus' ``books_large_p1.txt``
have no empty lines between documents, and time and memory of tokenization grow with the length of a document.
"""

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.data.annotations import to_texts
from mmf_flava.data.prepare.caption_rules import BLOCK_TAG, INLINE_TAG
from mmf_flava.data.prepare.empty_result import EmptyResultCheck
from mmf_flava.data.prepare.json_records import read_json_records
from mmf_flava.data.prepare.rows import BadRow, convert_row, file_boundary, refuse_other_format
from mmf_flava.data.prepare.source_files import open_text, read_arrow, read_parquet
from mmf_flava.data.prepare.text_files import kind_of
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError, join_first

MAX_DOCUMENT = 1 << 16  # characters
# columns of texts in order of precedence: Hugging Face's cc_news and bookcorpus, news-please, other corpora, captions
COLUMNS = ("text", "maintext", "content", "body", "article", "document", "story", "sentence", "captions", "caption")
NO_TEXT = "no text"
# elements of pages that captions do not have
PAGE_TAG = re.compile(
    r"</?(?:html|head|body|title|meta|link|section|main|nav|header|footer|aside|form|input|button|label|iframe|object|"
    r"svg|video|audio|source|picture|noscript)(?:\s[^<>]*)?/?>|<!doctype[^<>]*>",
    re.IGNORECASE,
)
PROGRAM = re.compile(r"<(script|style)(?:\s[^<>]*)?>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)


def documents(files: Sequence[Path], column: str | None = None, dropped: Counter[str] | None = None) -> Iterator[str]:
    """Yield the documents: paragraphs of text files (separated by empty lines), and the texts of other files' records.

    HTML tags are removed and entities decoded. Long documents are cut, see above.

    Args:
        column: name of the texts' column; None: the first of ``COLUMNS`` that has a text, in each record.
        dropped: the number of bad records is added to this counter, by reason.

    Raises:
        UserError: there are no documents, the records of a file have no such column, or a file cannot be read.
        RuntimeError: ten records in a row fail with an unexpected error.
    """
    dropped = Counter() if dropped is None else dropped
    columns = (column,) if column else COLUMNS
    check = EmptyResultCheck(join_first(list(map(str, files))), f"Set --column (now {' or '.join(columns)}) or --src.")
    for path in files:
        other_format = partial(_other_format, path, columns)
        with file_boundary(other_format):
            texts = _paragraphs(path) if kind_of(path) == "txt" else _texts(path, columns, dropped, check)
            for text in texts:
                for document in cut(without_html(text)):
                    check.add_record()
                    yield document
    check.finish()


def _texts(path: Path, columns: Sequence[str], dropped: Counter[str], check: EmptyResultCheck) -> Iterator[str]:
    if (kind := kind_of(path)) == "parquet":
        records = read_parquet(path)
    else:
        records = read_arrow(path) if kind == "arrow" else read_json_records(path, columns)
    results = (convert_row(record, partial(_find_texts, columns)) for record in records)
    errors = UnexpectedErrors(str(path), tqdm.write)
    for result in refuse_other_format(results, _bad_row, partial(_other_format, path, columns), whole=False):
        if isinstance(result, BadRow):
            dropped[result.reason] += 1
            check.add_dropped(result.reason, f"{path}: {result.message}")
            errors.add_bad(result.failure)
            continue
        errors.add_good()
        if not result:
            dropped[NO_TEXT] += 1
            check.add_dropped(NO_TEXT, f"{path}: the value of the column is empty")
        yield from result  # a list has one document per item


def _find_texts(columns: Sequence[str], record: Any) -> list[str]:
    if isinstance(record, str):  # of an array of texts
        return to_texts(record)
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {type(record).__name__}")
    present = [column for column in columns if column in record]
    if not present:
        raise ValueError(f"the columns are {join_first(list(map(str, record)), 20) or 'none'}")
    return next((texts for column in present if (texts := to_texts(record[column], column))), [])


def _bad_row(result: Any) -> BadRow | None:
    return result if isinstance(result, BadRow) else None


def _other_format(path: Path, columns: Sequence[str], problem: str) -> UserError:
    return UserError(
        f"{path} cannot be read as records with the column {' or '.join(columns)} ({problem}). Set --column, or remove "
        "the file from --src."
    )


def _paragraphs(path: Path) -> Iterator[str]:
    """Yield the texts between empty lines. Texts without empty lines are cut while they are read."""
    lines: list[str] = []
    size = 0
    with open_text(path) as file:
        while line := file.readline(MAX_DOCUMENT):
            if line.strip():
                lines.append(line)
                size += len(line)
                if size <= MAX_DOCUMENT:
                    continue
                *complete, rest = cut("".join(lines))
                yield from complete
                lines, size = [rest], len(rest)
            elif lines:
                yield "".join(lines)
                lines, size = [], 0
    if lines:
        yield "".join(lines)


def cut(text: str) -> Iterator[str]:
    """Cut a text into parts of at most ``MAX_DOCUMENT`` characters, at the end of a line, else of a word."""
    start = 0
    while len(text) - start > MAX_DOCUMENT:
        end = start + MAX_DOCUMENT
        middle = start + MAX_DOCUMENT // 2  # a part that ends at a line or word has at least half of the size
        end = next((place + 1 for space in "\n " if (place := text.rfind(space, middle, end)) >= 0), end)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def without_html(text: str) -> str:
    """Return a text without HTML tags, scripts and styles, and with decoded entities. Blocks become lines."""
    if "<" in text:
        text = PAGE_TAG.sub("\n", PROGRAM.sub("\n", text))
        text = INLINE_TAG.sub("", BLOCK_TAG.sub("\n", text)).strip()
    return html.unescape(text) if "&" in text else text
