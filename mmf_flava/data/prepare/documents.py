"""Documents of text corpora: text files, JSON, parquet and Arrow files, as CCNews and BookCorpus are published.

Documents are cut at 65,536 characters, at the end of a line or word. Files such as BookCorpus' ``books_large_p1.txt``
have no empty lines between documents, and time and memory of tokenization grow with the length of a document.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.data.annotations import to_texts
from mmf_flava.data.prepare.caption_rules import BLOCK_TAG, INLINE_TAG
from mmf_flava.data.prepare.empty_result import EmptyResultCheck
from mmf_flava.data.prepare.json_records import json_form, read_json_records
from mmf_flava.data.prepare.rows import BadRow, convert_row, file_boundary, refuse_other_format
from mmf_flava.data.prepare.source_files import open_text, parse_json_line, read_arrow, read_parquet
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

Place = tuple[int, Any]


class Documents:
    """The documents of files: paragraphs of text files (separated by empty lines), and the texts of other records.

    Iteration yields the documents of one paragraph or record at a time. HTML tags are removed and entities decoded.
    Long documents are cut, see above.

    Args:
        column: name of the texts' column; None: the first of ``COLUMNS`` that has a text, in each record.
        dropped: the number of bad records is added to this counter, by reason.
        place: where to begin, as ``place`` was after documents were yielded; None: at the first file.
        warn: function that is called with each different traceback of an unexpected error.

    Raises:
        UserError: there are no documents, the records of a file have no such column, or a file cannot be read.
        RuntimeError: ten records in a row fail with an unexpected error.
    """

    def __init__(
        self,
        files: Sequence[Path],
        column: str | None = None,
        dropped: Counter[str] | None = None,
        place: Place | None = None,
        warn: Callable[[str], None] = tqdm.write,
    ):
        self.files, self.columns, self.warn = files, (column,) if column else COLUMNS, warn
        self.dropped = Counter() if dropped is None else dropped
        self._number: int = 0
        self._start: Any = None
        if place is not None:
            self._number, self._start = place
        self._tell: Callable[[], Any] = lambda: None
        remedy = f"Set --column (now {' or '.join(self.columns)}) or --src."
        self._check = EmptyResultCheck(join_first(list(map(str, files))), remedy)
        self._check.has_record = place is not None

    @property
    def place(self) -> Place:
        """The number of a file, and where in the file the next document begins."""
        return self._number, self._tell()

    def __iter__(self) -> Generator[list[str], None, None]:
        while self._number < len(self.files):
            path = self.files[self._number]
            with file_boundary(partial(_other_format, path, self.columns)):
                for texts in self._paragraphs(path) if kind_of(path) == "txt" else self._texts(path):
                    if documents := [document for text in texts for document in cut(without_html(text))]:
                        self._check.add_record()
                        yield documents
            self._number, self._start, self._tell = self._number + 1, None, lambda: None
        self._check.finish()

    def _texts(self, path: Path) -> Iterator[list[str]]:
        """Yield the texts of each record; a list has one document per item."""
        find = partial(_find_texts, self.columns)
        results: Iterator[list[str] | BadRow] = (convert_row(record, find) for record in self._records(path))
        errors = UnexpectedErrors(str(path), self.warn)
        if self._start is None:
            other_format = partial(_other_format, path, self.columns)
            results = refuse_other_format(results, _bad_row, other_format, whole=False)
        else:  # earlier records of the file have texts
            errors.add_good()
        for result in results:
            if isinstance(result, BadRow):
                self.dropped[result.reason] += 1
                self._check.add_dropped(result.reason, f"{path}: {result.message}")
                errors.add_bad(result.failure)
                continue
            errors.add_good()
            if not result:
                self.dropped[NO_TEXT] += 1
                self._check.add_dropped(NO_TEXT, f"{path}: the value of the column is empty")
            yield result

    def _records(self, path: Path) -> Iterator[Any]:
        """Yield the records; the place is a position in the text of JSON Lines, else a number of records."""
        kind, number = kind_of(path), self._start or 0
        if kind == "json" and json_form(path) == "lines":
            with open_text(path) as file:
                if self._start:
                    file.seek(self._start)
                self._tell = file.tell
                yield from (parse_json_line(line) for line in file if not line.isspace())
            return
        if kind == "parquet":
            records = read_parquet(path, first=number)
        else:
            json_records = islice(read_json_records(path, self.columns), number, None)
            records = read_arrow(path, number) if kind == "arrow" else json_records
        self._tell = lambda: number
        for record in records:
            number += 1
            yield record

    def _paragraphs(self, path: Path) -> Iterator[list[str]]:
        """Yield the texts between empty lines. Texts without empty lines are cut while they are read."""
        with open_text(path) as file:
            position, rest = self._start or (0, "")
            if position:
                file.seek(position)
            lines, size = [rest] if rest else [], len(rest)
            self._tell = lambda: (file.tell(), rest)
            while line := file.readline(MAX_DOCUMENT):
                if line.strip():
                    lines.append(line)
                    size += len(line)
                    if size <= MAX_DOCUMENT:
                        continue
                    *complete, rest = cut("".join(lines))
                    lines, size = [rest], len(rest)
                    yield complete
                elif lines:
                    text, lines, size, rest = "".join(lines), [], 0, ""
                    yield [text]
            if lines:
                rest = ""
                yield ["".join(lines)]


def documents(files: Sequence[Path], column: str | None = None, dropped: Counter[str] | None = None) -> Iterator[str]:
    """Yield the documents of ``Documents`` one by one."""
    for texts in Documents(files, column, dropped):
        yield from texts


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
