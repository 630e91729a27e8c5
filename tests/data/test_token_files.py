import pickle

import pytest

from mmf_flava.data.token_files import TokenFile, write_tokens
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece, compute_vocabulary_hash
from mmf_flava.errors import UserError

TOKENIZER = build_wordpiece([*SPECIAL_TOKENS, "a", "b", "c"])


def test_documents_are_read_as_written(tmp_path):
    meta = write_tokens(tmp_path, ["a b", "", "C a a"], TOKENIZER)
    assert (meta["documents"], meta["tokens"], meta["dtype"]) == (2, 7, "<u2")
    file = TokenFile(tmp_path)
    for reader in (file, pickle.loads(pickle.dumps(file))):
        assert reader.tokens.tolist() == [5, 6, 3, 7, 5, 5, 3]
        assert reader.documents.tolist() == [0, 3, 7]
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
    assert len(TokenFile(tmp_path).tokens) == 0
