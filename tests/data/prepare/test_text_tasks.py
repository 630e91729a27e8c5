"""The tokens are the same bytes whatever the size of the tasks, the executor, and whoever is killed."""

import json
import os
import random
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmf_flava.data.prepare import text_tasks
from mmf_flava.data.prepare.executors import Executor
from mmf_flava.data.prepare.text import TextPreparation
from mmf_flava.data.token_files import TokenFile
from mmf_flava.data.tokenizer import SPECIAL_TOKENS, build_wordpiece
from mmf_flava.errors import UserError

from .process_kills import read_files
from .test_executors import EXECUTORS

TOKENIZER = build_wordpiece([*SPECIAL_TOKENS, "a", "b", "c"])
WHOLE = 1 << 20  # characters


@dataclass(frozen=True)
class Killed(TextPreparation):
    """A preparation whose first worker is killed in its second task."""

    mark: str = ""

    def work(self, out, input, progress=None):
        run, tasks = text_tasks.TextTasks.run, []

        def run_or_die(self_of_tasks, number, is_done):
            tasks.append(number)
            if len(tasks) == 2 and Path(self.mark).exists():
                Path(self.mark).unlink(missing_ok=True)
                os.kill(os.getpid(), signal.SIGKILL)
            return run(self_of_tasks, number, is_done)

        text_tasks.TextTasks.run = run_or_die
        super().work(out, input, progress)


@pytest.fixture
def files(tmp_path):
    """Paragraphs, some of which are empty for the tokenizer, and records, some of which are dropped."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcx", k=rng.randrange(1, 9))) for _ in range(60)] + ["\x7f"]
    (tmp_path / "1.txt").write_text("\n\n".join(texts[:20]))
    (tmp_path / "2.txt").write_bytes(b"a \xe9 b\n\n" * 9)
    rows = [{"text": text} if n % 5 else {"url": text} for n, text in enumerate(texts)]
    (tmp_path / "3.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": None}]))
    return [tmp_path / name for name in ("1.txt", "2.txt", "3.jsonl")]


def preparation(files, characters, kind=TextPreparation, **options):
    return kind(files, None, TOKENIZER, characters, **options)


@pytest.fixture
def expected(tmp_path, files):
    preparation(files, WHOLE).run(tmp_path / "expected", progress=False)
    return read_files(tmp_path / "expected")


@pytest.mark.parametrize("characters", [1, 7, 50, 200])
def test_size_of_tasks_does_not_matter(tmp_path, files, expected, characters, monkeypatch):
    monkeypatch.setattr(text_tasks, "COPY", 64)
    monkeypatch.setattr(text_tasks, "CHUNK", 10)
    meta = preparation(files, characters).run(tmp_path / "out", progress=False)
    assert read_files(tmp_path / "out") == expected
    assert meta["dropped"] == {"malformed row": 13, "no text": 1}
    TokenFile(tmp_path / "out")


def test_warnings_are_shown_once_per_file(tmp_path, files, capsys):
    preparation(files, 1).run(tmp_path / "out", progress=False)
    assert capsys.readouterr().out.count("not valid UTF-8") == 1


@pytest.mark.parametrize("executor", EXECUTORS)
def test_task_of_a_killed_worker_is_run_again(tmp_path, files, expected, executor):
    (tmp_path / "mark").touch()
    preparation(files, 20, Killed, mark=str(tmp_path / "mark")).run(tmp_path / "out", False, executor)
    assert not (tmp_path / "mark").exists() and read_files(tmp_path / "out") == expected


def test_threads_share_the_work(tmp_path, files, expected, monkeypatch):
    monkeypatch.setattr(text_tasks, "COPY", 64)
    monkeypatch.setattr(text_tasks, "_warnings_in", lambda messages: threading.Lock())  # a filter is of the process
    errors = []

    def run():
        try:
            preparation(files, 5).run(tmp_path / "out", False)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and read_files(tmp_path / "out") == expected


def begin(tmp_path, files, tasks=4, characters=20):
    """Run the first tasks, as a process that is killed then. Return the folder."""
    prepared = preparation(files, characters)
    (tmp_path / "out").mkdir()
    folder = prepared.folder(tmp_path / "out")
    folder.begin()

    def run(number, is_done):
        if number == tasks:
            raise KeyboardInterrupt
        return text_tasks.TextTasks(prepared, folder.tasks, text_tasks.RowProgress()).run(number, is_done)

    with pytest.raises(KeyboardInterrupt):
        folder.tasks.walk(run)
    return folder


def test_reading_begins_at_the_last_known_place(tmp_path, files, expected, monkeypatch):
    folder, places, documents = begin(tmp_path, files, tasks=6), [], text_tasks.Documents

    def read(*arguments):
        places.append(arguments[3])
        return documents(*arguments)

    monkeypatch.setattr(text_tasks, "Documents", read)
    for name in ("00004.json", "00004.0.claim"):
        (folder.work / name).unlink()
    (folder.work / "00003.place").write_text('{"input": "other", "place": [1, [0, ""]]}')
    (folder.work / "00002.place").write_text("rubbish")
    ends = [json.loads((folder.work / f"0000{task}.place").read_text())["place"] for task in (1, 5)]
    preparation(files, 20).run(tmp_path / "out", False)
    assert json.loads(json.dumps(places[:2])) == ends, "of the tasks 4 and 6"
    assert None not in places and read_files(tmp_path / "out") == expected


def test_lost_and_damaged_parts_are_written_again(tmp_path, files, expected):
    folder = begin(tmp_path, files)
    (folder.work / "00000.tokens").unlink()
    (folder.work / "00001.lengths").write_bytes(b"")
    (folder.work / "00002.json").write_text("rubbish")
    for name in ("00007.place", "1.json", "x.json"):
        (folder.work / name).write_text("{}")
    (folder.work / "copied").mkdir()
    (folder.work / "copied/00000.json").write_text(json.dumps({"input": folder.tasks.input, "last": True}))
    (folder.out / "tokens.bin").write_bytes(b"of another command" * 99)
    preparation(files, 20).run(tmp_path / "out", False)
    assert read_files(tmp_path / "out") == expected


def test_other_input_is_refused_while_the_first_is_prepared(tmp_path, files):
    folder = begin(tmp_path, files)
    others = [
        preparation(files[:1], 20),
        TextPreparation(files, "text", TOKENIZER, 20),
        TextPreparation(files, None, build_wordpiece([*SPECIAL_TOKENS, "a"]), 20),
    ]
    for other in others:
        with pytest.raises(UserError, match=r"different text or vocabulary, or another process prepares them\. Choose"):
            other.run(tmp_path / "out", False)
    assert len(list(folder.work.glob("[0-9]*.json"))) == 4


@pytest.mark.parametrize("executor", [Executor(), Executor("local", 2)])
def test_errors_leave_nothing(tmp_path, executor):
    (tmp_path / "a.jsonl").write_text('{"headline": "x"}\n')
    with pytest.raises(UserError, match=r"none of the 1 rows gives a record .* Set --column"):
        preparation([tmp_path / "a.jsonl"], 20).run(tmp_path / "out", False, executor)
    assert os.listdir(tmp_path / "out") == []
