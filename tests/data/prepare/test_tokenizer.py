import json
import tarfile

import pytest

from mmf_flava.data.prepare import tokenizer as module
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.tokenizer import Texts, prepare_tokenizer, train_tokenizer
from mmf_flava.data.tokenizer import load_tokenizer
from mmf_flava.errors import UserError

CAPTIONS = ["a red fox in the snow", "two foxes near a fence", "snow on a red fence"]


def write_captions(folder):
    """The same three captions in every kind of file."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("\n\n".join(CAPTIONS))
    (folder / "a.jsonl").write_text("".join(json.dumps({"caption": text}) + "\n" for text in CAPTIONS))
    (folder / "a.csv").write_text("title\n" + "\n".join(CAPTIONS) + "\n")
    pyarrow.parquet.write_table(pyarrow.table({"text": CAPTIONS}), folder / "a.parquet")
    with tarfile.open(folder / "a.tar", "w") as shard:
        for number, text in enumerate(CAPTIONS):
            (folder / f"{number}.cap").write_text(text)
            shard.add(folder / f"{number}.cap", f"{number}.txt")
            (folder / f"{number}.cap").unlink()


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.parquet", "a.tar"])
def test_texts_of_every_kind_of_file(tmp_path, name):
    write_captions(tmp_path / "data")
    texts = Texts([tmp_path / "data" / name], progress=False)
    assert [text.strip() for text in texts] == [text.strip() for text in texts] == CAPTIONS


def test_command_trains_a_tokenizer_on_several_sources(tmp_path, capsys):
    write_captions(tmp_path / "data")
    (tmp_path / "b.jsonl").write_text('{"words": "wolves"}\n{"words": 7}\n')
    src, out = [str(tmp_path / "data" / "a.csv")], tmp_path / "tokenizer"
    assert main(["tokenizer", "--src", *src, "--out", str(out), "--vocabulary", "100", "--quiet"]) == 0
    assert f"{out}: " in capsys.readouterr().out
    tokenizer = load_tokenizer(out)
    assert tokenizer.get_vocab_size() <= 100
    assert tokenizer.encode("A red FOX", add_special_tokens=False).tokens == ["a", "red", "fox"]
    words = prepare_tokenizer([tmp_path / "b.jsonl"], tmp_path / "other", 100, column="words", progress=False)
    assert sum(words["dropped"].values()) == 1
    assert main(["tokenizer", "--src", *src, "--out", str(out), "--vocabulary", "100", "--quiet"]) == 2
    assert "tokenizer: the folder is not empty. Choose another --out" in capsys.readouterr().err


def test_rare_letters_are_left_out_if_the_vocabulary_is_small(monkeypatch):
    monkeypatch.setattr(module, "MAX_LETTERS", 3)
    vocabulary = train_tokenizer(["aab abb zaba ba"], 100).get_vocab()
    assert {"a", "b", "z", "##a", "##b", "##z"} <= vocabulary.keys()
    monkeypatch.setattr(module, "MAX_LETTERS", 2)
    small = train_tokenizer(["aab abb zaba ba"], 100)
    assert small.get_vocab().keys() & {"z", "##z"} == set()
    assert small.encode("zaba ba", add_special_tokens=False).tokens[0] == "[UNK]"


def test_no_text_is_an_error(tmp_path):
    with pytest.raises(UserError, match="the texts are empty"):
        train_tokenizer([" ", "\n"], 100)
