"""Datasets whose image processor is ``flava_multicrop``."""

import json

import pytest
import torch
from mmf.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image

from mmf_flava.config.processors import CLIP, IMAGENET
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.run_processors import STATE, initial_processors
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.saved_processors import SavedProcessors
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.errors import UserError
from tests.data.test_image_decoding import jpeg, photo
from tests.data.test_multicrop import SMALL, png

FIELDS = ("crops_global", "crops_local")


@pytest.fixture
def crops(config, load):
    """A function ``crops(name, split, **params)`` that loads a dataset with the processor ``flava_multicrop``."""

    def load_crops(name, split="train", **params):
        processors = config.dataset_config[name].processors
        processors.image_processor = {"type": "flava_multicrop", "params": {**SMALL, **params}}
        return load(name, split)

    return load_crops


@pytest.mark.parametrize("name", ["imagenet", "pmd"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_have_the_documented_shapes(crops, name, split):
    dataset = crops(name, split)
    batch = dataset.collate([dataset[n] for n in range(4)])
    assert batch.crops_global.shape == (4, 2, 3, 24, 24)
    assert batch.crops_local.shape == (4, 3, 3, 12, 12)
    assert batch.crops_global.dtype == batch.crops_local.dtype == torch.float32
    assert torch.equal(batch.crops_local[2], dataset[2]["crops_local"])
    assert batch.targets.shape == (4,)
    assert len(batch.sample_id) == 4
    assert ("image" in batch) == (split == "val")
    assert not {"input_ids", "captions", "image_patch_mask", "mask_counts"} & set(batch.fields())


def test_without_local_crops(crops):
    dataset = crops("imagenet", num_local=0)
    assert "crops_local" not in dataset.collate([dataset[0], dataset[1]])


def test_pairs_are_read_without_captions_and_tokenizer(config, crops, tmp_path):
    with ShardWriter(tmp_path / "images.tar") as shard:
        shard.write("a", {"png": png(photo(30, 20))})
        shard.write("b", {"png": png(photo(30, 20)), "json": json.dumps({"label": 3}).encode()})
    config.dataset_config.pmd.splits.train = [str(tmp_path / "images.tar")]
    for text in (None, {"type": "flava_text", "params": {"tokenizer": "does-not-exist"}}):
        config.dataset_config.pmd.processors.text_processor = text
        dataset = crops("pmd")
        samples = {sample["sample_id"]: sample for sample in (dataset[0], dataset[1])}
        assert {key: sample["targets"] for key, sample in samples.items()} == {"a": -1, "b": 3}
        assert getattr(dataset, "text_processor", None) is None


@pytest.mark.parametrize("kind", ["folder", "csv", "jsonl"])
def test_own_images(config, crops, tmp_path, kind):
    """Small, grey, transparent and 16-bit images without labels and captions, in a folder or a table."""
    photo(30, 20).save(tmp_path / "a.png")
    photo(7, 5, "L").save(tmp_path / "b.png")
    Image.new("RGBA", (9, 9), (9, 8, 7, 100)).save(tmp_path / "c.png")
    Image.new("I;16", (9, 9), 7000).save(tmp_path / "d.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "e.png")
    names = [f"{name}.png" for name in "abcde"]
    path = tmp_path
    if kind != "folder":
        path = tmp_path / f"list.{kind}"
        rows = ["image", *names] if kind == "csv" else [json.dumps({"image": name}) for name in names]
        path.write_text("\n".join(rows) + "\n")
    config.dataset_config.imagenet.splits.train = [str(path)]
    dataset = crops("imagenet")
    batch = dataset.collate([dataset[n] for n in range(5)])
    assert len({*batch.sample_id}) == 5
    assert batch.crops_global.shape == (5, 2, 3, 24, 24)
    assert all(batch[field].isfinite().all() for field in FIELDS)
    assert batch.replaced == [[]] * 5


def test_huge_and_damaged_images_are_replaced(config, crops, tmp_path):
    photo(30, 20).save(tmp_path / "a.png")
    photo(300, 200).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"<html>")
    config.dataset_config.imagenet.splits.train = [str(tmp_path)]
    dataset = crops("imagenet", max_pixels=600)
    samples = [dataset[n] for n in range(3)]
    assert {sample["sample_id"] for sample in samples} == {"a.png"}
    reasons = {entry["reason"] for sample in samples for entry in sample["replaced"]}
    assert reasons == {"huge image", "not an image"}


def test_training_crops_change_every_epoch_and_those_of_evaluation_do_not(crops):
    train, val = crops("imagenet"), crops("imagenet", "val")
    assert all(torch.equal(val[3][field], val[3 + len(val)][field]) for field in (*FIELDS, "image"))
    first = train[0]
    again = next(n for n in range(len(train), 2 * len(train)) if train.order.index(n) == train.order.index(0))
    assert train[again]["sample_id"] == first["sample_id"]
    assert not torch.equal(train[again]["crops_global"], first["crops_global"])


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (2, 0), (2, 2)])
def test_samples_do_not_depend_on_workers_and_processes(crops, world_size, workers):
    dataset = crops("imagenet")
    schedule = DatasetSchedule({"imagenet": dataset})
    MultitaskLoader({"imagenet": dataset}, schedule, 8)  # sets the number of lanes of the order
    expected = [dataset[n] for n in range(16)]
    found = {}
    for rank in range(world_size):
        torch.manual_seed(rank)
        loader = MultitaskLoader({"imagenet": dataset}, schedule, 8, workers, rank=rank, world_size=world_size)
        for _ in range(2):
            _, batch = next(loader)
            for number, key in enumerate(batch.sample_id):
                found[key] = {field: batch[field][number] for field in FIELDS}
    assert set(found) == {sample["sample_id"] for sample in expected}
    for sample in expected:
        assert all(torch.equal(found[sample["sample_id"]][field], sample[field]) for field in FIELDS)


def test_large_jpegs_are_decoded_at_a_reduced_size_only_in_training(config, crops, tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo(1000, 750)))
    for split in ("train", "val"):
        config.dataset_config.imagenet.splits[split] = [str(tmp_path)]
    sizes = []
    for split in ("train", "val"):
        dataset = crops("imagenet", split)
        process = dataset.image_processor.__class__.__call__

        def record(self, item, process=process):
            sizes.append(item["image"].shape)
            return process(self, item)

        monkeypatch.setattr(dataset.image_processor.__class__, "__call__", record)
        dataset[0]
        monkeypatch.undo()
    assert sizes == [(94, 125, 3), (750, 1000, 3)]  # at least 62 pixels, see decode_size


def test_the_other_datasets_of_a_run_have_the_mean_and_std_of_the_crops(crops, load):
    def statistics(params):
        section = {"processors": {"image_processor": {"type": "flava_multicrop", "params": params}}}
        config = {"datasets": "imagenet,pmd", "dataset_config": {"imagenet": section}, "model": "flava_dino"}
        registry.register("config", OmegaConf.create(config))
        return initial_processors(in_run=True).statistics(24, None, None)

    try:
        assert statistics({}) == IMAGENET
        assert statistics({"normalisation": "flava"}) == CLIP
        assert statistics({"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        registry.register("config", OmegaConf.create({"datasets": "imagenet", "model": "flava"}))
        assert initial_processors(in_run=True).statistics(24, None, None) == CLIP
    finally:
        registry.unregister("config")
        registry.unregister(STATE)


def test_processors_of_a_run_are_stored_with_its_weights(crops):
    saved = SavedProcessors.of_datasets([crops("imagenet"), crops("pmd")])
    assert (saved.image_size, saved.mean, saved.std) == (24, *IMAGENET)
    with pytest.raises(UserError, match="different mean and std"):
        SavedProcessors.of_datasets([crops("imagenet"), crops("pmd", normalisation="flava")])
