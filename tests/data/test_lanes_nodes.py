"""Tests that a node opens few shards per pass, and opens them once, with mismatched captions."""

import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmf_flava.data import shards
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.shard_writer import ShardWriter

SHARDS, PER_SHARD, BATCH, NODES = 32, 12, 64, 4


def write_shards(folder, count, per_shard=PER_SHARD, caption="number {n}{words}"):
    """Write pairs of one grey level and the caption with its number."""
    for shard in range(count):
        with ShardWriter(folder / f"{shard:05d}.tar") as writer:
            for n in range(shard * per_shard, (shard + 1) * per_shard):
                image = io.BytesIO()
                Image.new("L", (24, 24), n % 256).save(image, "PNG")
                text = json.dumps({"caption": caption.format(n=n, shard=shard, words=" x" * (n % 5))})
                writer.write(f"{n:05d}", {"png": image.getvalue(), "json": text.encode()})
    return folder


@pytest.fixture
def opened(monkeypatch):
    """Number of times that each tar file was opened."""
    counts, open_file = Counter(), shards.open_file
    monkeypatch.setattr(shards, "open_file", lambda path: counts.update([path]) or open_file(path))
    return counts


@pytest.fixture
def pmd(tmp_path, config):
    config.dataset_config.pmd.mismatch_probability = 0.5
    config.dataset_config.pmd.splits.train = [str(write_shards(tmp_path / "a", SHARDS))]
    return config.dataset_config.pmd


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("plain", SHARDS / 4 + 4), ("buckets", 1.2 * (SHARDS / 4 + 4)), ("mixture", 1.2 * (SHARDS / 4 + 4))],
)
def test_node_opens_a_part_of_the_shards(pmd, load, opened, tmp_path, kind, limit):
    if kind == "buckets":
        pmd.length_buckets = 3
    if kind == "mixture":
        for n, name in enumerate("ab"):
            write_shards(tmp_path / name, SHARDS // 2 * (2 - n))
        for number in range(SHARDS // 2, SHARDS):
            (tmp_path / "a" / f"{number:05d}.tar").unlink()
        pmd.splits.train = {str(tmp_path / "a"): 1, str(tmp_path / "b"): 1}
    keys = []
    for rank in range(NODES):
        dataset = load("pmd")
        loader = MultitaskLoader(
            {"pmd": dataset}, DatasetSchedule({"pmd": dataset}), BATCH, rank=rank, world_size=NODES
        )
        opened.clear()
        batches = [next(loader)[1] for _ in range(SHARDS * PER_SHARD // BATCH)]
        keys += [key for batch in batches for key in batch.sample_id]
        assert 0.3 < np.mean([1 - float(batch.is_correct.float().mean()) for batch in batches]) < 0.7
        assert SHARDS / 4 <= len(opened) <= limit
        assert sum(opened.values()) == len(opened), "no shard is opened twice"
    if kind == "plain":
        assert Counter(keys) == Counter(f"{n:05d}" for n in range(SHARDS * PER_SHARD)), "one pass"


@pytest.mark.parametrize("caption", ["class {shard}", "number {n}"])
@pytest.mark.parametrize("per_shard", [1, 4])
def test_shards_without_another_caption_have_mismatched_captions(pmd, load, tmp_path, caption, per_shard):
    """A shard of one record, and shards of one class whose captions are equal."""
    pmd.splits.train = [str(write_shards(tmp_path / "c", 8, per_shard, caption))]
    dataset, mismatched = load("pmd"), 0
    for n in range(200):
        sample = dataset[n]
        own = [2, *dataset.text_processor.tokenizer.encode(sample.captions[0]).ids, 3]
        assert (sample.input_ids.tolist() == own) == bool(sample.is_correct)
        mismatched += 1 - sample.is_correct
    assert 70 < mismatched < 130
    assert [dataset[n].input_ids.tolist() for n in range(9)] == [load("pmd")[n].input_ids.tolist() for n in range(9)]


def test_dataset_without_another_caption_is_reported_once(pmd, load, tmp_path, caplog):
    pmd.splits.train = [str(write_shards(tmp_path / "d", 2, 5, "same"))]
    dataset = load("pmd")
    assert all(dataset[n].is_correct == 1 for n in range(30))
    assert caplog.text.count("no other caption was found for the mismatched pair of record") == 1


def test_records_of_image_lists_have_captions_of_the_entire_list(pmd, load, tmp_path):
    Image.new("L", (24, 24)).save(tmp_path / "1.png")
    lines = [{"image": "1.png", "caption": f"text {n}", "id": str(n)} for n in range(40)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pmd.splits.train = [str(tmp_path / "a"), str(tmp_path / "list.jsonl")]
    dataset = load("pmd")
    first = SHARDS * PER_SHARD
    assert dataset._related_records(first + 7)[0] == range(first, first + 40)
    assert dataset._related_records(PER_SHARD)[0] == range(PER_SHARD, 2 * PER_SHARD)
