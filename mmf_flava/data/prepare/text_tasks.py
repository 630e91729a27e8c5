"""The tasks of a preparation of text: each tokenizes a range of the documents; then each copies a range of the tokens.

The work folder contains for task 7
    00007.tokens    the ids of its documents
    00007.lengths   uint64: the number of tokens of each document that is not empty
    00007.place     where its last document ends, which is where task 8 begins; written before the task tokenizes
    00007.json      its result, written last
    copied/         results of the tasks that copy ``COPY`` bytes to tokens.bin
A task ends with the paragraph or record that completes its number of characters, so a process has to read the texts of
all tasks before its own. It begins at the last place that is known. Reading takes a small part of the time of
tokenization, so that this place is usually the end of the task before.
"""

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer

from mmf_flava.data.prepare.documents import Documents, Place
from mmf_flava.data.prepare.row_tasks import RowProgress
from mmf_flava.data.prepare.tasks import Abandoned, IsDone, Result, TaskFolder
from mmf_flava.data.token_files import tokenize
from mmf_flava.files import atomic, text_file
from mmf_flava.files.json_data import read_object
from mmf_flava.files.random_access import write_at

COPY = 1 << 28  # bytes; a multiple of a page, because network file systems write whole pages
CHUNK = 1 << 24  # bytes that are copied at a time


class TextSource(Protocol):
    """What the tasks need of a ``TextPreparation``."""

    @property
    def files(self) -> Sequence[Path]: ...
    @property
    def column(self) -> str | None: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def characters(self) -> int: ...


class TextTasks:
    """Runs the tasks of one process.

    A result has ``counts`` (rows: documents that were read; documents: those that are not empty; tokens), ``dropped``
    (reason -> count), ``messages`` (subject -> first message) and ``last``.
    """

    def __init__(self, source: TextSource, folder: TaskFolder, progress: RowProgress):
        self.source, self.folder, self.progress = source, folder, progress

    def run(self, number: int, is_done: IsDone) -> Result:
        """Tokenize the documents of a task, and return the result of the task.

        Raises:
            Abandoned: another process has finished the task.
            UserError: there are no documents, or a file cannot be read.
            RuntimeError: many records in a row fail with an unexpected error.
        """
        messages: dict[str, str] = {}
        with _warnings_in(messages):
            texts, dropped, is_last = self._read(number, messages)
        for subject, message in messages.items():
            self.progress.write(subject, message)
        counts = {"rows": len(texts), "documents": 0, "tokens": 0}
        with (
            atomic.replace_file(part_path(self.folder, number, "tokens")) as ids_path,
            atomic.replace_file(part_path(self.folder, number, "lengths")) as lengths_path,
            open(ids_path, "wb") as ids_file,
            open(lengths_path, "wb") as lengths_file,
        ):
            for count, ids, lengths in tokenize(texts, self.source.tokenizer):
                ids_file.write(ids.tobytes())
                lengths_file.write(lengths.tobytes())
                counts["documents"] += len(lengths)
                counts["tokens"] += len(ids)
                for _ in range(count):
                    self.progress.add_row()
                if is_done():
                    raise Abandoned
        return {"counts": counts, "dropped": dict(dropped), "messages": messages, "last": is_last}

    def _read(self, number: int, messages: dict[str, str]) -> tuple[list[str], Counter[str], bool]:
        """Return the documents of a task, the number of dropped ones by reason, and whether the corpus ends there."""
        first, place = number, None
        while first and (place := self._load_place(first - 1)) is None:
            first -= 1
        dropped: Counter[str] = Counter()
        reader = Documents(self.source.files, self.source.column, dropped, place, _keep_in(messages))
        units = iter(reader)
        for task in range(first, number + 1):
            dropped.clear()
            texts: list[str] = []
            characters, is_last = 0, True
            for documents in units:
                texts += documents
                characters += sum(map(len, documents))
                if characters >= self.source.characters:
                    is_last = False
                    break
            end = {"input": self.folder.input, "place": reader.place}
            atomic.write_json(part_path(self.folder, task, "place"), end)
        units.close()  # close the file
        return texts, dropped, is_last

    def _load_place(self, number: int) -> Place | None:
        """Return where a task ends; None if this is not known yet."""
        try:
            state = read_object(part_path(self.folder, number, "place"))
            file, place = state["place"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return (file, place) if state.get("input") == self.folder.input else None


class TokenCopy:
    """Copies the tokens of all tasks to one file. Each task of this copies a range of the file.

    Args:
        folder: the finished tasks.
        results: their results.
        file: path of the file.
        itemsize: bytes per token.
    """

    def __init__(self, folder: TaskFolder, results: Sequence[Result], file: Path, itemsize: int):
        self.folder, self.file = folder, file
        sizes = [itemsize * result["counts"]["tokens"] for result in results]
        self._ends = np.cumsum([0, *sizes])  # of the tasks' tokens in the file, in bytes
        self.size = int(self._ends[-1])
        self.tasks = TaskFolder(folder.folder / "copied", folder.input, max(1, -(-self.size // COPY)))
        if not file.is_file() or file.stat().st_size != self.size:  # results of a file that was deleted since
            for number in range(self.tasks.count or 0):
                self.tasks.forget(number)

    def run(self, number: int, is_done: IsDone) -> Result:
        """Copy a range. Several processes may do this at the same time, because they write the same bytes.

        Raises:
            Abandoned: another process has finished the task.
        """
        position, end = number * COPY, min((number + 1) * COPY, self.size)
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            os.ftruncate(descriptor, self.size)
            while position < end:
                data = self._read(position, min(CHUNK, end - position))
                write_at(descriptor, data, position)
                position += len(data)
                if is_done():
                    raise Abandoned
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return {"last": number + 1 == self.tasks.count}

    def _read(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes at a position of the file, from the tokens of one task."""
        task = int(np.searchsorted(self._ends, position, "right")) - 1
        path = part_path(self.folder, task, "tokens")
        with open(path, "rb") as file:
            file.seek(position - int(self._ends[task]))
            data = file.read(min(size, int(self._ends[task + 1]) - position))
        if not data:
            raise OSError(errno.EIO, "the file was truncated", str(path))
        return data


def part_path(folder: TaskFolder, number: int, suffix: str) -> Path:
    """Return the path of a file of a task."""
    return folder.folder / f"{number:05d}.{suffix}"


def _keep_in(messages: dict[str, str]) -> Callable[[str], None]:
    return lambda message: messages.update({message: message})


@contextmanager
def _warnings_in(messages: dict[str, str]) -> Iterator[None]:
    """Context manager: warnings about a text file are kept, once per file, instead of logged by each of its tasks."""

    def keep(record: logging.LogRecord) -> bool:
        assert isinstance(record.args, tuple)
        messages.setdefault(str(record.args[0]), record.getMessage())
        return False

    text_file.logger.addFilter(keep)
    try:
        yield
    finally:
        text_file.logger.removeFilter(keep)
