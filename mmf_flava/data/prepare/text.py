"""``python -m mmf_flava.data.prepare text``: text files, JSONL or parquet to a token folder (CCNews, BookCorpus, any)."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.data.prepare.image_source import fingerprint
from mmf_flava.data.prepare.lock import locked
from mmf_flava.data.prepare.published import UNREADABLE, open_text, read_json_lines, read_parquet
from mmf_flava.data.token_files import TokenFile, remove_progress, write_tokens
from mmf_flava.data.tokenizer import load_tokenizer, vocabulary_hash
from mmf_flava.errors import UserError

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")


def text_files(src: Path) -> list[Path]:
    """The file ``src``, or the text files in any depth below it, sorted; UserError when there are none."""
    files = [src] if src.is_file() else sorted(path for path in src.rglob("*") if path.name.endswith(SUFFIXES))
    if not files or not files[0].name.endswith(SUFFIXES):
        raise UserError(f"There is no text at {src}: looked for {', '.join(SUFFIXES)} files.")
    return files


def documents(files: list[Path], column: str = "text") -> Iterator[str]:
    """The documents: of a text file the paragraphs between empty lines, else ``column`` of each record.

    Raises:
        UserError: a record without the column, or a file that cannot be read.
    """
    for path in files:
        try:
            if ".txt" in path.suffixes:
                yield from _paragraphs(path)
                continue
            records = read_parquet(path) if path.suffix == ".parquet" else read_json_lines(path)
            for record in records:
                # lone surrogates cannot be tokenized; a record without text is an empty document, which is left out
                yield (record[column] or "").encode("utf-8", "replace").decode()
        except UserError:
            raise
        except UNREADABLE as error:
            raise UserError(
                f"{path} cannot be read as records with the column {column!r} ({type(error).__name__}: {error}): "
                "name the column with --column, or leave the file out."
            ) from error


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


def build_text(src: Path, tokenizer: str, out: Path, column: str = "text", progress: bool = True) -> dict[str, Any]:
    """Writes the token folder ``out`` and returns its meta data; one that is finished is left as it is.

    Another build in ``out`` is waited for.
    """
    files, words = text_files(src), load_tokenizer(tokenizer)
    source = f"{fingerprint(files)} {column}"
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if (out / "meta.json").is_file():
            meta = TokenFile(out).meta
            if (meta.get("source"), meta["vocabulary_sha256"]) != (source, vocabulary_hash(words)):
                raise UserError(f"{out} holds tokens of other text or of another vocabulary: choose another --out.")
            remove_progress(out)
            return meta
        with tqdm(documents(files, column), desc="tokenizing", unit="document", disable=not progress) as bar:
            return write_tokens(out, bar, words, source)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("text", help="text files, JSONL or parquet to a token folder")
    parser.add_argument(
        "--src", required=True, type=Path, metavar="PATH", help=f"a folder or file: {' '.join(SUFFIXES)}"
    )
    parser.add_argument("--tokenizer", required=True, metavar="NAME", help="a folder, or a name on the hub")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="token folder; a second call goes on")
    parser.add_argument("--column", default="text", help="of JSONL and parquet (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_text)


def run_text(arguments: argparse.Namespace) -> None:
    progress = not arguments.quiet
    meta = build_text(arguments.src, arguments.tokenizer, arguments.out, arguments.column, progress)
    print(f"{arguments.out}: {meta['tokens']} tokens of {meta['documents']} documents.")
