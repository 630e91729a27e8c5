import gzip
import json
import random

import pytest

from mmf_flava.data import token_files
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.text import documents, text_files
from mmf_flava.data.token_files import TokenFile, write_tokens
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, wordpiece
from mmf_flava.errors import UserError

from .killing import contents, survives_kills, twice_at_once

TOKENIZER = wordpiece([*SPECIAL_TOKENS, "a", "b", "c"])
FILES = ("tokens.bin", "documents.npy", "meta.json")


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "1.txt").write_text("a b\nc\n\n\n c c\n")
    with gzip.open(folder / "2.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps({"text": text}) + "\n" for text in ("b", None, "", "a \ud800")))
    (tmp_path / "tokenizer").mkdir()
    TOKENIZER.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    return tmp_path


def arguments(corpus):
    return ["text", "--src", str(corpus / "text"), "--tokenizer", str(corpus / "tokenizer"), "--quiet"]


def command(corpus, *more):
    return main([*arguments(corpus), "--out", str(corpus / "out"), *more])


def test_the_command(corpus, capsys):
    assert command(corpus) == 0
    file = TokenFile(corpus / "out")
    assert file.tokens.tolist() == [5, 6, 7, 3, 7, 7, 3, 6, 3, 5, 1, 3]
    assert file.documents.tolist() == [0, 4, 7, 9, 12]
    for left in (token_files.PROGRESS, token_files.BOUNDARIES):  # as by a kill after meta.json was written
        assert not (corpus / "out" / left).exists()
        (corpus / "out" / left).touch()
    assert command(corpus) == 0  # a second call finds it done
    assert sorted(path.name for path in (corpus / "out").iterdir()) == sorted(FILES)
    assert "12 tokens of 4 documents" in capsys.readouterr().out
    (corpus / "text/3.txt").write_text("a")
    assert command(corpus) == 2
    assert "other text" in capsys.readouterr().err


def test_parquet(corpus):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(arrow.Table.from_pylist([{"story": "a"}, {"story": "b"}]), corpus / "a.parquet")
    assert list(documents([corpus / "a.parquet"], "story")) == ["a", "b"]
    with pytest.raises(UserError, match="--column"):
        list(documents([corpus / "a.parquet"]))


def test_no_text(tmp_path):
    with pytest.raises(UserError, match="no text"):
        text_files(tmp_path)


@pytest.mark.parametrize("cut", range(12))
def test_a_cut_off_write_goes_on_to_the_same_files(tmp_path, monkeypatch, cut):
    texts = ["a b", "", "c", "a a a", "b", "", "", "c b a", "a", "b b"]
    monkeypatch.setattr(token_files, "BATCH", 3)
    write_tokens(tmp_path / "whole", texts, TOKENIZER, "source")
    read = []

    def cut_off():
        for number, text in enumerate([*texts, None]):
            if number == cut or text is None:
                with open(
                    tmp_path / "out" / "tokens.bin", "ab"
                ) as file:  # what a kill may leave after its last portion
                    file.write(b"half")
                raise KeyboardInterrupt
            yield text

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "out", cut_off(), TOKENIZER, "source")
    encode = TOKENIZER.encode_batch

    class Counting:
        def __getattr__(self, name):
            return getattr(TOKENIZER, name)

        def encode_batch(self, batch, **kwargs):
            read.extend(batch)
            return encode(batch, **kwargs)

    write_tokens(tmp_path / "out", texts, Counting(), "source")
    assert read == texts[min(cut, 10) // 3 * 3 :]
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_build_goes_on_to_the_same_bytes(corpus, seed):
    (corpus / "text/3.txt").write_text("\n\n".join(random.Random(seed).choices(["a", "b b", "c a", "x"], k=40)))
    survives_kills(
        arguments(corpus), corpus / "out", seed, "from mmf_flava.data import token_files; token_files.BATCH = 3"
    )


def test_two_builds_at_once_are_one(corpus):
    twice_at_once(arguments(corpus), corpus / "out")
    assert main([*arguments(corpus), "--out", str(corpus / "alone")]) == 0
    assert contents(corpus / "out") == contents(corpus / "alone")


def test_another_source_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "BATCH", 1)

    def broken():
        yield "a"
        yield "b"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path, broken(), TOKENIZER, "one")
    write_tokens(tmp_path, ["c"], TOKENIZER, "two")
    assert TokenFile(tmp_path).tokens.tolist() == [7, 3]
