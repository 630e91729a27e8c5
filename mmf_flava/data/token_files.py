"""Memory-mapped token files: a corpus as one flat array of ids, 2 bytes per token for vocabularies up to 65,536.

A token folder, which stores one tokenized corpus, contains
    tokens.bin      the ids of all documents, each document terminated by [SEP], as raw little-endian ``dtype``
    documents.npy   (number of documents + 1,) uint64: document d is ``tokens[documents[d]:documents[d + 1]]``
    meta.json       dtype, counts and vocabulary hash; written last, so a folder without it is incomplete
"""

import json
import os
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mmf_flava.data.tokenizer import compute_vocabulary_hash, find_special_ids
from mmf_flava.errors import UserError
from mmf_flava.files.json_data import read_object

VERSION = 1
BATCH_SIZE = 1000  # documents tokenized at once; an interrupted write resumes after the last complete batch
PROGRESS, BOUNDARIES = ".progress.json", ".boundaries.bin"  # temporary files of an unfinished write


def write_tokens(folder: str | Path, texts: Iterable[str], tokenizer: Tokenizer, source: str = "") -> dict[str, Any]:
    """Tokenize texts, write them to a folder (tokens.bin, documents.npy, meta.json), and return the metadata.

    Tokenization uses all cores (threads of the tokenizers library). The files do not depend on the number of threads.

    Args:
        texts: one text per document; empty texts are skipped.
        source: identifier of ``texts``. If given, an interrupted write of the same source and vocabulary is resumed
            after its last complete batch; ``texts`` must also contain the texts that were already written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    dtype = np.dtype("<u2" if tokenizer.get_vocab_size() <= 2**16 else "<u4")
    separator = find_special_ids(tokenizer).sep
    initial = {
        "source": source,
        "vocabulary": compute_vocabulary_hash(tokenizer),
        "read": 0,
        "documents": 0,
        "tokens": 0,
    }
    state = _load_progress(folder, initial)
    remaining = islice(texts, state["read"], None)
    with open(folder / "tokens.bin", "ab") as tokens, open(folder / BOUNDARIES, "ab") as ends:
        tokens.truncate(state["tokens"] * dtype.itemsize)
        ends.truncate(state["documents"] * 8)
        while batch := list(islice(remaining, BATCH_SIZE)):
            encoded = [encoding.ids for encoding in tokenizer.encode_batch(batch, add_special_tokens=False)]
            documents = [[*ids, separator] for ids in encoded if ids]
            lengths = np.array([len(ids) for ids in documents], dtype="<u8")
            tokens.write(np.array(list(chain.from_iterable(documents)), dtype=dtype).tobytes())
            ends.write((state["tokens"] + np.cumsum(lengths, dtype="<u8")).astype("<u8").tobytes())
            state["read"] += len(batch)
            state["documents"] += len(documents)
            state["tokens"] += int(lengths.sum())
            if source:
                for file in (tokens, ends):
                    file.flush()
                    os.fsync(file.fileno())
                _write_json(folder / PROGRESS, state)
        tokens.flush()
        os.fsync(tokens.fileno())
    boundaries = np.fromfile(folder / BOUNDARIES, dtype="<u8")
    np.save(folder / "documents.npy", np.concatenate([np.zeros(1, "<u8"), boundaries]), allow_pickle=False)
    meta = {
        "version": VERSION,
        "dtype": dtype.str,
        "documents": state["documents"],
        "tokens": state["tokens"],
        "vocabulary_size": tokenizer.get_vocab_size(),
        "vocabulary_sha256": compute_vocabulary_hash(tokenizer),
        **({"source": source} if source else {}),
    }
    _write_json(folder / "meta.json", meta)
    remove_progress(folder)
    return meta


def remove_progress(folder: Path) -> None:
    """Delete the temporary files with which ``write_tokens`` resumes an interrupted write."""
    for name in (PROGRESS, BOUNDARIES):
        (folder / name).unlink(missing_ok=True)


def _load_progress(folder: Path, initial: dict[str, Any]) -> dict[str, Any]:
    """Return the progress of an interrupted write of the same source and vocabulary; otherwise ``initial``."""
    try:
        state = read_object(folder / PROGRESS)
    except (FileNotFoundError, ValueError):
        return initial
    matches = initial["source"] and all(state.get(key) == initial[key] for key in ("source", "vocabulary"))
    return state if matches else initial


def _write_json(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


class TokenFile:
    """Memory-mapped reader of a folder of tokenized text (tokens.bin, documents.npy, meta.json).

    Attributes:
        tokens: (N,) token ids of all documents.
        documents: (number of documents + 1,) boundaries of the documents in ``tokens``.
        meta: content of ``meta.json``.

    Raises:
        UserError: the folder is not a complete token folder, or ``tokens.bin`` does not have the expected size.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                f"{self.folder} has no complete tokenized text. Expected meta.json, tokens.bin and documents.npy. "
                "Tokenize the text with python -m mmf_flava.data.prepare text."
            ) from error
        self._dtype = np.dtype(self.meta["dtype"])
        path, expected = self.folder / "tokens.bin", self.meta["tokens"] * self._dtype.itemsize
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise UserError(
                f"{path}: expected {expected} bytes according to meta.json, got {size}. Tokenize the text again."
            )
        self._open()

    def _open(self) -> None:
        path = self.folder / "tokens.bin"
        empty = path.stat().st_size == 0  # an empty file cannot be memory-mapped
        self.tokens = np.zeros(0, self._dtype) if empty else np.memmap(path, self._dtype, "r").view(np.ndarray)
        try:
            self.documents = np.load(self.folder / "documents.npy", mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise UserError(f"{self.folder / 'documents.npy'} is corrupt ({error}). Tokenize the text again.") from None

    def __len__(self) -> int:
        return int(self.meta["tokens"])

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "meta": self.meta, "_dtype": self._dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
