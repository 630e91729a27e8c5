import io
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from torchvision.datasets import cifar

from mmf_flava.data.annotations import parse_annotation
from mmf_flava.data.image_decoding import decode_image
from mmf_flava.data.image_sets import catalogue
from mmf_flava.data.prepare import photos as module
from mmf_flava.data.prepare.__main__ import main
from mmf_flava.data.prepare.photos import CLASSES, PhotoOptions, prepare_photos
from mmf_flava.data.record import Record
from mmf_flava.data.records import open_records
from mmf_flava.data.token_files import TokenFile
from mmf_flava.data.tokenizer import load_tokenizer
from mmf_flava.errors import UserError
from tests.data.image_sets.published import WRITERS

SIZES = {"image_size": 32, "patch_size": 16, "codes": 3, "vocabulary": 200}


@pytest.fixture
def text(tmp_path):
    """Twenty paragraphs, two of which are held out."""
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"the {number} frogs of a pond" for number in range(20)))
    return str(path)


@pytest.fixture
def parquet(tmp_path):
    """Photographs as the library datasets writes them: 50 for training and 10 for testing, sorted by class."""
    folder, rng = tmp_path / "parquet", np.random.default_rng(0)
    folder.mkdir()
    for split, count in {"train": 50, "test": 10}.items():
        rows = []
        for number in range(count):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "PNG")
            rows.append({"image": {"bytes": buffer.getvalue(), "path": f"{number}.png"}, "label": number * 10 // count})
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}.parquet")
    return folder


def read_pairs(out, split):
    records = open_records(out / "pairs" / split)
    return [(decode_image(records.read(n)), *parse_annotation(records.read(n))) for n in range(len(records))]


def test_parquet_files_with_embedded_images(parquet, text, tmp_path, monkeypatch):
    monkeypatch.setenv("MMF_CACHE_DIR", str(tmp_path / "cache"))
    out = tmp_path / "photos"
    options = PhotoOptions(src=str(parquet), text=text, **SIZES)
    manifest = prepare_photos(out, options, progress=False)
    assert manifest["counts"]["pairs"] == {"train": 48, "val": 2, "test": 10}
    assert {split: counts["documents"] for split, counts in manifest["counts"]["text"].items()} == {
        "train": 18,
        "val": 2,
    }
    pairs = {split: read_pairs(out, split) for split in ("train", "val", "test")}
    published = pyarrow.parquet.read_table(parquet / "train.parquet").to_pylist()
    expected = {decode_image(Record("", {"png": row["image"]["bytes"]})).tobytes(): row["label"] for row in published}
    found = {image.tobytes(): label for split in ("train", "val") for image, _, label in pairs[split]}
    assert found == expected
    assert [label for _, _, label in pairs["train"]] != sorted(label for _, _, label in pairs["train"])
    for _, captions, label in pairs["test"]:
        assert len(captions) == 4
        assert all(CLASSES[label] in caption for caption in captions)
    tokenizer = load_tokenizer(out / "tokenizer")
    assert "[UNK]" not in tokenizer.encode("a photo of a frog").tokens
    assert TokenFile(out / "text/val").meta["vocabulary_size"] == tokenizer.get_vocab_size()
    assert not prepare_photos(out, options, progress=False)["created"]


def test_archive_that_torchvision_downloads(text, tmp_path, monkeypatch, capsys):
    """Without ``--src``, torchvision's download lies next to the output; ``--src`` reads a copy of it elsewhere."""
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5=None: Path(path).is_file())
    monkeypatch.setattr(module, "VAL_SHARE", 5)
    (tmp_path / "cifar10").mkdir()
    WRITERS["CIFAR10"](tmp_path / "cifar10")
    sizes = {**SIZES, "codes": 2}  # the archive has two different images
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in sizes.items()]
    assert main(["photos", "--out", str(tmp_path / "a"), f"--text={text}", "--quiet", *arguments]) == 0
    assert "pairs  8 train, 2 val, 2 test" in capsys.readouterr().out
    assert main(["photos", "--out", str(tmp_path / "a"), f"--text={text}", "--quiet", *arguments]) == 0
    assert "nothing to do" in capsys.readouterr().out
    (tmp_path / "cifar10").rename(tmp_path / "copy")
    src = [f"--src={tmp_path / 'copy' / 'cifar-10-batches-py'}"]
    assert main(["photos", "--out", str(tmp_path / "b"), f"--text={text}", "--quiet", *src, *arguments]) == 0
    first, second = (json.loads((tmp_path / name / "manifest.json").read_text())["sha256"] for name in "ab")
    assert first == second
    assert {label for _, _, label in read_pairs(tmp_path / "a", "train")} == {0, 2}


def test_invalid_sources_are_errors_that_name_the_option(parquet, tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("download: CIFAR10 could not be downloaded.")

    few = tmp_path / "few.txt"
    few.write_text("one paragraph")
    out = tmp_path / "photos"
    with pytest.raises(UserError, match=r"--text: .*few\.txt has 1 documents"):
        prepare_photos(out, PhotoOptions(src=str(parquet), text=str(few)), progress=False)
    with pytest.raises(UserError, match=r"--src: .*nowhere has neither cifar-10-batches-py nor"):
        prepare_photos(out, PhotoOptions(src=str(tmp_path / "nowhere")), progress=False)
    monkeypatch.setattr(catalogue, "download_image_set", fail)
    with pytest.raises(UserError, match=f"could not be downloaded. .*photos --src DIR --out {out}"):
        prepare_photos(out, progress=False)
    assert not out.exists()


def test_label_that_is_no_class_is_an_error(parquet, text, tmp_path):
    rows = pyarrow.parquet.read_table(parquet / "test.parquet").to_pylist()
    rows[3]["label"] = 10
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet / "test.parquet")
    with pytest.raises(UserError, match=r"--src: .*label 10 is not from 0 to 9"):
        prepare_photos(tmp_path / "photos", PhotoOptions(src=str(parquet), text=text, **SIZES), progress=False)
