"""Kills, processes and run folders of finetunings: some here, all with ``make chaos``."""

import signal

import pytest

from tests.faults.finetuning_kills import kill_finetuning
from tests.faults.finetuning_processes import compare_processes
from tests.faults.finetuning_recipes import FINETUNINGS
from tests.faults.forked_runs import ForkedRun
from tests.faults.killed_runs import UpdateReader


@pytest.fixture
def memes(root):
    return FINETUNINGS["hateful_memes"].recipe(root.parent / "data", dropout=0.0)


@pytest.mark.parametrize(("name", "processes"), [("hateful_memes", 1), ("clevr", 2)])
def test_killed_finetuning_equals_a_quiet_one(root, name, processes):
    result = kill_finetuning(root, name, kills=2, updates=12, processes=processes, seed=1)
    assert result["sent"] == 2 and result["passed"], result


def test_two_processes_finetune_like_one(root, memes):
    for result in compare_processes(root, memes, ["fp32"]):
        assert result["passed"], result


def test_a_folder_in_use_is_refused_and_a_new_run_keeps_the_old_checkpoints(root, memes):
    options = ("training.checkpoint_interval=1", "checkpoint.max_to_keep=1")
    first = ForkedRun(root, "run", *options, "training.max_updates=1000000", recipe=memes)
    job, update = first.start(), UpdateReader(first)
    while update() < 3:
        assert job.poll() is None, first.log.read_text()[-2000:]
    first.log = first.log.with_suffix(".second")
    assert first.start().wait() == 2
    last = first.log.read_text().strip().splitlines()[-1]
    assert last.startswith("mmf_flava: ") and f"{first.folder} is in use by process {job.pid} on " in last
    assert job.poll() is None
    job.process.kill()
    assert job.wait() == -signal.SIGKILL
    latest = (first.folder / "checkpoints" / "latest").read_text().partition(" ")[0]

    first.finish("checkpoint.resume=false", "training.max_updates=1")
    assert int(first.last_checkpoint().name.removeprefix("update_")) == 1
    assert (first.folder / "previous" / "1" / "checkpoints" / latest / "model.safetensors").is_file()
