import gzip
import json
import os
import random

import pytest
from tokenizers.normalizers import BertNormalizer

from mmf_flava.data.prepare import text
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.documents import documents
from mmf_flava.data.prepare.executors import LOCAL, Executor
from mmf_flava.data.prepare.source_files import open_text
from mmf_flava.data.prepare.text_files import text_files
from mmf_flava.data.token_files import TokenFile
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece
from mmf_flava.errors import UserError

from .process_kills import assert_survives_kills, read_files, run_two_concurrently

TOKENIZER = build_wordpiece([*SPECIAL_TOKENS, "a", "b", "c"])
SMALL_TASKS = "from mmf_flava.data.prepare import text; text.CHARACTERS = 10"
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


def test_text_command(corpus, capsys):
    assert command(corpus) == 0
    file = TokenFile(corpus / "out")
    assert file.read(0, 100).tolist() == [5, 6, 7, 3, 7, 7, 3, 6, 3, 5, 3]
    assert file.read_documents(0, 5).tolist() == [0, 4, 7, 9, 11]
    for name in text.FORMER:  # of an earlier version
        (corpus / "out" / name).touch()
    assert command(corpus) == 0  # complete already
    assert sorted(path.name for path in (corpus / "out").iterdir()) == sorted(FILES)
    assert "11 tokens in 4 documents" in capsys.readouterr().out
    (corpus / "text/3.txt").write_text("a")
    assert command(corpus) == 2
    assert "contains tokens of a different text or vocabulary" in capsys.readouterr().err


def test_executor_option(corpus, monkeypatch, capsys):
    executors = []

    def run(self, out, progress, executor):
        executors.append(executor)
        return {"tokens": 1, "documents": 1}

    monkeypatch.setattr(text.TextPreparation, "run", run)
    assert command(corpus) == command(corpus, "--executor", "local:3") == 0
    assert executors == [LOCAL, Executor("local", 3)]


def test_parquet(corpus):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(arrow.Table.from_pylist([{"tale": "a"}, {"tale": "b"}]), corpus / "a.parquet")
    assert list(documents([corpus / "a.parquet"], "tale")) == ["a", "b"]
    with pytest.raises(UserError, match="--column"):
        list(documents([corpus / "a.parquet"]))


def test_folder_without_text_raises_an_error(tmp_path):
    with pytest.raises(UserError, match="no text files found"):
        text_files(tmp_path)


@pytest.mark.parametrize("seed", range(2))
def test_killed_process_is_resumed_with_the_same_result(corpus, seed):
    (corpus / "text/3.txt").write_text("\n\n".join(random.Random(seed).choices(["a", "b b", "c a", "x"], k=40)))
    assert_survives_kills(arguments(corpus), corpus / "out", seed, SMALL_TASKS)


def test_concurrent_processes_write_the_same_files_as_one(corpus):
    run_two_concurrently(arguments(corpus), corpus / "out")
    assert main([*arguments(corpus), "--out", str(corpus / "alone")]) == 0
    assert read_files(corpus / "out") == read_files(corpus / "alone")


def test_upper_case_suffixes(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    (tmp_path / "1.TXT").write_text("one\n\ntwo\n")
    with gzip.open(tmp_path / "2.TXT.GZ", "wt") as file:
        file.write("three\n")
    (tmp_path / "3.txt.JSONL").write_text('{"text": "four"}\n')
    write_table(arrow.Table.from_pylist([{"text": "five"}]), tmp_path / "4.PARQUET")
    (tmp_path / "._1.TXT").write_bytes(b"\x00\x05\x16\x07")
    texts = [text.strip() for text in documents(text_files(tmp_path))]
    assert texts == ["one", "two", "three", "four", "five"]


def test_damaged_gzip_files_and_pipes_are_described(tmp_path):
    damaged = bytearray(gzip.compress(b"one two three\n" * 100))
    damaged[10] = 0xFF  # the type of the first block is invalid
    (tmp_path / "1.txt.gz").write_bytes(damaged)
    os.mkfifo(tmp_path / "2.txt")
    for name, problem in (("1.txt.gz", "invalid block type"), ("2.txt", "not a regular file")):
        with pytest.raises(UserError, match=f"{name} cannot be read .*{problem}"):
            list(documents([tmp_path / name]))


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_lines_are_bounded(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("mmf_flava.files.text_file.MAX_LINE", 10)
    path = tmp_path / f"a{suffix}"
    opener = gzip.open if suffix.endswith(".gz") else open
    for content, expected in (("123456789\nb\n", ["123456789\n", "b\n"]), ("123456789", ["123456789"])):
        with opener(path, "wt") as file:
            file.write(content)
        with open_text(path) as lines:
            assert list(lines) == expected
    with opener(path, "wt") as file:
        file.write("a\n" + "\0" * 11)
    with open_text(path) as lines, pytest.raises(UserError, match=rf"a{suffix}: a line has more than 10 characters\."):
        list(lines)


def test_other_settings_of_the_tokenizer_are_another_input(corpus, capsys):
    assert command(corpus) == 0
    cased = build_wordpiece([*SPECIAL_TOKENS, "a", "b", "c"])
    cased.normalizer = BertNormalizer(lowercase=False)
    cased.save(str(corpus / "tokenizer" / "tokenizer.json"))
    assert command(corpus) == 2
    assert "contains tokens of a different text or vocabulary" in capsys.readouterr().err


def test_text_of_the_same_size_is_not_added_to_an_interrupted_one(corpus, monkeypatch, capsys):
    monkeypatch.setattr(text.TextPreparation, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert command(corpus) == 130
    monkeypatch.undo()
    (corpus / "text" / "1.txt").write_text("b a\nc\n\n\n c c\n")
    assert command(corpus) == 2
    assert "different text" in capsys.readouterr().err


def test_tokens_of_others_are_not_overwritten(corpus, capsys):
    (corpus / "out").mkdir()
    (corpus / "out" / "tokens.bin").write_text("mine")
    assert command(corpus) == 2
    assert "tokens.bin, which this command has not written" in capsys.readouterr().err
    assert (corpus / "out" / "tokens.bin").read_text() == "mine"


def test_output_inside_the_source_is_no_text(corpus):
    words = [*arguments(corpus), "--out", str(corpus / "text" / "out")]
    assert main(words) == main(words) == 0
