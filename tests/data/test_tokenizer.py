import pytest

from mmf_flava.data.tokenizer import continuation_table, load_tokenizer, special_ids, vocabulary_hash, wordpiece
from mmf_flava.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "##ing", "a", ","]


def test_vocab_txt_and_tokenizer_json_are_the_same(tmp_path):
    (tmp_path / "txt").mkdir()
    (tmp_path / "json").mkdir()
    (tmp_path / "txt" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    wordpiece(WORDS).save(str(tmp_path / "json" / "tokenizer.json"))
    one, other = load_tokenizer(tmp_path / "txt"), load_tokenizer(tmp_path / "json")
    for tokenizer in (one, other):
        encoding = tokenizer.encode("Playing,  A [MASK] xyz", add_special_tokens=False)
        assert encoding.tokens == ["play", "##ing", ",", "a", "[MASK]", "[UNK]"]
    assert vocabulary_hash(one) == vocabulary_hash(other)
    assert vocabulary_hash(one) != vocabulary_hash(wordpiece([*WORDS, "b"]))


def test_ids():
    tokenizer = wordpiece(WORDS)
    special = special_ids(tokenizer)
    assert (special.pad, special.unk, special.cls, special.sep, special.mask) == (0, 1, 2, 3, 4)
    assert continuation_table(tokenizer).nonzero()[0].tolist() == [6]
    with pytest.raises(UserError, match="CLS"):
        special_ids(wordpiece(["[UNK]", "a"]))


def test_missing_tokenizers_are_named(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json and vocab\.txt"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_tokenizer(tmp_path / "nowhere")


def test_a_hub_that_cannot_be_reached(monkeypatch):
    from mmf_flava.data import tokenizer

    class Unreachable:
        @staticmethod
        def from_pretrained(name):
            raise Exception("no network")

    monkeypatch.setattr(tokenizer, "Tokenizer", Unreachable)
    with pytest.raises(UserError, match="bert-base-uncased"):
        load_tokenizer("bert-base-uncased")
