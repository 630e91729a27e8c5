"""``python -m mmf_flava.data.prepare text``: convert text, JSON, parquet or Arrow files to a folder of token ids."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmf_flava.command import file_path
from mmf_flava.data.prepare.documents import COLUMNS, documents
from mmf_flava.data.prepare.image_source import fingerprint
from mmf_flava.data.prepare.lock import folder_lock
from mmf_flava.data.prepare.shard_preparation import describe_dropped
from mmf_flava.data.prepare.text_files import SUFFIXES, text_files
from mmf_flava.data.token_files import TokenFile, remove_progress, write_tokens
from mmf_flava.data.tokenizer import compute_vocabulary_hash, load_tokenizer
from mmf_flava.errors import UserError

RULES = 2  # version of the rules by which files are cut into documents


def prepare_text(
    src: Path, tokenizer: str, out: Path, column: str | None = None, progress: bool = True
) -> dict[str, Any]:
    """Tokenize the text files at ``src``, write the token ids to ``out``, and return their metadata.

    If documents are dropped, the metadata contain their numbers by reason as ``dropped``.

    If ``out`` is already complete, it is not changed.

    If another process writes to ``out``, wait until it has finished.

    Raises:
        UserError: no text was found, a file cannot be read, or ``out`` contains tokens of a
            different text or vocabulary.
    """
    files, loaded_tokenizer = text_files(src), load_tokenizer(tokenizer)
    source = f"{fingerprint(files)} {column} {RULES}"
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
            return write_tokens(out, bar, loaded_tokenizer, source, dropped)


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("text", help="convert text, JSON, parquet or Arrow files to a folder of token ids")
    parser.add_argument(
        "--src",
        required=True,
        type=file_path,
        metavar="PATH",
        help=f"file or folder of files, also compressed: {' '.join(SUFFIXES)}",
    )
    parser.add_argument(
        "--tokenizer", required=True, metavar="NAME", help="local folder or Hugging Face model ID of the tokenizer"
    )
    parser.add_argument(
        "--out", required=True, type=file_path, metavar="DIR", help="output folder; an interrupted run is resumed"
    )
    parser.add_argument(
        "--column",
        help=f"name of the text column in JSON, parquet and Arrow files (default: the first of {', '.join(COLUMNS)} "
        "that a record has)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_text)


def run_text(arguments: argparse.Namespace) -> None:
    progress = not arguments.quiet
    meta = prepare_text(arguments.src, arguments.tokenizer, arguments.out, arguments.column, progress)
    dropped = f" Dropped: {describe_dropped(meta)}." if "dropped" in meta else ""
    print(f"{arguments.out}: {meta['tokens']} tokens in {meta['documents']} documents.{dropped}")
