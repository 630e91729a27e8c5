"""Tests of reading from more lanes than the limit of open files allows."""

import logging
import os
import resource

import pytest

from mmf_flava.data.order import Order
from mmf_flava.data.records import keep_lanes_open, open_records, record_units
from mmf_flava.data.shard_writer import ShardWriter
from tests.files.test_open_files import in_process

SHARDS, PER_SHARD = 60, 5


@pytest.fixture
def folder(tmp_path):
    for shard in range(SHARDS):
        with ShardWriter(tmp_path / f"{shard:03d}.tar") as writer:
            for n in range(PER_SHARD):
                writer.write(f"{shard * PER_SHARD + n:03d}", {"txt": b"a"})
    return tmp_path


class Messages(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def _read(folder, soft):
    """Return the read keys, the messages, the limit, and the number of open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    messages = Messages()
    logging.getLogger("mmf_flava").addHandler(messages)
    records = open_records(folder)
    keep_lanes_open(records, 50, 1, "pmd")
    order = Order(len(records), 0, True, record_units(records), 50)
    keys = [records.read(order.index(n)).key for n in range(len(records))]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sorted(keys), messages.texts, limit, len(os.listdir("/proc/self/fd"))


def test_low_limit_costs_no_records(folder):
    keys, messages, limit, opened = in_process(_read, 80, folder, 80)
    assert keys == [f"{n:03d}" for n in range(SHARDS * PER_SHARD)]
    assert limit == 80 and opened <= 64
    assert len(messages) == 1 and "reading from 50 lanes needs" in messages[0]
    assert "at most 80 are allowed" in messages[0] and "decrease training.lanes" in messages[0]


def test_limit_is_raised_to_keep_a_shard_open_per_lane(folder):
    keys, messages, limit, opened = in_process(_read, 2000, folder, 64)
    assert keys == [f"{n:03d}" for n in range(SHARDS * PER_SHARD)] and messages == []
    assert limit > 64 and opened > 2 * 50, "the indexes and tar files of the shards of all lanes"
