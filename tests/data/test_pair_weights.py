"""``epoch: pairs``: each part of PMD is sampled as often as its manifest has pairs; no images are read."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from mmf_flava.data.mixture import Mixture
from mmf_flava.data.order import Order
from mmf_flava.data.pair_weights import read_pair_weights
from mmf_flava.errors import UserError

ROOT = Path(__file__).parents[2]
write_sparse_corpus = runpy.run_path(str(ROOT / "benchmarks" / "shards.py"))["write_sparse_corpus"]
# pairs in thousands, from Table 2 of the paper, and captions per image
PARTS = {
    "coco": (900, 5),
    "sbu": (1000, 1),
    "localized_narratives": (1900, 2.2),
    "conceptual_captions": (3100, 1),
    "visual_genome": (5400, 50),
    "wit": (4800, 1),
    "cc12m": (11000, 1),
    "redcaps": (11600, 1),
    "yfcc100m": (30300, 1),
}
SAMPLES = 1_000_000


def write_part(folder, images, pairs):
    """Write sparse shards of 10,000 records, the last one smaller, and their manifest."""
    folder.mkdir(parents=True)
    if images >= 10_000:
        write_sparse_corpus(folder, images // 10_000, 10_000)
    if rest := images % 10_000:
        (folder / "rest").mkdir()
        write_sparse_corpus(folder / "rest", 1, rest)
        for file in (folder / "rest").iterdir():
            file.rename(folder / file.name.replace("00000", "99999"))
    write_manifest(folder, images=images, pairs=pairs)


def write_manifest(folder, **counts):
    (folder / "manifest.json").write_text(json.dumps({"kind": "pmd", "counts": counts}))


@pytest.mark.parametrize("available", [1, 0.6], ids=["complete", "without 40 % of YFCC"])
def test_shares_of_a_million_samples_equal_the_pairs_of_the_manifests(config, load, tmp_path, available):
    pairs = {name: int(count * 100 * (available if name == "yfcc100m" else 1)) for name, (count, _) in PARTS.items()}
    images = {name: int(count / PARTS[name][1]) for name, count in pairs.items()}
    for name in PARTS:
        write_part(tmp_path / name, images[name], pairs[name])
    section = config.dataset_config.pmd
    section.splits, section.epoch = {"train": [str(tmp_path / name) for name in PARTS]}, "pairs"
    dataset = load("pmd")
    assert isinstance(dataset.order, Mixture)
    assert len(dataset) == pytest.approx(sum(pairs.values()), abs=len(PARTS))
    ends = np.cumsum(list(images.values()))
    assert ends[-1] == dataset.size
    # the path of each sample; a million calls of ``index`` would take ten seconds
    part = np.concatenate([dataset.order._load_slice(n)[1] for n in range(SAMPLES // 4000)])[:SAMPLES]
    assert len(part) == SAMPLES
    some = range(0, SAMPLES, 997)
    assert (np.searchsorted(ends, [dataset.order.index(n) for n in some], side="right") == part[some]).all()
    shares = np.bincount(part, minlength=len(PARTS)) / SAMPLES
    expected = np.array(list(pairs.values())) / sum(pairs.values())
    assert np.abs(shares - expected).max() < 0.002


def test_explicit_weights_and_other_splits_need_no_manifest(config, load):
    config.dataset_config.pmd.epoch = "pairs"
    config.dataset_config.pmd.splits.train = {"pairs/train/00000.tar": 2}  # a file has no manifest
    dataset = load("pmd")
    assert len(dataset) == 2 * dataset.size
    assert isinstance(load("pmd", "val").order, Order)


def test_demo_counts_its_pairs(config, load):
    config.dataset_config.pmd.epoch = "pairs"
    dataset = load("pmd")
    records = (json.loads(dataset.records.read(n).fields["json"]) for n in range(dataset.size))
    assert len(dataset) == sum(len(record["captions"]) for record in records)


@pytest.mark.parametrize("counts", [None, {}, {"images": 3}, {"images": 0, "pairs": 0}, {"images": "3", "pairs": "4"}])
def test_path_without_counts_raises(tmp_path, counts):
    write_sparse_corpus(tmp_path, 1, 3)
    if counts is not None:
        write_manifest(tmp_path, **counts)
    message = (
        rf"^dataset_config\.pmd\.epoch=pairs requires .* {tmp_path} has no valid manifest\.json.*\.epoch=images\.$"
    )
    with pytest.raises(UserError, match=message):
        read_pair_weights([("a", tmp_path)])


def test_other_paths_without_counts_raise(tmp_path):
    for path in ("https://host/00000.tar", tmp_path / "list.jsonl"):
        with pytest.raises(UserError, match="has no valid manifest"):
            read_pair_weights([("a", path)])
    for name in ("a", "b"):
        write_part(tmp_path / name, 5, 10)
    with pytest.raises(UserError, match=r"has shards in 2 folders\. List each folder"):
        read_pair_weights([("all", tmp_path / "*/*.tar")])


def test_path_listed_twice_counts_twice(tmp_path):
    write_part(tmp_path / "a", 5, 12)
    assert read_pair_weights([("a", tmp_path / "a"), ("a", tmp_path / "a" / "99999.tar")]) == {"a": 4.8}
