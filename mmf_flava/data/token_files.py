"""Token files: a corpus as one flat array of ids, 2 bytes per token for vocabularies up to 65,536.

A token folder, which stores one tokenized corpus, contains
    tokens.bin      the ids of all documents, each document terminated by [SEP], as raw little-endian ``dtype``
    documents.npy   (number of documents + 1,) uint64: document d is ``tokens[documents[d]:documents[d + 1]]``
    meta.json       dtype, counts and vocabulary hash; written last, so a folder without it is incomplete
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.tokenizer import compute_settings_hash, compute_vocabulary_hash, find_special_ids
from mmf_flava.errors import UserError
from mmf_flava.files import atomic
from mmf_flava.files.json_data import read_object
from mmf_flava.files.npy import write_npy
from mmf_flava.files.random_access import RandomAccessFile
from mmf_flava.files.regular_file import open_regular_file

VERSION = 1
DTYPES = ("<u2", "<u4")
NPY_MAGIC = b"\x93NUMPY"
MAX_META, MAX_COUNT = 2**20, 2**48  # bytes; tokens or documents
CHUNK = 2**20  # document boundaries that are checked at a time
REMEDY = "Tokenize the text again."
BATCH_SIZE, BATCH_CHARACTERS = 1000, 1 << 21  # documents and characters tokenized at once


def write_tokens(folder: str | Path, texts: Iterable[str], tokenizer: Tokenizer) -> dict[str, Any]:
    """Tokenize texts, write them to a folder (tokens.bin, documents.npy, meta.json), and return the metadata.

    Args:
        texts: one text per document; empty texts are skipped.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    lengths = [np.zeros(0, "<u8")]
    with open(folder / "tokens.bin", "wb") as file:
        for _, ids, batch_lengths in tokenize(texts, tokenizer):
            file.write(ids.tobytes())
            lengths.append(batch_lengths)
        file.flush()
        os.fsync(file.fileno())
    return finish_tokens(folder, lengths, tokenizer)


def finish_tokens(
    folder: Path,
    lengths: Sequence[np.ndarray],
    tokenizer: Tokenizer,
    source: str = "",
    dropped: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write documents.npy and meta.json beside a complete tokens.bin, and return the metadata.

    Args:
        lengths: number of tokens of each document, in one or more arrays.
        source: identifier of the texts.
        dropped: number of dropped documents by reason.
    """
    boundaries = np.concatenate([np.zeros(1, "<u8"), *lengths])
    np.cumsum(boundaries, out=boundaries)
    write_npy(folder / "documents.npy", boundaries)
    meta = {
        "version": VERSION,
        "dtype": token_dtype(tokenizer).str,
        "documents": len(boundaries) - 1,
        "tokens": int(boundaries[-1]),
        "vocabulary_size": tokenizer.get_vocab_size(),
        "vocabulary_sha256": compute_vocabulary_hash(tokenizer),
        "tokenizer_sha256": compute_settings_hash(tokenizer),
        **({"source": source} if source else {}),
        **({"dropped": dict(dropped)} if dropped else {}),
    }
    atomic.write_json(folder / "meta.json", meta)
    return meta


def token_dtype(tokenizer: Tokenizer) -> np.dtype:
    """Return the type of the ids in tokens.bin."""
    return np.dtype(DTYPES[tokenizer.get_vocab_size() > 2**16])


def tokenize(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (number of texts, ids of their tokens, number of tokens of each document that is not empty) of batches.

    Tokenization uses all cores (threads of the tokenizers library), unless TOKENIZERS_PARALLELISM is false. The ids do
    not depend on the number of threads and on the batches.
    """
    separator, dtype = find_special_ids(tokenizer).sep, token_dtype(tokenizer)
    for batch in _batches(texts):
        encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
        documents = [[*ids, separator] for ids in encoded if ids]
        lengths = np.array([len(ids) for ids in documents], dtype="<u8")
        yield len(batch), np.array(list(chain.from_iterable(documents)), dtype=dtype), lengths


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
