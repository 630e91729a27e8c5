"""Memory-mapped token files: a corpus as one flat row of ids, 2 bytes a token for vocabularies up to 65,536.

A token folder holds
    tokens.bin      the ids of all documents, each document closed by [SEP], as raw little-endian ``dtype``
    documents.npy   (D + 1,) uint64: document d is ``tokens[documents[d]:documents[d + 1]]``
    meta.json       dtype, counts and the vocabulary's hash; written last, so a folder without it is not finished
"""

import json
import os
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mmf_flava.data.tokenizer import special_ids, vocabulary_hash
from mmf_flava.errors import UserError

VERSION = 1
BATCH = 1000  # documents that are tokenized at once, and after which an interrupted write goes on
PROGRESS, BOUNDARIES = ".progress.json", ".boundaries.bin"  # while it is being written


def write_tokens(folder: str | Path, texts: Iterable[str], tokenizer: Tokenizer, source: str = "") -> dict[str, Any]:
    """Tokenizes ``texts`` (one a document; empty ones are left out) into ``folder`` and returns its meta data.

    All cores work (threads of the tokenizers library); the files are the same for any number of them.

    Args:
        source: what identifies ``texts``. Where it is given, a write of the same source and vocabulary that was cut
            off goes on after its last whole portion of BATCH documents, for which ``texts`` must begin anew.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    dtype = np.dtype("<u2" if tokenizer.get_vocab_size() <= 2**16 else "<u4")
    separator = special_ids(tokenizer).sep
    begun = {"source": source, "vocabulary": vocabulary_hash(tokenizer), "read": 0, "documents": 0, "tokens": 0}
    state = _progress(folder, begun)
    rest = islice(texts, state["read"], None)
    with open(folder / "tokens.bin", "ab") as tokens, open(folder / BOUNDARIES, "ab") as ends:
        tokens.truncate(state["tokens"] * dtype.itemsize)
        ends.truncate(state["documents"] * 8)
        while batch := list(islice(rest, BATCH)):
            encoded = [found.ids for found in tokenizer.encode_batch(batch, add_special_tokens=False)]
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
        "vocabulary_sha256": vocabulary_hash(tokenizer),
        **({"source": source} if source else {}),
    }
    _write_json(folder / "meta.json", meta)
    remove_progress(folder)
    return meta


def remove_progress(folder: Path) -> None:
    """Takes away what only an unfinished write needs; a write that was killed at its very end has left it behind."""
    for name in (PROGRESS, BOUNDARIES):
        (folder / name).unlink(missing_ok=True)


def _progress(folder: Path, begun: dict[str, Any]) -> dict[str, Any]:
    """How far a write of the same source got, else ``begun``."""
    try:
        state = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return begun
    same = begun["source"] and all(state.get(key) == begun[key] for key in ("source", "vocabulary"))
    return state if same else begun


def _write_json(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


class TokenFile:
    """Reads a token folder: ``tokens`` (N,) memory-mapped ids, ``documents`` (D + 1,) boundaries, ``meta``.

    Raises:
        UserError: the folder is not a token folder, is unfinished, or ``tokens.bin`` has lost or gained bytes.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        try:
            self.meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                f"There are no tokens in {self.folder}: looked for meta.json, tokens.bin and documents.npy."
            ) from error
        self._dtype = np.dtype(self.meta["dtype"])
        path, expected = self.folder / "tokens.bin", self.meta["tokens"] * self._dtype.itemsize
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise UserError(f"{path} has {size} bytes, meta.json says {expected}: build these tokens again.")
        self._open()

    def _open(self) -> None:
        path = self.folder / "tokens.bin"
        empty = path.stat().st_size == 0  # a file of no bytes cannot be mapped
        self.tokens = np.zeros(0, self._dtype) if empty else np.memmap(path, self._dtype, "r").view(np.ndarray)
        try:
            self.documents = np.load(self.folder / "documents.npy", mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise UserError(
                f"{self.folder / 'documents.npy'} cannot be read ({error}): build these tokens again."
            ) from None

    def __len__(self) -> int:
        return int(self.meta["tokens"])

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "meta": self.meta, "_dtype": self._dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
