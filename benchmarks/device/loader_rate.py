"""Part ``loader``: samples per second of the data loader alone, and the time of copying a batch to the device."""

import time

import torch
from loader import open_pmd
from mmf.utils.env import setup_imports

from device.context import Context
from device.shards import find_or_write_shards
from device.timing import seconds_per_call
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.sampling import MultitaskLoader

BATCH, TINY_BATCH = 64, 8
CASES = ((16, True), (16, False), (4, True))  # worker processes, pinned memory
TINY_CASES = ((1, False), (0, False))
SECONDS, TINY_SECONDS = 6, 1


def run(context: Context) -> None:
    """Report every case."""
    setup_imports()
    folder = find_or_write_shards(context)
    for workers, pinned in context.pick(CASES, TINY_CASES):
        name = f"worker processes: {workers}{', pinned memory' * pinned}"
        with context.attempt(name):
            dataset, size = open_pmd(folder), context.pick(BATCH, TINY_BATCH)
            schedule, pin = DatasetSchedule({"pmd": dataset}), pinned and context.cuda
            loader = MultitaskLoader({"pmd": dataset}, schedule, size, num_workers=workers, pin_memory=pin)
            try:
                report_rate(context, name, loader, warmup=context.pick(2 * workers, 1))
            finally:
                loader.close()


def report_rate(context: Context, name: str, loader: MultitaskLoader, warmup: int) -> None:
    """Report the rate of a loader. ``warmup``: batches before the measurement, at least those already prefetched."""
    for _ in range(warmup):
        next(loader)
    samples, start = 0, time.perf_counter()
    while time.perf_counter() - start < context.pick(SECONDS, TINY_SECONDS):
        batch = next(loader)[1]
        samples += len(batch["sample_id"])
    rate = samples / (time.perf_counter() - start)
    size = sum(value.numel() * value.element_size() for value in batch.values() if torch.is_tensor(value))
    values = {"samples_per_s": rate, "batch_mb": size / 1e6}
    if context.cuda:
        seconds = seconds_per_call(context, lambda: batch.to(torch.device(context.device)), warmup=2, repeats=5)
        values |= {"ms_to_device": 1e3 * seconds, "gb_per_s": size / seconds / 1e9}
    context.report(name, **values)
