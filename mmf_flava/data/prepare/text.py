"""``python -m mmf_flava.data.prepare text``: convert text, JSON, parquet or Arrow files to a folder of token ids."""

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from mmf_flava.command import file_path
from mmf_flava.data.prepare.documents import COLUMNS
from mmf_flava.data.prepare.executors import LOCAL, Executor, add_executor
from mmf_flava.data.prepare.image_source import fingerprint, sample_sha256
from mmf_flava.data.prepare.row_tasks import RowProgress
from mmf_flava.data.prepare.shard_preparation import describe_dropped
from mmf_flava.data.prepare.tasks import Result
from mmf_flava.data.prepare.text_files import SUFFIXES, text_files
from mmf_flava.data.prepare.text_tasks import TextTasks, TokenCopy, part_path
from mmf_flava.data.prepare.work_folder import WorkFolder, file_size
from mmf_flava.data.token_files import TokenFile, finish_tokens, token_dtype
from mmf_flava.data.tokenizer import compute_settings_hash, compute_vocabulary_hash, load_tokenizer
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import read_object

RULES = 2  # version of the rules by which files are cut into documents
CHARACTERS = 1 << 26  # of the documents of a task: about 15 seconds of one core
FORMER = (".progress.json", ".boundaries.bin")  # temporary files of an earlier version
RESULT_TYPES = {"counts": dict, "dropped": dict, "messages": dict}


class TextFolder(WorkFolder):
    """The output folder of a preparation of text; see ``WorkFolder`` and ``text_tasks``."""

    def __init__(self, out: Path, input: Mapping[str, Any], itemsize: int):
        super().__init__(out, out / ".work", out / "meta.json", input, None, RESULT_TYPES)
        self.itemsize = itemsize

    def is_finished(self) -> bool:
        """Return whether the tokens are complete.

        Raises:
            UserError: the folder contains tokens of another input.
        """
        if not self.has_end():
            return False
        meta = TokenFile(self.out).meta
        found = {"source": meta.get("source"), "vocabulary": meta["vocabulary_sha256"]}
        if "tokenizer_sha256" in meta:  # not of an earlier version
            found["tokenizer"] = meta["tokenizer_sha256"]
        self.check_input({"input": {**self.input, **found}})
        return True

    def begin(self) -> bool:
        """See ``WorkFolder.begin``. Raise UserError if the folder has tokens of others."""
        others = [name for name in ("tokens.bin", "documents.npy") if (self.out / name).exists()]
        unfinished = self.work.is_dir() or any((self.out / name).exists() for name in FORMER)
        if others and not unfinished and not self.has_end():
            raise UserError(
                f"{self.out} contains {others[0]}, which this command has not written. Choose another --out."
            )
        return super().begin()

    def other_input(self) -> UserError:
        return UserError(
            f"{self.out} contains tokens of a different text or vocabulary, or another process prepares them. Choose "
            "another --out, or delete the folder."
        )

    def has_files(self, number: int, result: Result) -> bool:
        sizes = [file_size(part_path(self.tasks, number, suffix)) for suffix in ("tokens", "lengths")]
        counts = result["counts"]
        return sizes == [self.itemsize * counts.get("tokens", -1), 8 * counts.get("documents", -1)]


@dataclass(frozen=True)
class TextPreparation:
    """Tokenization of text files.

    Args:
        files: the text files.
        column: name of the texts' column; None: see ``Documents``.
        characters: of the documents of a task, at least.
    """

    files: Sequence[Path]
    column: str | None
    tokenizer: Tokenizer
    characters: int

    def run(self, out: Path, progress: bool = True, executor: Executor = LOCAL) -> dict[str, Any]:
        """Write the tokens to ``out``, or resume an interrupted preparation, and return the metadata.

        Other processes that prepare the same text in ``out`` share the work.

        Raises:
            UserError: there is no text, a file cannot be read, a worker was killed repeatedly, or ``out`` contains
                tokens of another text or vocabulary, or another process prepares them.
        """
        executor.check()
        out.mkdir(parents=True, exist_ok=True)
        folder = self.folder(out)
        if not folder.is_finished():
            with folder.open():
                with tqdm(desc="tokenizing", unit="document", disable=not progress) as bar:
                    folder.run(partial(self.work, out, folder.input), executor, bar)
                self._finish(folder)
        folder.delete()
        for name in FORMER:
            (out / name).unlink(missing_ok=True)
        return read_object(folder.end)

    def folder(self, out: Path) -> TextFolder:
        input = {
            "source": f"{fingerprint(self.files)} {self.column} {RULES}",
            "sample": sample_sha256(self.files),
            "vocabulary": compute_vocabulary_hash(self.tokenizer),
            "tokenizer": compute_settings_hash(self.tokenizer),
            "characters": self.characters,
        }
        return self._folder(out, input)

    def work(self, out: Path, input: Mapping[str, Any], progress: RowProgress | None = None) -> None:
        """Run the tasks that no other process has begun, until all have a result or the metadata are written."""
        if progress is None:  # other workers use the other cores
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        progress, folder = progress or RowProgress(), self._folder(out, input)
        results = folder.walk(folder.tasks, TextTasks(self, folder.tasks, progress).run, progress.add_result)
        if results:
            copy = TokenCopy(folder.tasks, results, out / "tokens.bin", folder.itemsize)
            folder.walk(copy.tasks, copy.run)

    def _folder(self, out: Path, input: Mapping[str, Any]) -> TextFolder:
        return TextFolder(out, input, token_dtype(self.tokenizer).itemsize)

    def _finish(self, folder: TextFolder) -> None:
        """Write the metadata, unless another process has written them."""
        results = folder.results()
        dropped = Counter[str]()
        for result in results:
            dropped.update(result["dropped"])
        with folder.deletion():
            paths = [part_path(folder.tasks, number, "lengths") for number in range(len(results))]
            lengths = [np.fromfile(path, "<u8") for path in paths]
            if not folder.has_end():
                finish_tokens(folder.out, lengths, self.tokenizer, folder.input["source"], dropped)


def prepare_text(
    src: Path,
    tokenizer: str,
    out: Path,
    column: str | None = None,
    progress: bool = True,
    executor: Executor = LOCAL,
) -> dict[str, Any]:
    """Tokenize the text files at ``src``, write the token ids to ``out``, and return their metadata.

    If documents are dropped, the metadata contain their numbers by reason as ``dropped``.

    If ``out`` is already complete, it is not changed.

    Raises:
        UserError: see ``TextPreparation.run``.
    """
    files = [path for path in text_files(src) if out.absolute() not in path.absolute().parents]  # not the output
    return TextPreparation(files, column, load_tokenizer(tokenizer), CHARACTERS).run(out, progress, executor)


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
    add_executor(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_text)


def run_text(arguments: argparse.Namespace) -> None:
    progress = not arguments.quiet
    meta = prepare_text(
        arguments.src, arguments.tokenizer, arguments.out, arguments.column, progress, arguments.executor
    )
    dropped = f" Dropped: {describe_dropped(meta)}." if "dropped" in meta else ""
    print(f"{arguments.out}: {meta['tokens']} tokens in {meta['documents']} documents.{dropped}")
