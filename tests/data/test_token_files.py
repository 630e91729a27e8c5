import json
import os
import pickle

import numpy as np
import pytest

from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.token_files import TokenFile, write_tokens
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece, compute_vocabulary_hash
from mmf_flava.errors import UserError

TOKENIZER = build_wordpiece([*SPECIAL_TOKENS, "a", "b", "c"])


def test_documents_are_read_as_written(tmp_path):
    meta = write_tokens(tmp_path, ["a b", "", "C a a"], TOKENIZER)
    assert (meta["documents"], meta["tokens"], meta["dtype"]) == (2, 7, "<u2")
    file = TokenFile(tmp_path)
    for reader in (file, pickle.loads(pickle.dumps(file))):
        assert reader.read(0, 100).tolist() == [5, 6, 3, 7, 5, 5, 3]
        assert reader.read_documents(0, 3).tolist() == [0, 3, 7]
        assert len(reader) == 7
    assert file.meta["vocabulary_sha256"] == compute_vocabulary_hash(TOKENIZER)


def test_incomplete_and_corrupt_folders_raise_an_error(tmp_path):
    with pytest.raises(UserError, match=r"meta\.json"):
        TokenFile(tmp_path)
    write_tokens(tmp_path, ["a b"], TOKENIZER)
    (tmp_path / "tokens.bin").write_bytes(b"\0\0")
    with pytest.raises(UserError, match=r"expected 6 bytes .*, got 2"):
        TokenFile(tmp_path)
    write_tokens(tmp_path, [""], TOKENIZER)
    assert len(TokenFile(tmp_path)) == len(TokenFile(tmp_path).read(0, 10)) == 0


def set_meta(folder, **values):
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def set_documents(folder, *values, dtype="<u8"):
    np.save(folder / "documents.npy", np.array(values, dtype))


DAMAGE = {
    "empty meta.json": (lambda folder: (folder / "meta.json").write_text(""), r"meta\.json is damaged \(Expecting"),
    "cut meta.json": (lambda folder: (folder / "meta.json").write_text('{"dtype"'), r"meta\.json is damaged"),
    "list": (lambda folder: (folder / "meta.json").write_text("[]"), r"meta\.json is damaged \(expected a JSON object"),
    "pointers": (lambda folder: set_meta(folder, dtype="|O"), r"expected .* dtype <u2 or <u4, got .* '\|O'"),
    "floats": (lambda folder: set_meta(folder, dtype="<f2"), r"got version 1 and dtype '<f2'"),
    "dtype is a list": (lambda folder: set_meta(folder, dtype=["<u2"]), r"expected .* dtype"),
    "negative": (lambda folder: set_meta(folder, tokens=-7), r"tokens must be an integer of at least 0, got -7"),
    "huge": (lambda folder: set_meta(folder, documents=2**63), r"documents must be an integer"),
    "number of tokens": (lambda folder: set_meta(folder, tokens=8), r"expected 16 bytes .*, got 14"),
    "width": (lambda folder: set_meta(folder, dtype="<u4"), r"expected 28 bytes .*, got 14"),
    "no documents": (lambda folder: (folder / "documents.npy").unlink(), r"documents\.npy is damaged .*No such file"),
    "empty documents": (lambda folder: (folder / "documents.npy").write_bytes(b""), r"expected an array of 3 numbers"),
    "descending": (lambda folder: set_documents(folder, 0, 8, 7), r"its numbers do not ascend"),
    "largest number": (lambda folder: set_documents(folder, 0, 2**64 - 1, 7), r"its numbers do not ascend"),
    "beyond": (lambda folder: set_documents(folder, 0, 3, 8), r"the last document ends at token 8 of 7"),
    "first": (lambda folder: set_documents(folder, 1, 3, 7), r"does not begin at token 0"),
    "documents of pointers": (lambda folder: set_documents(folder, 0, 3, 7, dtype="O"), r"dtype <u8 according"),
    "big endian": (lambda folder: set_documents(folder, 0, 3, 7, dtype=">u8"), r"dtype <u8 according"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_folders_are_refused(tmp_path, damage, message):
    write_tokens(tmp_path, ["a b", "C a a"], TOKENIZER)
    damage(tmp_path)
    with pytest.raises(UserError, match=rf"{message}.*Tokenize the text again\.$"):
        TokenFile(tmp_path)


def test_ids_outside_the_vocabulary_are_bad_records(tmp_path):
    write_tokens(tmp_path, ["a b", "C a a"], TOKENIZER)
    file, data = TokenFile(tmp_path), bytearray((tmp_path / "tokens.bin").read_bytes())
    data[6:8] = (8).to_bytes(2, "little")  # token 3
    (tmp_path / "tokens.bin").write_bytes(data)
    assert file.read(0, 3).tolist() == [5, 6, 3] and file.read(4, 3).tolist() == [5, 5, 3]
    with pytest.raises(BadRecord, match="tokens 2 to 5 contain the id 8, but the vocabulary has 8") as caught:
        file.read(2, 4)
    assert caught.value.reason is Reason.CHANGED


def test_a_truncated_file_is_a_bad_record(tmp_path):
    write_tokens(tmp_path, ["a b", "C a a"], TOKENIZER)
    file = TokenFile(tmp_path)
    with open(tmp_path / "tokens.bin", "r+b") as opened:
        opened.truncate(8)
    assert file.read(0, 4).tolist() == [5, 6, 3, 7]  # a memory-mapped file would end the process
    with pytest.raises(BadRecord, match="was truncated"):
        file.read(3, 4)


@pytest.mark.parametrize("name", ["meta.json", "documents.npy", "tokens.bin"])
def test_pipes_are_refused(tmp_path, name):
    write_tokens(tmp_path, ["a b"], TOKENIZER)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=name):
        TokenFile(tmp_path)
