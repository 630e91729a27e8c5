"""Memory-mapped token files: a corpus as one flat row of ids, 2 bytes a token for vocabularies up to 65,536.

A token folder holds
    tokens.bin      the ids of all documents, each document closed by [SEP], as raw little-endian ``dtype``
    documents.npy   (D + 1,) uint64: document d is ``tokens[documents[d]:documents[d + 1]]``
    meta.json       dtype, counts and the vocabulary's hash; written last, so a folder without it is not finished
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mmf_flava.data.tokenizer import special_ids, vocabulary_hash
from mmf_flava.errors import UserError

VERSION = 1


def write_tokens(folder: str | Path, texts: Iterable[str], tokenizer: Tokenizer) -> dict[str, Any]:
    """Tokenizes ``texts`` (one a document; empty ones are left out) into ``folder`` and returns its meta data."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").unlink(missing_ok=True)
    dtype = np.dtype("<u2" if tokenizer.get_vocab_size() <= 2**16 else "<u4")
    separator = special_ids(tokenizer).sep
    boundaries = [0]
    with open(folder / "tokens.bin", "wb") as file:
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if ids:
                file.write(np.array([*ids, separator], dtype=dtype).tobytes())
                boundaries.append(boundaries[-1] + len(ids) + 1)
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / "documents.npy", np.array(boundaries, dtype="<u8"), allow_pickle=False)
    meta = {
        "version": VERSION,
        "dtype": dtype.str,
        "documents": len(boundaries) - 1,
        "tokens": boundaries[-1],
        "vocabulary_size": tokenizer.get_vocab_size(),
        "vocabulary_sha256": vocabulary_hash(tokenizer),
    }
    temporary = folder / f".meta.json.{os.getpid()}.partial"
    temporary.write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "meta.json")
    return meta


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
