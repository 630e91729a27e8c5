"""Token files: a corpus as one flat array of ids, 2 bytes per token for vocabularies up to 65,536.

A token folder, which stores one tokenized corpus, contains
    tokens.bin      the ids of all documents, each document terminated by [SEP], as raw little-endian ``dtype``
    documents.npy   (number of documents + 1,) uint64: document d is ``tokens[documents[d]:documents[d + 1]]``
    meta.json       dtype, counts and vocabulary hash; written last, so a folder without it is incomplete
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.tokenizer import compute_vocabulary_hash, find_special_ids
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object
from mmf_flava.files.random_access import RandomAccessFile
from mmf_flava.files.regular_file import open_regular_file

VERSION = 1
DTYPES = ("<u2", "<u4")
NPY_MAGIC = b"\x93NUMPY"
MAX_META, MAX_COUNT = 2**20, 2**48  # bytes; tokens or documents
CHUNK = 2**20  # document boundaries that are checked at a time
REMEDY = "Tokenize the text again."
# documents and characters tokenized at once; an interrupted write resumes after the last complete batch
BATCH_SIZE, BATCH_CHARACTERS = 1000, 1 << 21
PROGRESS, BOUNDARIES = ".progress.json", ".boundaries.bin"  # temporary files of an unfinished write


def write_tokens(
    folder: str | Path,
    texts: Iterable[str],
    tokenizer: Tokenizer,
    source: str = "",
    dropped: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """Tokenize texts, write them to a folder (tokens.bin, documents.npy, meta.json), and return the metadata.

    Tokenization uses all cores (threads of the tokenizers library). The files do not depend on the number of threads.

    Args:
        texts: one text per document; empty texts are skipped.
        source: identifier of ``texts``. If given, an interrupted write of the same source and vocabulary is resumed
            after its last complete batch; ``texts`` must also contain the texts that were already written.
        dropped: number of dropped documents by reason after ``texts`` is read; the metadata contain it if it is not
            empty.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    dtype = np.dtype(DTYPES[tokenizer.get_vocab_size() > 2**16])
    initial = {
        "source": source,
        "vocabulary": compute_vocabulary_hash(tokenizer),
        "read": 0,
        "documents": 0,
        "tokens": 0,
    }
    state = _load_progress(folder, initial)
    _append_tokens(folder, islice(texts, state["read"], None), tokenizer, dtype, state)
    boundaries = np.fromfile(folder / BOUNDARIES, dtype="<u8")
    with atomic.replace_file(folder / "documents.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, np.concatenate([np.zeros(1, "<u8"), boundaries]), allow_pickle=False)
    meta = {
        "version": VERSION,
        "dtype": dtype.str,
        "documents": state["documents"],
        "tokens": state["tokens"],
        "vocabulary_size": tokenizer.get_vocab_size(),
        "vocabulary_sha256": compute_vocabulary_hash(tokenizer),
        **({"source": source} if source else {}),
        **({"dropped": dict(dropped)} if dropped else {}),
    }
    atomic.write_json(folder / "meta.json", meta)
    remove_progress(folder)
    return meta


def _append_tokens(
    folder: Path, texts: Iterable[str], tokenizer: Tokenizer, dtype: np.dtype, state: dict[str, Any]
) -> None:
    """Append the tokens of texts to the files, from the place in ``state`` on, which is updated after each batch.

    If ``state`` has a source, the files and ``state`` are on the disk after each batch.
    """
    separator = find_special_ids(tokenizer).sep
    with open(folder / "tokens.bin", "ab") as tokens, open(folder / BOUNDARIES, "ab") as ends:
        tokens.truncate(state["tokens"] * dtype.itemsize)
        ends.truncate(state["documents"] * 8)
        for batch in _batches(texts):
            encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
            documents = [[*ids, separator] for ids in encoded if ids]
            lengths = np.array([len(ids) for ids in documents], dtype="<u8")
            tokens.write(np.array(list(chain.from_iterable(documents)), dtype=dtype).tobytes())
            ends.write((state["tokens"] + np.cumsum(lengths, dtype="<u8")).astype("<u8").tobytes())
            state["read"] += len(batch)
            state["documents"] += len(documents)
            state["tokens"] += int(lengths.sum())
            if state["source"]:
                for file in (tokens, ends):
                    file.flush()
                    os.fsync(file.fileno())
                atomic.write_json(folder / PROGRESS, state)
        tokens.flush()
        os.fsync(tokens.fileno())


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield the texts in lists of bounded size, because the ids of a text need much more memory than the text."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_SIZE or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def remove_progress(folder: Path) -> None:
    """Delete the temporary files with which ``write_tokens`` resumes an interrupted write."""
    for name in (PROGRESS, BOUNDARIES):
        (folder / name).unlink(missing_ok=True)


def _load_progress(folder: Path, initial: dict[str, Any]) -> dict[str, Any]:
    """Return the progress of an interrupted write of the same source and vocabulary; otherwise ``initial``."""
    try:
        state = read_object(folder / PROGRESS)
    except (OSError, ValueError):
        return initial
    matches = initial["source"] and all(state.get(key) == initial[key] for key in ("source", "vocabulary"))
    counts = [state.get(key) for key in ("read", "documents", "tokens")]
    valid = all(type(count) is int and 0 <= count < MAX_COUNT for count in counts)
    return state if matches and valid else initial


class TokenFile:
    """Reader of a folder of tokenized text (tokens.bin, documents.npy, meta.json). It can be forked and pickled.

    Opening compares the sizes of the files with ``meta.json`` and reads ``documents.npy`` once. The token ids are
    checked when they are read. They are not memory-mapped; see ``RandomAccessFile``.

    Attributes:
        meta: content of ``meta.json``.

    Raises:
        UserError: the folder is not a complete token folder, or its files are damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._tokens = RandomAccessFile(self.folder / "tokens.bin")
        self.meta = self._read_meta()
        self._dtype = np.dtype(self.meta["dtype"])
        path, expected = self._tokens.path, self.meta["tokens"] * self._dtype.itemsize
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise UserError(f"{path}: expected {expected} bytes according to meta.json, got {size}. {REMEDY}")
        try:
            self._check_documents()
        except (OSError, ValueError) as error:
            raise UserError(f"{self.folder / 'documents.npy'} is damaged ({error}). {REMEDY}") from None

    def _read_meta(self) -> dict[str, Any]:
        path = self.folder / "meta.json"
        try:
            meta = read_object(path, MAX_META)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(
                f"{self.folder} has no complete tokenized text. Expected meta.json, tokens.bin and documents.npy. "
                "Tokenize the text with python -m mmf_flava.data.prepare text."
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}). {REMEDY}") from None
        if meta.get("version") != VERSION or meta.get("dtype") not in DTYPES:
            raise UserError(
                f"{path}: expected version {VERSION} and dtype {' or '.join(DTYPES)}, got version "
                f"{meta.get('version')!r:.20} and dtype {meta.get('dtype')!r:.20}. {REMEDY}"
            )
        for key in ("tokens", "documents", "vocabulary_size"):
            if type(meta.get(key)) is not int or not 0 <= meta[key] < MAX_COUNT:
                raise UserError(f"{path}: {key} must be an integer of at least 0, got {meta.get(key)!r:.40}. {REMEDY}")
        if not isinstance(meta.get("vocabulary_sha256"), str):
            raise UserError(f"{path}: vocabulary_sha256 is missing. {REMEDY}")
        return meta

    def _check_documents(self) -> None:
        """Raise ValueError unless the boundaries ascend from 0 to the number of tokens."""
        count, path = self.meta["documents"] + 1, self.folder / "documents.npy"
        self._documents_start = path.stat().st_size - 8 * count
        with open_regular_file(path) as file:
            header = file.read(min(max(self._documents_start, 0), MAX_META))
        expected = b"{'descr': '<u8', 'fortran_order': False, 'shape': (%d,), }" % count
        if len(header) != self._documents_start or not header.startswith(NPY_MAGIC) or expected not in header:
            raise ValueError(f"expected an array of {count} numbers of dtype <u8 according to meta.json")
        last = np.zeros(1, "<u8")
        for start in range(0, count, CHUNK):
            boundaries = self.read_documents(start, min(CHUNK, count - start))
            if start == 0 and boundaries[0] != 0:
                raise ValueError("the first document does not begin at token 0")
            ascending = np.concatenate([last, boundaries] if start else [boundaries])
            if not (ascending[1:] > ascending[:-1]).all():  # a difference of unsigned numbers would overflow
                raise ValueError("its numbers do not ascend")
            last = boundaries[-1:]
        if int(last[0]) != self.meta["tokens"]:
            raise ValueError(f"the last document ends at token {last[0]} of {self.meta['tokens']}")

    def __len__(self) -> int:
        return int(self.meta["tokens"])

    def read(self, start: int, count: int) -> np.ndarray:
        """Return the ids of ``count`` tokens from ``start`` on; fewer at the end of the file.

        Raises:
            BadRecord: the file cannot be read, or has changed; or an id is not in the vocabulary.
        """
        count = max(0, min(count, len(self) - start))
        path, size = self._tokens.path, self._dtype.itemsize
        try:
            data = self._tokens.read(start * size, count * size)
        except OSError as error:
            raise BadRecord(Reason.VANISHED, f"{path} cannot be read: {error}") from error
        if len(data) != count * size:
            raise BadRecord(Reason.CHANGED, f"{path} was truncated. {REMEDY}")
        tokens = np.frombuffer(data, self._dtype)
        if count and (largest := tokens.max()) >= self.meta["vocabulary_size"]:
            raise BadRecord(
                Reason.CHANGED,
                f"{path}: tokens {start} to {start + count - 1} contain the id {largest}, but the vocabulary has "
                f"{self.meta['vocabulary_size']} tokens. {REMEDY}",
            )
        return tokens

    def read_documents(self, start: int, count: int) -> np.ndarray:
        """Return ``count`` boundaries of documents: document d consists of the tokens from boundary d to d + 1.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file was truncated.
        """
        with open(self.folder / "documents.npy", "rb") as file:
            boundaries = np.fromfile(file, "<u8", count, offset=self._documents_start + 8 * start)
        if len(boundaries) != count:
            raise ValueError("the file was truncated")
        return boundaries
