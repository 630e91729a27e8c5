"""``python -m mmf_flava.data.prepare tokenizer``: train a WordPiece tokenizer of any size on any texts."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, trainers
from tqdm import tqdm

from mmf_flava.command import file_path, integer
from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.names import extension_of
from mmf_flava.data.prepare.documents import documents
from mmf_flava.data.prepare.shard_preparation import describe_dropped
from mmf_flava.data.prepare.text_files import SUFFIXES, kind_of, text_files
from mmf_flava.data.record import IMAGE_EXTENSIONS, BadRecord, record_boundary
from mmf_flava.data.records import open_records
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece
from mmf_flava.errors import UserError
from mmf_flava.files import atomic

MIN_VOCABULARY = 100
MAX_LETTERS = 1000  # letters of the vocabulary, at most, as in BERT's trainer; the others become [UNK]
TEXT_FIELDS = ("json", "txt")
RECORD_EXTENSIONS = (*IMAGE_EXTENSIONS, "tar", "arrow", "csv", "tsv")  # in a folder of records, not of text files


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a lower-case WordPiece tokenizer with at most ``vocabulary`` entries. The result is deterministic.

    Args:
        texts: the texts; they are read twice.

    Raises:
        UserError: the texts have no letters.
    """
    trained = build_wordpiece(SPECIAL_TOKENS)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(trained.normalizer.normalize_str(text))
    for space in " \n":
        counts.pop(space, None)
    if not counts:
        raise UserError("--src: the texts are empty. Set --src to files with text.")
    # The trainer numbers the continuations ##a, ##b, ... in the order of a hash table and breaks ties by number, so
    # its result varies. Listing them as special tokens fixes their numbers; the returned tokenizer is built from the
    # vocabulary alone, without these special tokens.
    most = min(MAX_LETTERS, (vocabulary - len(SPECIAL_TOKENS)) // 2)
    letters = sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:most])
    fixed = SPECIAL_TOKENS + letters + [f"##{letter}" for letter in letters]
    rare: dict[str, Any] = (
        {"initial_alphabet": letters, "limit_alphabet": len(letters)} if len(letters) < len(counts) else {}
    )
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=fixed, show_progress=False, **rare)
    trained.train_from_iterator(texts, trainer)
    return build_wordpiece([token for token, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1])])


class Texts:
    """The texts of files and records, which can be iterated several times.

    Text files have one text per paragraph, JSONL and parquet files one per row. All other paths are opened as records,
    whose captions are the texts.

    Args:
        column: column of the texts in tables; None: the common names of texts and captions.

    Attributes:
        dropped: number of bad rows and records of the first iteration, by reason.
    """

    def __init__(self, paths: Sequence[Path], column: str | None = None, progress: bool = True):
        self.paths, self.column, self.progress = paths, column, progress
        self.dropped: Counter[str] = Counter()
        self._steps = iter(["reading letters", "reading words"])

    def __iter__(self) -> Iterator[str]:
        step = next(self._steps, "reading texts")
        dropped = self.dropped if step == "reading letters" else Counter()
        texts = (text for path in self.paths for text in self._read(path, dropped))
        yield from tqdm(texts, desc=step, unit="text", disable=not self.progress)

    def _read(self, path: Path, dropped: Counter[str]) -> Iterator[str]:
        if files := _document_files(path):
            yield from documents(files, self.column, dropped)
            return
        columns = None if self.column is None else {"caption": self.column}
        records = open_records(path, columns=columns, images_required=False)
        for number in range(len(records)):
            try:
                with record_boundary(f"record {number}"):
                    captions, _ = parse_annotation(records.read(number, TEXT_FIELDS))
            except BadRecord as error:
                dropped[error.reason.value] += 1
                continue
            yield from captions


def _document_files(path: Path) -> list[Path]:
    """Return the text, JSONL and parquet files at ``path``; an empty list if it has records in another format."""
    if path.is_dir() and any(extension_of(file.name) in RECORD_EXTENSIONS for file in path.rglob("*")):
        return []
    return text_files(path) if path.is_dir() or kind_of(path) else []


def prepare_tokenizer(
    src: Sequence[Path], out: Path, vocabulary: int, column: str | None = None, progress: bool = True
) -> dict[str, Any]:
    """Train a tokenizer on texts and write it to the folder ``out``.

    Returns:
        {"vocabulary": number of tokens, "dropped": number of bad rows by reason}.

    Raises:
        UserError: ``out`` is not empty, or the texts cannot be read or are empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: the folder is not empty. Choose another --out, or delete the folder.")
    texts = Texts(src, column, progress)
    tokenizer = train_tokenizer(texts, vocabulary)
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_text(out / "tokenizer.json", tokenizer.to_str(pretty=True))
    return {"vocabulary": tokenizer.get_vocab_size(), "dropped": dict(texts.dropped)}


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "tokenizer",
        help="train a WordPiece tokenizer on texts or captions",
        description="Trains a lower-case WordPiece tokenizer. The same texts give the same tokenizer.",
    )
    parser.add_argument(
        "--src",
        required=True,
        nargs="+",
        type=file_path,
        metavar="PATH",
        help=f"files or folders of texts ({' '.join(SUFFIXES)}), or records with captions in any format of "
        "docs/own_data.md",
    )
    parser.add_argument("--out", required=True, type=file_path, metavar="DIR", help="new or empty folder")
    parser.add_argument(
        "--vocabulary", required=True, type=integer(MIN_VOCABULARY), metavar="N", help="maximum number of tokens"
    )
    parser.add_argument("--column", help="column of the texts in tables (default: text, captions or caption)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_tokenizer)


def run_tokenizer(arguments: argparse.Namespace) -> None:
    progress = not arguments.quiet
    result = prepare_tokenizer(arguments.src, arguments.out, arguments.vocabulary, arguments.column, progress)
    dropped = f" Dropped: {describe_dropped(result)}." if result["dropped"] else ""
    print(f"{arguments.out}: {result['vocabulary']:,} tokens.{dropped}")
