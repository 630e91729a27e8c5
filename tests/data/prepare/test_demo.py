import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmf_flava.data.prepare import demo as demo_module
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.captions import DIGITS, Captioner, compute_moments
from mmf_flava.data.prepare.demo import (
    DemoOptions,
    fit_codebook,
    prepare_demo,
    read_manifest,
    topic_texts,
    train_tokenizer,
)
from mmf_flava.data.records import open_records
from mmf_flava.data.token_files import TokenFile
from mmf_flava.data.tokenizer import load_tokenizer
from mmf_flava.errors import UserError


def scan_names(records):
    return [records[n].key.removesuffix(".png").rpartition("/")[2] for n in range(len(records))]


def test_counts_and_disjoint_splits(demo):
    pairs = {split: scan_names(open_records(demo / "pairs" / split)) for split in ("train", "val", "test")}
    assert {split: len(names) for split, names in pairs.items()} == {"train": 1300, "val": 137, "test": 360}
    assert len(set().union(*pairs.values())) == 1797
    for split in ("train", "val"):
        assert set(scan_names(open_records(demo / "images" / split))) == set(pairs[split])
    assert not (demo / "images" / "test").exists()
    assert read_manifest(demo)["counts"]["pairs"] == {"train": 1300, "val": 137, "test": 360}


def test_captions_are_distinct_and_contain_the_digit(demo):
    for split in ("train", "test"):
        records = open_records(demo / "pairs" / split)
        for n in range(0, len(records), 17):
            data = json.loads(records[n].fields["json"])
            assert len(set(data["captions"])) == len(data["captions"]) == 5
            assert all(DIGITS[data["label"]] in caption.replace(",", "").split() for caption in data["captions"])


def test_moments_and_caption_of_diagonal_strokes():
    rising = np.eye(8)[::-1] * 255  # from bottom left to top right
    moments = compute_moments(np.stack([rising, rising[::-1], np.eye(8)[[3] * 8] * 255]))
    assert moments.lean[0] > 0.9
    assert moments.lean[1] < -0.9
    assert moments.lean[2] == moments.width[2] == 0
    captions = Captioner(np.stack([rising, rising[::-1]] * 3)).captions(np.stack([rising]), np.array([7]))
    assert "seven leaning to the right" in captions[0][0]


def test_tokenizer_covers_the_captions_and_splits_are_disjoint(demo):
    tokenizer = load_tokenizer(demo / "tokenizer")
    assert tokenizer.get_vocab_size() == 2048
    assert "[UNK]" not in tokenizer.encode("a bold, handwritten three leaning to the right").tokens
    train, val = TokenFile(demo / "text/train"), TokenFile(demo / "text/val")
    assert len(train) > 10 * len(val) > 10_000
    texts = topic_texts()
    assert not set(texts["train"]) & set(texts["val"])
    assert train.meta["documents"] == len(texts["train"])


def test_tokenizer_training_is_deterministic():
    texts = topic_texts()["val"]
    assert train_tokenizer(texts, 600).get_vocab() == train_tokenizer(texts, 600).get_vocab()


def test_centroids_have_the_layout_of_unfold(demo):
    torch = pytest.importorskip("torch")
    assert load_file(demo / "codebook.safetensors")["centroids"].shape == (64, 108)
    scan = np.zeros((8, 8), dtype=np.uint8)
    scan[:4, 4:] = 255  # one bright quadrant
    centroids = fit_codebook(np.stack([scan]), image_size=8, patch_size=4, codes=2)
    image = torch.from_numpy(scan / 255).float().expand(1, 3, 8, 8)
    patches = torch.nn.functional.unfold(image, 4, stride=4)[0].T
    codes = torch.cdist(patches, torch.from_numpy(centroids)).argmin(1)
    assert codes.tolist() == [0, 1, 0, 0]
    assert ((centroids >= 0) & (centroids <= 1)).all()


def test_second_call_does_nothing(demo, capsys):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    assert not prepare_demo(demo, progress=False)["created"]
    assert main(["demo", "--out", str(demo)]) == 0
    assert "already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_changed_options_rebuild_the_data_and_same_options_give_the_same_data(tmp_path, demo):
    options = DemoOptions(codes=8)
    prepare_demo(tmp_path / "d", options, progress=False)
    assert load_file(tmp_path / "d" / "codebook.safetensors")["centroids"].shape == (8, 108)
    rebuilt = prepare_demo(tmp_path / "d", progress=False)
    assert rebuilt["created"]
    assert rebuilt["sha256"] == read_manifest(demo)["sha256"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_failed_call_leaves_no_folder(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo_module, "fit_codebook", fail)
        with pytest.raises(KeyboardInterrupt):
            prepare_demo(tmp_path / "d", progress=False)
    assert not (tmp_path / "d").exists()
    assert prepare_demo(tmp_path / "d", progress=False)["created"]


def test_killed_process_can_be_restarted(tmp_path, demo):
    command = [sys.executable, "-m", "mmf_flava.data.prepare", "demo", "--out", str(tmp_path / "d"), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / ".d.0.partial" / "pairs").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "d").exists()
    assert prepare_demo(tmp_path / "d", progress=False)["sha256"] == read_manifest(demo)["sha256"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_folder_with_other_files_raises_an_error_and_is_not_changed(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not empty"):
        prepare_demo(tmp_path, progress=False)
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("option", "value"),
    [("image-size", "25"), ("image-size", "99999"), ("patch-size", "48"), ("codes", "100000"), ("codes", "0")],
)
def test_sizes_that_do_not_fit_are_errors(tmp_path, capsys, option, value):
    assert main(["demo", "--out", str(tmp_path / "demo"), f"--{option}", value]) == 2
    assert re.match(r"mmf_flava: --(image|patch)-size|mmf_flava: --codes", capsys.readouterr().err)
    assert not any(tmp_path.iterdir())
