"""Tests of the cache of remote shards that are read from several lanes."""

import re
from collections import Counter

import pytest

from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.errors import UserError
from tests.data.test_lanes_nodes import write_shards

SHARDS, PER_SHARD, BATCH = 16, 4, 8


@pytest.fixture
def pmd(server, downloads, tmp_path, config):
    server.ranges = False
    for path in write_shards(tmp_path / "a", SHARDS, PER_SHARD).iterdir():
        server.files[f"/{path.name}"] = path.read_bytes()
    config.dataset_config.pmd.mismatch_probability = 0.5
    config.dataset_config.pmd.splits.train = [f"{server.url}/{{00000..{SHARDS - 1:05d}}}.tar"]
    return config.dataset_config.pmd


def build_loader(dataset, **options):
    return MultitaskLoader({"pmd": dataset}, DatasetSchedule({"pmd": dataset}), BATCH, **options)


def downloaded(server):
    return Counter(path for path, part in server.requests if path.endswith(".tar") and part is None)


def test_cache_that_is_smaller_than_the_shards_of_the_lanes_is_refused_before_the_first_download(server, pmd, load):
    pmd.cache_bytes = 40_000
    with pytest.raises(
        UserError, match=r"^dataset_config\.pmd\.cache_bytes: up to 12 remote shards are read at"
    ) as caught:
        next(build_loader(load("pmd")))
    assert not downloaded(server)
    needed = re.search(r"which are ([\d,]+) bytes, but the cache is limited to 40,000 bytes\. (.*)", str(caught.value))
    assert needed[2] == "Increase cache_bytes, or decrease training.lanes."
    pmd.cache_bytes = int(needed[1].replace(",", ""))
    dataset = load("pmd")
    loader = build_loader(dataset)
    for _ in range(SHARDS * PER_SHARD // BATCH):
        next(loader)
    assert set(downloaded(server).values()) == {1}, "no shard is downloaded twice in a pass"
    assert len(downloaded(server)) == SHARDS
    for _ in range(SHARDS * PER_SHARD // BATCH):
        next(loader)
    assert max(downloaded(server).values()) <= 2 and len(dataset.records._open_shards) <= 12
    pmd.cache_bytes = 60_000
    next(build_loader(load("pmd"), lanes=1))  # the second remedy


@pytest.mark.parametrize(("local", "shards"), [("", 16), ("1", 6), ("2", 12)])
def test_cache_is_shared_by_the_processes_of_a_machine(pmd, load, monkeypatch, local, shards):
    """Each of four processes reads two lanes, and keeps up to six shards open."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    pmd.cache_bytes = 20_000
    with pytest.raises(UserError, match=f"cache_bytes: up to {shards} remote shards are read"):
        next(build_loader(load("pmd"), world_size=4))


@pytest.mark.parametrize("workers", [0, 2])
def test_records_are_downloaded_once_per_pass_within_the_limit(server, pmd, load, downloads, workers):
    server.ranges = server.keep_alive = True
    pmd.cache_bytes = 12 * len(server.files["/00000.tar"])
    loader = build_loader(load("pmd"), num_workers=workers)
    for _ in range(3 * SHARDS * PER_SHARD // BATCH):
        next(loader)
        used = sum(min(path.stat().st_size, path.stat().st_blocks * 512) for path in downloads.rglob("*.ranges"))
        assert used <= pmd.cache_bytes * 1.1
    loader.close()
    parts = Counter(request for request in server.requests if request[1])
    assert not downloaded(server) and len(parts) >= SHARDS * PER_SHARD
    assert max(parts.values()) <= 4 and sum(parts.values()) <= 3.5 * len(parts)
