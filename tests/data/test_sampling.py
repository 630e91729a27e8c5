import gc
import multiprocessing
import os
import signal
import time

import pytest
import torch

from mmf_flava.config.run import MultitaskingConfig
from mmf_flava.data.sampling import MultitaskLoader, _end_workers, evaluation_loader
from mmf_flava.data.turns import Turns
from mmf_flava.errors import UserError


class Numbers:
    """Sample n of the endless stream is (name, n)."""

    def __init__(self, name, size=10):
        self.name, self.size = name, size

    def __len__(self):
        return self.size

    def __getitem__(self, n):
        return (self.name, n)

    def collate(self, samples):
        assert multiprocessing.parent_process() is None or torch.get_num_threads() == 1
        return samples


DATASETS = {"a": Numbers("a"), "b": Numbers("b"), "c": Numbers("c")}
TWO = {"a": DATASETS["a"], "b": DATASETS["b"]}
RATIOS = MultitaskingConfig(type="ratios", params={"sampling_ratios": {"a": 0.7, "b": 0.15, "c": 0.15}})
pytestmark = pytest.mark.usefixtures("current_config")


def take(loader, count):
    return [next(loader) for _ in range(count)]


def test_batches_are_consecutive_positions():
    found = take(MultitaskLoader(DATASETS, Turns(TWO), batch_size=3), 5)
    assert [name for name, _ in found] == ["a", "b", "a", "b", "a"]
    assert [n for name, batch in found if name == "a" for _, n in batch] == list(range(9))


def test_accumulated_batches_are_of_one_dataset():
    loader = MultitaskLoader(DATASETS, Turns(TWO), batch_size=2, batches_per_turn=3)
    assert "".join(name for name, _ in take(loader, 9)) == "aaabbbaaa"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_resuming_goes_on_with_the_same_stream(workers):
    def loader(**more):
        return MultitaskLoader(DATASETS, Turns(DATASETS, RATIOS, seed=3), 4, num_workers=workers, **more)

    whole = take(loader(), 20)
    first = loader()
    assert take(first, 9) == whole[:9]
    state = first.state_dict()
    first.close()
    assert take(first, 3) == whole[9:12], "closing loses nothing"
    assert set(state) == {"step", "consumed"}
    assert sum(state["consumed"].values()) == state["step"] == 9
    second = loader()
    second.load_state_dict(state)
    assert take(second, 11) == whole[9:]
    assert take(loader(start_step=9), 11) == whole[9:]
    take(second, 1)
    second.load_state_dict(state)
    assert take(second, 2) == whole[9:11]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_out_the_global_batch(ranks):
    alone = take(MultitaskLoader(DATASETS, Turns(DATASETS, RATIOS), 8), 10)
    shares = [
        take(MultitaskLoader(DATASETS, Turns(DATASETS, RATIOS), 8, rank=r, world_size=ranks), 10) for r in range(ranks)
    ]
    for step, (name, batch) in enumerate(alone):
        assert {share[step][0] for share in shares} == {name}
        assert sorted(item for share in shares for item in share[step][1]) == batch
        assert [share[step][1] for share in shares] == [batch[r::ranks] for r in range(ranks)]


def test_what_cannot_be():
    with pytest.raises(UserError, match="evenly to 3"):
        MultitaskLoader(DATASETS, Turns({"a": Numbers("a")}), 8, world_size=3)
    with pytest.raises(UserError, match="names d"):
        MultitaskLoader(DATASETS, Turns({"d": Numbers("d")}), 8)


def test_workers_end_with_the_loader():
    before = set(multiprocessing.active_children())
    loader = MultitaskLoader(DATASETS, Turns(TWO), 2, num_workers=1)
    next(loader)
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    del loader
    gc.collect()
    deadline = time.monotonic() + 10
    while any(worker.is_alive() for worker in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(worker.is_alive() for worker in started)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    take(MultitaskLoader(DATASETS, Turns({"a": Numbers("a")}), 2), 2)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_each_sample_once_in_order(workers):
    batches = list(evaluation_loader(Numbers("a", 10), 4, workers))
    assert [[n for _, n in batch] for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_batch_lies_within_one_span():
    batches = list(evaluation_loader(Numbers("a", 10), 4, spans=[range(0, 5), range(8, 10)]))
    assert [[n for _, n in batch] for batch in batches] == [[0, 1, 2, 3], [4], [8, 9]]


def test_real_batches_are_the_same_for_any_number_of_workers(load):
    datasets = {"pmd": load("pmd"), "imagenet": load("imagenet")}
    streams = [take(MultitaskLoader(datasets, Turns(datasets), 8, num_workers=workers), 4) for workers in (0, 2)]
    for (name, one), (_, other) in zip(*streams, strict=True):
        assert one.dataset_name == other.dataset_name == name
        assert one.sample_id == other.sample_id
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.image_patch_mask, other.image_patch_mask)


class Pids:
    """Every sample is the number of the process that made it."""

    def __getitem__(self, n):
        return os.getpid()

    def collate(self, samples):
        return samples


def _ends_without_closing(told):
    datasets = {"pids": Pids()}
    loader = MultitaskLoader(datasets, Turns(datasets), 1, num_workers=1)
    told.send(next(loader)[1][0])
    told.recv()
    _kept.append(loader)  # as a traceback keeps it: nobody closes it
    _end_workers()  # what ``atexit`` calls; a forked process has no exit of its own
    told.send("ended")


_kept = []


def test_workers_leave_signals_to_their_parent_and_end_with_it():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    parent = context.Process(target=_ends_without_closing, args=(theirs,))
    parent.start()
    worker = ours.recv()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(worker, number)
    time.sleep(0.2)
    os.kill(worker, 0)  # it is there
    ours.send("go on")
    assert ours.poll(30) and ours.recv() == "ended"
    parent.join(30)
    assert parent.exitcode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
