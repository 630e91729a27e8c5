"""The order of training data, for all sizes: ``python -m tests.faults.ordered_streams [--sizes N ...]``.

For each size and kind of order, the streams of 2 and 4 processes, of 1 and 2 data loader workers, and of a run with 5
resumes are compared with that of one process, and each record must be read once per pass. Prints JSON.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

from mmf_flava.command import ArgumentParser, command, integer
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.mixture import Mixture
from mmf_flava.data.order import Order, Unit
from mmf_flava.data.sampling import MultitaskLoader

KINDS = ("plain", "buckets", "mixture", "mixture with buckets")
SIZES = (117, 4096, 10007, 1_000_000)
WORLD_SIZES = (1, 2, 4)
RESUMES = 5
BATCH = 64
WINDOW = 4
WEIGHTS = {"a": 1, "b": 0.5, "c": 2}

Sample = tuple[int, int]  # index in the stream, record


def units(size: int, shard: int = 100) -> list[Unit]:
    return [Unit(first, 1, min(shard, size - first)) for first in range(0, size, shard)]


class Ids:
    """A dataset whose samples are their indices and records."""

    def __init__(self, kind: str, size: int):
        self.parts = [size]
        if "mixture" in kind:
            self.parts = [size // 2, size // 4, size - size // 2 - size // 4]
        parts = [units(part) for part in self.parts]
        self.order: Order | Mixture = Mixture(parts, WEIGHTS, 5) if len(parts) > 1 else Order(size, 5, True, parts[0])
        self.length_buckets = WINDOW if "buckets" in kind else 1

    def caption_bytes(self, n: int) -> int:
        return self.order.index(n) * 7919 % 97

    def __getitem__(self, n: int) -> Sample:
        return n, self.order.index(n)

    def collate(self, samples: list[Sample]) -> list[Sample]:
        return samples


def build_loader(kind: str, size: int, **options: int) -> MultitaskLoader:
    datasets = {"ids": Ids(kind, size)}
    return MultitaskLoader(datasets, DatasetSchedule(datasets), BATCH, **options)


def take(loader: MultitaskLoader, count: int) -> list[list[Sample]]:
    batches = [next(loader)[1] for _ in range(count)]
    loader.close()
    return batches


def num_batches(size: int) -> int:
    """Return the number of global batches of the first pass and the start of the second one, in whole windows."""
    return -(-(size + BATCH) // (WINDOW * BATCH)) * WINDOW


def read_ranks(kind: str, size: int, ranks: int) -> list[list[Sample]]:
    """Return the global batches that ``ranks`` processes read together."""
    count = num_batches(size)
    parts = [take(build_loader(kind, size, rank=rank, world_size=ranks), count) for rank in range(ranks)]
    return [[sample for part in batch for sample in part] for batch in zip(*parts, strict=True)]


def read_with_resumes(kind: str, size: int) -> list[list[Sample]]:
    """Return the global batches of a run that is stopped five times."""
    count, batches, state = num_batches(size), [], None
    stops = sorted({count * (n + 1) // (RESUMES + 1) for n in range(RESUMES)})
    for start, stop in zip([0, *stops], [*stops, count], strict=True):
        loader = build_loader(kind, size)
        if state is not None:
            loader.load_state_dict(state)
        batches += take(loader, stop - start)
        state = loader.state_dict()
    return batches


def repeated_or_missing(kind: str, size: int, batches: list[list[Sample]]) -> int:
    """Return how many samples or records are read too often or not at all. ``batches`` are whole windows."""
    samples = [sample for batch in batches for sample in batch]
    wrong = sum(n != expected for (n, _), expected in zip(sorted(samples), range(len(samples)), strict=True))
    counts, first = Counter(record for _, record in samples), 0
    for part in Ids(kind, size).parts:
        found = [counts[record] for record in range(first, first + part)]
        most = min(found) + 1
        wrong += sum(count > most for count in found)
        first += part
    return wrong


def measure(kind: str, size: int) -> dict[str, object]:
    """Return the number of wrong samples and the streams that differ from that of one process."""
    start = time.perf_counter()
    expected = take(build_loader(kind, size), num_batches(size))
    streams = {f"{ranks} ranks": read_ranks(kind, size, ranks) for ranks in WORLD_SIZES[1:]}
    streams["resumes"] = read_with_resumes(kind, size)
    for workers in (1, 2):
        streams[f"{workers} workers"] = take(build_loader(kind, size, num_workers=workers), num_batches(size))
    different = [name for name, stream in streams.items() if stream != expected]
    wrong = repeated_or_missing(kind, size, expected)
    seconds = round(time.perf_counter() - start)
    return {"order": kind, "size": size, "wrong": wrong, "different": different, "seconds": seconds}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=integer(at_least=BATCH), nargs="*", default=SIZES)
    options = parser.parse_args(arguments)
    failed = 0
    for size in options.sizes:
        for kind in KINDS:
            result = measure(kind, size)
            failed += bool(result["wrong"] or result["different"])
            print(json.dumps(result), flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
