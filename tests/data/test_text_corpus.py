import json

import pytest
import torch

from mmf_flava.data.token_files import TokenFile
from mmf_flava.errors import UserError


def test_blocks_are_consecutive_tokens_with_cls_and_sep(load, demo):
    dataset, tokens = load("ccnews_bookcorpus", "val"), TokenFile(demo / "text/val").read(0, 10**9)
    assert len(dataset) == len(tokens) // 14
    for n in (0, 1, len(dataset) - 1):
        sample = dataset[n]
        assert sample.input_ids.tolist() == [2, *tokens[14 * n : 14 * n + 14].tolist(), 3]
        assert sample.sample_id == f"val:{14 * n}"
        assert not ((sample.input_ids == 3) & (sample.lm_label_ids != -1)).any(), "[SEP] must never be masked"
    batch = dataset.collate([dataset[n] for n in range(4)])
    assert batch.input_ids.shape == (4, 16)
    assert torch.equal(batch.input_mask, torch.ones(4, 16, dtype=torch.int64))


def test_different_vocabulary_raises_an_error(config, load, demo, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("tokens.bin", "documents.npy", "meta.json"):
        (folder / name).write_bytes((demo / "text/val" / name).read_bytes())
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "vocabulary_sha256": "0" * 64}))
    config.dataset_config.ccnews_bookcorpus.splits.val = [str(folder)]
    with pytest.raises(UserError, match="different vocabulary"):
        load("ccnews_bookcorpus", "val")


def test_invalid_block_sizes_raise_an_error(config, load):
    section = config.dataset_config.ccnews_bookcorpus
    section.block_size = 2
    with pytest.raises(UserError, match=r"block_size: must be at least 3.*, got 2"):
        load("ccnews_bookcorpus")
    section.block_size = 10**6
    with pytest.raises(UserError, match=r"tokens, fewer than one block"):
        load("ccnews_bookcorpus")
    section.block_size, section.processors.text_processor.params.max_length = 32, 16
    with pytest.raises(UserError, match="max_length"):
        load("ccnews_bookcorpus")


def test_folders_are_concatenated_in_order(config, load):
    config.dataset_config.ccnews_bookcorpus.splits.val = ["text/val", "text/train"]
    both = load("ccnews_bookcorpus", "val")
    config.dataset_config.ccnews_bookcorpus.splits.val = ["text/val"]
    first = len(load("ccnews_bookcorpus", "val"))
    assert both[first].sample_id == "train:0"
    assert both[first - 1].sample_id.startswith("val:")


def test_fingerprint_is_that_of_the_tokens(config, load, demo, tmp_path):
    section, first = config.dataset_config.ccnews_bookcorpus, load("ccnews_bookcorpus", "val").fingerprint()
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("tokens.bin", "documents.npy", "meta.json"):
        (folder / name).write_bytes((demo / "text/val" / name).read_bytes())
    section.splits.val = [str(folder)]
    assert load("ccnews_bookcorpus", "val").fingerprint() == first
    tokens = bytearray((folder / "tokens.bin").read_bytes())
    tokens[0:2], tokens[2:4] = tokens[2:4], tokens[0:2]
    (folder / "tokens.bin").write_bytes(tokens)
    other = load("ccnews_bookcorpus", "val").fingerprint()
    section.splits.val = ["text/val", "text/train"]
    both = load("ccnews_bookcorpus", "val").fingerprint()
    section.splits.val = ["text/train", "text/val"]
    assert len({first, other, both, load("ccnews_bookcorpus", "val").fingerprint()}) == 4
