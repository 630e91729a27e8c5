"""More than thirty kinds of bad samples in one shard: each is replaced and reported, and good records are kept."""

import io
import json
import os
import tarfile
from collections import Counter
from math import ceil

import pytest
import torch

from mmf_flava.config.processors import CLIP_MEAN, CLIP_STD
from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.quarantine import Quarantine, count_by_reason
from mmf_flava.data.sampling import MultitaskLoader
from mmf_flava.data.shards import ShardReader
from tests.data.bad_samples import CAPTION, RED, encoded, records, red

CHANGED = "changed bytes"


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """(shard, name -> reason or ""): each record of ``records`` followed by a good one, then cases of tar files."""
    path = tmp_path_factory.mktemp("bad") / "00000.tar"
    good = {"jpg": encoded(red(), "JPEG"), "json": CAPTION}
    expected = {}
    with tarfile.open(path, "w") as tar:
        for number, (name, (fields, reason)) in enumerate(records().items()):
            for key, data in ((name, fields), (f"good {number}", good)):
                for extension, value in data.items():
                    add(tar, f"{key}.{extension}", value)
            expected |= {name: reason, f"good {number}": ""}
        for extension in good:  # interleaved
            for key in ("left", "right"):
                add(tar, f"{key}.{extension}", good[extension])
        add(tar, "left.jpg", b"a duplicate member")
        folder, link = tarfile.TarInfo("folder"), tarfile.TarInfo("link.jpg")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(folder)
        tar.addfile(link)
        for key in ("flipped", "good after flipped", "cut"):
            for extension in good:
                add(tar, f"{key}.{extension}", good[extension])
        expected |= {"left": "", "right": "", "link": "no caption"}
        expected |= {"flipped": CHANGED, "good after flipped": "", "cut": CHANGED}
    reader = ShardReader([path])
    rows = {key: entries for _, key, entries in map(reader._read_row, range(len(reader)))}
    os.truncate(path, rows["cut"]["json"][0] + 5)
    ShardReader([path])  # builds the index of the truncated shard
    times = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(rows["flipped"]["jpg"][0] + 9)
        file.write(b"!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # keeps the index valid
    return path, expected


@pytest.fixture
def open_pmd(config, load, shard):
    def open_pmd(split):
        config.dataset_config.pmd.splits[split] = [str(shard[0])]
        config.dataset_config.pmd.max_bad_share = None
        return load("pmd", split)

    return open_pmd


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_samples_are_replaced_and_reported(open_pmd, shard, tmp_path, workers):
    expected = shard[1]
    assert len(expected) == 2 * 33 + 6
    dataset = open_pmd("train")
    assert len(dataset) == len(expected)
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", {})
    loader = MultitaskLoader({"pmd": dataset}, DatasetSchedule({"pmd": dataset}), batch_size=8, num_workers=workers)
    delivered = Counter()
    for _ in range(ceil(len(dataset) / 8)):
        _, batch = next(loader)
        quarantine.update(batch)
        delivered.update(batch["sample_id"])
    loader.close()
    assert set(delivered) == {name for name, reason in expected.items() if not reason}
    reasons = Counter(reason for reason in expected.values() if reason)
    assert (
        count_by_reason(quarantine.bad_records)["pmd"]
        == reasons
        == {
            "no caption": 6,
            "unreadable caption": 4,
            "not an image": 2,
            "truncated image": 2,
            "changed bytes": 2,
            "damaged image": 1,
            "empty image": 1,
            "huge image": 1,
            "unknown pixel format": 1,
            "no image": 1,
        }
    )
    named = {
        (entry["sample_id"], entry["reason"]) for entry in map(json.loads, quarantine.file.read_text().splitlines())
    }
    assert named == {(name, reason) for name, reason in expected.items() if reason}


def test_unusual_images_and_captions_are_read_correctly(open_pmd, shard):
    """Check the mean colours of the upper and lower half, and the caption, against the visible content."""
    white, black, grey = (255,) * 3, (0,) * 3, (81,) * 3  # 0.299 * 200 + 0.587 * 30 + 0.114 * 30 = 81
    unusual = {
        "grey": (grey, grey),
        "16 bits": ((200,) * 3, (200,) * 3),
        "one bit": (white, black),
        "transparent": (white, white),
        "exif rotated": (black, white),
    }
    dataset = open_pmd("val")
    samples = {dataset[n]["sample_id"]: dataset[n] for n in range(len(dataset))}
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    for name, reason in shard[1].items():
        if reason:
            continue
        upper, lower = unusual.get(name, (RED, RED))
        pixels = (samples[name]["image"] * std + mean) * 255
        near = 12 if name in ("cmyk", "palette", "animated gif") else 4  # lossy colours
        assert (pixels[:, :10].mean((1, 2)) - torch.tensor(upper)).abs().max() < near, name
        assert (pixels[:, -10:].mean((1, 2)) - torch.tensor(lower)).abs().max() < near, name
        ids = samples[name]["input_ids"].tolist()
        words = dataset.text_processor.tokenizer.encode("a red square", add_special_tokens=False).ids
        assert ids[1:-1][: len(words)] == words, name


def test_bad_files_in_image_folder_are_replaced(config, load, tmp_path):
    """In an image folder a file may also be deleted during a run."""
    for name, data in {"a": encoded(red(), "JPEG"), "b": b"<html>", "c": encoded(red(), "JPEG")}.items():
        (tmp_path / "red").mkdir(exist_ok=True)
        (tmp_path / "red" / f"{name}.jpg").write_bytes(data)
    config.dataset_config.imagenet.splits.val = [str(tmp_path)]
    dataset = load("imagenet", "val")
    (tmp_path / "red" / "c.jpg").unlink()
    found = [dataset[n] for n in range(3)]
    assert [sample["sample_id"] for sample in found] == ["red/a.jpg"] * 3
    assert [[entry["reason"] for entry in sample["replaced"]] for sample in found] == [
        [],
        ["not an image", "vanished"],
        ["vanished"],
    ]
