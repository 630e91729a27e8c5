"""``python -m mmf_flava.data.prepare text``: convert text, JSONL or parquet files to a folder of token ids."""

import argparse
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.command import file_path
from mmf_flava.data.annotations import to_texts
from mmf_flava.data.names import is_hidden
from mmf_flava.data.prepare.image_source import fingerprint
from mmf_flava.data.prepare.lock import folder_lock
from mmf_flava.data.prepare.rows import BadRow, convert_row, file_boundary, refuse_other_format
from mmf_flava.data.prepare.shard_preparation import describe_dropped
from mmf_flava.data.prepare.source_files import open_text, read_json_lines, read_parquet
from mmf_flava.data.token_files import TokenFile, remove_progress, write_tokens
from mmf_flava.data.tokenizer import compute_vocabulary_hash, load_tokenizer
from mmf_flava.data.unexpected_errors import UnexpectedErrors
from mmf_flava.errors import UserError

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")


def text_files(src: Path) -> list[Path]:
    """Return the file ``src`` or the text files at any depth below it, sorted. Raise UserError if there are none."""
    files = [src] if src.is_file() else sorted(path for path in src.rglob("*") if _is_text_file(path, src))
    if not files or not files[0].name.lower().endswith(SUFFIXES):
        raise UserError(f"{src}: no text files found. Expected {', '.join(SUFFIXES)} files.")
    return files


def _is_text_file(path: Path, root: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and not any(map(is_hidden, path.relative_to(root).parts))


def documents(files: list[Path], column: str = "text", dropped: Counter[str] | None = None) -> Iterator[str]:
    """Yield the documents: paragraphs of text files (separated by empty lines), and ``column`` of other files.

    Args:
        dropped: the number of bad records is added to this counter, by reason.

    Raises:
        UserError: the records of a file have no such column, or a file cannot be read.
        RuntimeError: ten records in a row fail with an unexpected error.
    """
    dropped = Counter() if dropped is None else dropped
    for path in files:
        other_format = partial(_other_format, path, column)
        with file_boundary(other_format):
            if path.name.lower().endswith((".txt", ".txt.gz")):
                yield from _paragraphs(path)
                continue
            records = read_parquet(path) if path.suffix.lower() == ".parquet" else read_json_lines(path)
            results = (convert_row(record, lambda record: to_texts(record[column], column)) for record in records)
            errors = UnexpectedErrors(str(path), tqdm.write)
            for result in refuse_other_format(results, _bad_row, other_format):
                if isinstance(result, BadRow):
                    dropped[result.reason] += 1
                    errors.add_bad(result.failure)
                else:
                    errors.add_good()
                    yield from result  # a list has one document per item


def _bad_row(result: Any) -> BadRow | None:
    return result if isinstance(result, BadRow) else None


def _other_format(path: Path, column: str, problem: str) -> UserError:
    return UserError(
        f"{path} cannot be read as records with the column {column!r} ({problem}). Set --column, or remove the file "
        "from --src."
    )


def _paragraphs(path: Path) -> Iterator[str]:
    lines: list[str] = []
    with open_text(path) as file:
        for line in file:
            if line.strip():
                lines.append(line)
            elif lines:
                yield "".join(lines)
                lines = []
    if lines:
        yield "".join(lines)


def prepare_text(src: Path, tokenizer: str, out: Path, column: str = "text", progress: bool = True) -> dict[str, Any]:
    """Tokenize the text files at ``src``, write the token ids to ``out``, and return their metadata.

    If there are bad records, their numbers by reason are added as ``dropped``.

    If ``out`` is already complete, it is not changed.

    If another process writes to ``out``, wait until it has finished.

    Raises:
        UserError: no text was found, a file cannot be read, or ``out`` contains tokens of a
            different text or vocabulary.
    """
    files, loaded_tokenizer = text_files(src), load_tokenizer(tokenizer)
    source = f"{fingerprint(files)} {column}"
    out.mkdir(parents=True, exist_ok=True)
    with folder_lock(out):
        if (out / "meta.json").is_file():
            meta = TokenFile(out).meta
            if (meta.get("source"), meta["vocabulary_sha256"]) != (source, compute_vocabulary_hash(loaded_tokenizer)):
                raise UserError(f"{out} contains tokens of a different text or vocabulary. Choose another --out.")
            remove_progress(out)
            return meta
        dropped: Counter[str] = Counter()
        with tqdm(documents(files, column, dropped), desc="tokenizing", unit="document", disable=not progress) as bar:
            meta = write_tokens(out, bar, loaded_tokenizer, source)
        return {**meta, "dropped": dict(dropped)} if dropped else meta


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("text", help="convert text, JSONL or parquet files to a folder of token ids")
    parser.add_argument(
        "--src", required=True, type=file_path, metavar="PATH", help=f"file or folder of files: {' '.join(SUFFIXES)}"
    )
    parser.add_argument(
        "--tokenizer", required=True, metavar="NAME", help="local folder or Hugging Face model ID of the tokenizer"
    )
    parser.add_argument(
        "--out", required=True, type=file_path, metavar="DIR", help="output folder; an interrupted run is resumed"
    )
    parser.add_argument(
        "--column", default="text", help="name of the text column in JSONL and parquet files (default: %(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_text)


def run_text(arguments: argparse.Namespace) -> None:
    progress = not arguments.quiet
    meta = prepare_text(arguments.src, arguments.tokenizer, arguments.out, arguments.column, progress)
    dropped = f" Dropped: {describe_dropped(meta)}." if "dropped" in meta else ""
    print(f"{arguments.out}: {meta['tokens']} tokens in {meta['documents']} documents.{dropped}")
