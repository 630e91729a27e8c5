import pytest

from mmf_flava.data.tokenizer import (
    build_continuation_table,
    build_wordpiece,
    compute_vocabulary_hash,
    find_special_ids,
    load_tokenizer,
)
from mmf_flava.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "a", ","]


def test_vocab_txt_and_tokenizer_json_give_equal_tokenizers(tmp_path):
    (tmp_path / "txt").mkdir()
    (tmp_path / "json").mkdir()
    (tmp_path / "txt" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    build_wordpiece(WORDS).save(str(tmp_path / "json" / "tokenizer.json"))
    one, other = load_tokenizer(tmp_path / "txt"), load_tokenizer(tmp_path / "json")
    for tokenizer in (one, other):
        encoding = tokenizer.encode("Playing,  A [MASK] xyz", add_special_tokens=False)
        assert encoding.tokens == ["play", "##ing", ",", "a", "[MASK]", "[UNK]"]
    assert compute_vocabulary_hash(one) == compute_vocabulary_hash(other)
    assert compute_vocabulary_hash(one) != compute_vocabulary_hash(build_wordpiece([*WORDS, "b"]))


def test_special_ids_and_continuation_table():
    tokenizer = build_wordpiece(WORDS)
    special = find_special_ids(tokenizer)
    assert (special.pad, special.unk, special.cls, special.sep, special.mask) == (0, 1, 2, 3, 4)
    assert build_continuation_table(tokenizer).nonzero()[0].tolist() == [6]
    with pytest.raises(UserError, match="CLS"):
        find_special_ids(build_wordpiece(["[UNK]", "a"]))


def test_missing_tokenizer_raises_an_error(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json or vocab\.txt"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_tokenizer(tmp_path / "nowhere")


def test_unreachable_hub_raises_an_error(monkeypatch):
    from mmf_flava.data import tokenizer

    class Unreachable:
        @staticmethod
        def from_pretrained(name):
            raise Exception("no network")

    monkeypatch.setattr(tokenizer, "Tokenizer", Unreachable)
    with pytest.raises(UserError, match="bert-base-uncased"):
        load_tokenizer("bert-base-uncased")
