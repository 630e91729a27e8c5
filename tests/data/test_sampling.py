import gc
import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from mmf_flava.config.run import MultitaskingConfig
from mmf_flava.data.collate import collate
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.sampling import (
    MultitaskLoader,
    _kill_workers,
    build_batch_loader,
    build_evaluation_loader,
)
from mmf_flava.errors import UserError


class Numbers:
    """A dataset whose sample n is (name, n)."""

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
    found = take(MultitaskLoader(DATASETS, DatasetSchedule(TWO), batch_size=3), 5)
    assert [name for name, _ in found] == ["a", "b", "a", "b", "a"]
    assert [n for name, batch in found if name == "a" for _, n in batch] == list(range(9))


def test_accumulated_batches_come_from_one_dataset():
    loader = MultitaskLoader(DATASETS, DatasetSchedule(TWO), batch_size=2, consecutive_batches=3)
    assert "".join(name for name, _ in take(loader, 9)) == "aaabbbaaa"


def test_workers_prefetch_the_batches_of_an_update():
    loaders = [build_batch_loader(DATASETS["a"], [[0]], workers, prefetch=5) for workers in (0, 1, 2, 4)]
    assert [loader.prefetch_factor for loader in loaders] == [None, 5, 3, 2]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_resuming_continues_the_same_stream(workers):
    def loader(**options):
        return MultitaskLoader(DATASETS, DatasetSchedule(DATASETS, RATIOS, seed=3), 4, num_workers=workers, **options)

    expected = take(loader(), 20)
    first = loader()
    assert take(first, 9) == expected[:9]
    state = first.state_dict()
    first.close()
    assert take(first, 3) == expected[9:12], "close() must not lose batches"
    assert (state["draws"], state["batch_size"], state["lanes"]) == (9, 4, 4)
    assert sum(state["samples"].values()) == 9 * 4
    second = loader()
    second.load_state_dict(state)
    assert take(second, 11) == expected[9:]
    take(second, 1)
    second.load_state_dict(state)
    assert take(second, 2) == expected[9:11]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_partition_the_global_batch(ranks):
    single = take(MultitaskLoader(DATASETS, DatasetSchedule(DATASETS, RATIOS), 8), 10)
    by_rank = [
        take(MultitaskLoader(DATASETS, DatasetSchedule(DATASETS, RATIOS), 8, rank=r, world_size=ranks), 10)
        for r in range(ranks)
    ]
    for step, (name, batch) in enumerate(single):
        assert {batches[step][0] for batches in by_rank} == {name}
        assert [item for batches in by_rank for item in batches[step][1]] == batch
        assert {len(batches[step][1]) for batches in by_rank} == {8 // ranks}


def test_another_batch_size_continues_if_it_is_a_multiple_of_the_lanes():
    def loader(batch_size, dataset=DATASETS["a"], **options):
        return MultitaskLoader({"a": dataset}, DatasetSchedule({"a": dataset}), batch_size, **options)

    first = loader(8, lanes=4)
    take(first, 3)
    other = loader(12)
    other.load_state_dict(first.state_dict())
    assert other.lanes == 4 and sorted(n for _, n in take(other, 1)[0][1]) == list(range(24, 36))
    with pytest.raises(UserError, match=r"training\.batch_size: .* with 8, and 6 .* a multiple of 4 lanes"):
        loader(6).load_state_dict(first.state_dict())
    bucketed = Numbers("a")
    bucketed.length_buckets = 2
    with pytest.raises(UserError, match=r"training\.batch_size: .* with 8, and 12 .* a has length_buckets"):
        loader(12, bucketed).load_state_dict(first.state_dict())


def test_invalid_arguments_raise_an_error():
    with pytest.raises(UserError, match="multiple of the number of processes, 3, got 8"):
        MultitaskLoader(DATASETS, DatasetSchedule({"a": Numbers("a")}), 8, world_size=3)
    with pytest.raises(UserError, match="Unknown datasets to sample from: d"):
        MultitaskLoader(DATASETS, DatasetSchedule({"d": Numbers("d")}), 8)


def test_workers_exit_with_the_loader():
    before = set(multiprocessing.active_children())
    loader = MultitaskLoader(DATASETS, DatasetSchedule(TWO), 2, num_workers=1)
    next(loader)
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    del loader
    gc.collect()
    deadline = time.monotonic() + 10
    while any(worker.is_alive() for worker in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(worker.is_alive() for worker in started)


def test_global_generator_is_not_changed():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    take(MultitaskLoader(DATASETS, DatasetSchedule({"a": Numbers("a")}), 2), 2)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_loader_yields_each_sample_once_in_order(workers):
    batches = list(build_evaluation_loader(Numbers("a", 10), 4, workers))
    assert [[n for _, n in batch] for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_batches_do_not_cross_spans():
    batches = list(build_evaluation_loader(Numbers("a", 10), 4, spans=[range(0, 5), range(8, 10)]))
    assert [[n for _, n in batch] for batch in batches] == [[0, 1, 2, 3], [4], [8, 9]]


def test_dataset_batches_do_not_depend_on_workers(load):
    datasets = {"pmd": load("pmd"), "imagenet": load("imagenet")}
    streams = [
        take(MultitaskLoader(datasets, DatasetSchedule(datasets), 8, num_workers=workers), 4) for workers in (0, 2)
    ]
    for (name, one), (_, other) in zip(*streams, strict=True):
        assert one.dataset_name == other.dataset_name == name
        assert one.sample_id == other.sample_id
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.image_patch_mask, other.image_patch_mask)


class Pids:
    """A dataset whose samples are the id of the loading process."""

    def __getitem__(self, n):
        return os.getpid()

    def collate(self, samples):
        return samples


def _exit_without_closing(connection):
    datasets = {"pids": Pids()}
    loader = MultitaskLoader(datasets, DatasetSchedule(datasets), 1, num_workers=1)
    connection.send(next(loader)[1][0])
    connection.recv()
    _references.append(loader)  # keeps the loader open, as a traceback would
    _kill_workers()  # the ``atexit`` handler; a forked process does not run exit handlers
    connection.send("exited")


_references = []


def test_workers_ignore_signals_and_exit_with_their_parent():
    context = multiprocessing.get_context("fork")
    connection, child_connection = context.Pipe()
    parent = context.Process(target=_exit_without_closing, args=(child_connection,))
    parent.start()
    worker = connection.recv()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(worker, number)
    time.sleep(0.2)
    os.kill(worker, 0)  # raises an error if the worker has exited
    connection.send("continue")
    assert connection.poll(30) and connection.recv() == "exited"
    parent.join(30)
    assert parent.exitcode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_batches_for_cuda_are_pinned(monkeypatch):
    assert not build_batch_loader(DATASETS["a"], [[0]], 0).pin_memory
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert build_batch_loader(DATASETS["a"], [[0]], 0).pin_memory


def test_pinning_keeps_the_fields_of_a_batch(monkeypatch):
    batch = collate([{"image": torch.ones(3, 4, 4), "image_patch_mask": torch.tensor([True, False])}], "pmd", "train")
    fields, counts = list(batch), batch["mask_counts"]
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, device=None: tensor + 1)
    pinned = pin_memory(batch)
    assert list(pinned) == fields and pinned["mask_counts"] is counts and pinned.dataset_name == "pmd"
    assert pinned["image"].unique().tolist() == [2] and pinned.get_batch_size() == 1
