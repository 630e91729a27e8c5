"""One bad record of each of more than sixty kinds, in a shard, a list and a folder, costs one record everywhere.

Training, evaluation, embeddings, the page of data.show and preparation count the same records by the same reasons, and
deliver every good record.
"""

import json
import os
from collections import Counter
from math import ceil

import numpy as np
import pytest

from mmf_flava.data.dataset_schedule import DatasetSchedule
from mmf_flava.data.prepare.imagenet import prepare_imagenet
from mmf_flava.data.prepare.pmd import PmdOptions, prepare_pmd
from mmf_flava.data.prepare.rows import MALFORMED
from mmf_flava.data.processors import FlavaImageProcessor
from mmf_flava.data.quarantine import Quarantine, count_by_reason
from mmf_flava.data.records import open_records
from mmf_flava.data.sampling import MultitaskLoader, build_evaluation_loader
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.data.show.statistics import compute_statistics
from mmf_flava.embed import KINDS, embed
from tests.data.bad_kinds import DEFECT, captions, entries, images
from tests.data.bad_samples import CAPTION, encoded, red

JPEG = encoded(red(), "JPEG")
SOURCES = ("shard", "list", "folder")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """source -> (path, sample id of a good record or name of a kind -> reason, or "" if the record is good)."""
    folder = tmp_path_factory.mktemp("kinds")
    return {"shard": write_shard(folder), "list": write_list(folder), "folder": write_folder(folder)}


def write_shard(folder):
    path, expected = folder / "00000.tar", {}
    kinds = {f"image {name}": ({kind: data, "json": CAPTION}, why) for name, (kind, data, why) in images().items()}
    kinds |= {f"text {name}": ({"jpg": JPEG, **fields}, reason) for name, (fields, reason) in captions().items()}
    with ShardWriter(path) as shard:
        for number, (name, (fields, reason)) in enumerate(kinds.items()):
            key = name.replace(".", "_")
            shard.write(key, fields)
            shard.write(f"good {number}", {"jpg": JPEG, "json": CAPTION})
            expected |= {key: reason, f"good {number}": ""}
    return path, expected


def write_list(folder):
    path, lines, expected = folder / "list" / "list.jsonl", [], {}
    path.parent.mkdir()
    (path.parent / "good.jpg").write_bytes(JPEG)

    def add_good():
        expected[f"good {len(lines)}"] = ""
        lines.append(json.dumps({"image": "good.jpg", "caption": "a red square", "id": f"good {len(lines)}"}).encode())

    for number, (name, (kind, data, reason)) in enumerate(images().items()):
        (path.parent / f"{number}.{kind}").write_bytes(data)
        lines.append(json.dumps({"image": f"{number}.{kind}", "caption": "a red square", "id": name}).encode())
        expected[name] = reason
        add_good()
    for name, (line, reason) in entries().items():
        expected[f"entry {name}"] = reason
        lines.append(line)
        add_good()
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path, expected


def write_folder(folder):
    path, expected = folder / "images", {}
    (path / "red").mkdir(parents=True)
    for number, (kind, data, reason) in enumerate(images().values()):
        for name, content, why in ((f"{number:02d}.{kind}", data, reason), (f"{number:02d} good.jpg", JPEG, "")):
            (path / "red" / name).write_bytes(content)
            expected[f"red/{name}"] = why
    return path, expected


@pytest.fixture(autouse=True)
def defect(monkeypatch):
    """An image processor that fails on images of one colour."""
    original = FlavaImageProcessor.__call__

    def call(self, item, *arguments, **options):
        if tuple(item["image"][0, 0]) == DEFECT:
            raise ZeroDivisionError("a defect")
        return original(self, item, *arguments, **options)

    monkeypatch.setattr(FlavaImageProcessor, "__call__", call)


@pytest.fixture
def open_source(config, load, sources):
    """Return ``open_source(source, split)``: the dataset, and the expected reasons."""

    def open_source(source, split):
        path, expected = sources[source]
        name = "imagenet" if source == "folder" else "pmd"
        section = config.dataset_config[name]
        section.splits[split] = [str(path)]
        section.max_bad_share = None
        if source == "folder":
            section.splits.train = [str(path)]
        dataset = load(name, split)
        assert len(dataset) == len(expected)
        return dataset, expected

    return open_source


def reasons(expected):
    return Counter(reason for reason in expected.values() if reason)


def good(expected):
    return {name for name, reason in expected.items() if not reason}


def test_there_are_sixty_kinds(sources):
    assert len(images()) + len(captions()) >= 60
    bad = {reason for _, expected in sources.values() for reason in expected.values() if reason}
    assert len(bad) >= 11, bad


CASES = [(source, workers) for workers in (0, 2) for source in SOURCES]


@pytest.mark.parametrize(("source", "workers"), CASES)
def test_training(open_source, tmp_path, source, workers):
    dataset, expected = open_source(source, "train")
    quarantine, delivered = Quarantine(tmp_path / "quarantine.jsonl", {}), Counter()
    schedule = DatasetSchedule({dataset.name: dataset})
    loader = MultitaskLoader({dataset.name: dataset}, schedule, batch_size=8, num_workers=workers)
    for _ in range(ceil(len(dataset) / 8)):
        _, batch = next(loader)
        quarantine.update(batch)
        delivered.update(batch["sample_id"])
    loader.close()
    assert set(delivered) == good(expected)
    assert count_by_reason(quarantine.bad_records)[dataset.name] == reasons(expected)


@pytest.mark.parametrize(("source", "workers"), CASES)
def test_evaluation(open_source, tmp_path, source, workers):
    dataset, expected = open_source(source, "val")
    quarantine, delivered = Quarantine(tmp_path / "quarantine.jsonl", {}), Counter()
    for batch in build_evaluation_loader(dataset, 8, workers):
        quarantine.update(batch)
        delivered.update(batch.get("sample_id", ()))
    assert delivered == Counter(good(expected)), "every good record is delivered once"
    assert count_by_reason(quarantine.bad_records)[dataset.name] == reasons(expected)


class FakeEmbedder:
    """Embedder with the processors of a dataset, whose embeddings are zeros."""

    batch_size, dtype = 8, "fp32"

    def __init__(self, dataset):
        self.image_processor = dataset.image_processor
        self.text_processor = getattr(dataset, "text_processor", None)

    def embed_image_batch(self, images):
        return np.zeros((len(images), 2), np.float32)

    embed_text_batch = embed_image_batch

    def embed_pair_batch(self, images, texts):
        return self.embed_image_batch(images)


@pytest.mark.parametrize(("source", "workers"), CASES)
def test_embeddings(open_source, sources, capsys, source, workers):
    dataset, expected = open_source(source, "val")
    batches = list(embed(FakeEmbedder(dataset), str(sources[source][0]), workers=workers))
    assert Counter(name for batch in batches for name in batch["id"]) == Counter(good(expected))
    columns = {"image_vector"} if source == "folder" else {"text", *(f"{kind}_vector" for kind in KINDS)}
    assert set(batches[0]) == {"id", "record", *columns}
    output = capsys.readouterr().err
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons(expected).most_common())
    assert f"{sum(reasons(expected).values())} of {len(expected)} items were skipped: " in output
    assert sorted(output.rpartition("were skipped: ")[2].split(".\n")[0].split(", ")) == sorted(counts.split(", "))


@pytest.mark.parametrize("source", SOURCES)
def test_page_of_data_show(open_source, source):
    dataset, expected = open_source(source, "train")
    statistics = compute_statistics(dataset, 10**6, progress=False)
    assert statistics.examined == len(expected)
    assert Counter(bad.reason for bad in statistics.bad) == reasons(expected)


def test_preparation_of_images(tmp_path):
    """Preparation does not decode images: it drops those that do not begin like an image."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    contents = [content for _, data, _ in images().values() for content in (data, JPEG)] + [None]
    rows = [{"image": {"bytes": content, "path": None}, "label": 1} for content in contents]
    (tmp_path / "src").mkdir()
    write_table(arrow.Table.from_pylist(rows), tmp_path / "src/a.parquet")
    manifest = prepare_imagenet(tmp_path / "out", [tmp_path / "src"], progress=False)
    assert manifest["dropped"] == {"empty image": 1, "no image": 1, "not an image": 16}
    assert manifest["counts"] == {"rows": 65, "images": 47, "labels": 47}
    records = open_records(tmp_path / "out")
    assert sum(records.read(index).fields.get("jpg") == JPEG for index in range(len(records))) == len(images())


def test_preparation_of_captions(tmp_path):
    """Rows of annotations in the format of facebook/pmd, and an image whose bytes have changed."""
    with ShardWriter(tmp_path / "00000.tar") as shard:
        for url, image in (("good", JPEG), ("changed", JPEG), ("empty", b"")):
            shard.write(url, {"jpg": image, "json": json.dumps({"url": url}).encode()})
    good = json.dumps({"image_url": "good", "text": "a red square"}).encode()
    kinds = {name: fields["json"] for name, (fields, _) in captions().items() if b"\n" not in fields.get("json", b"\n")}
    lines = [kinds[name].replace(b'"caption"', b'"text"') for name in kinds]
    lines += [good.replace(b"good", url) for url in (b"changed", b"empty", b"missing")]
    (tmp_path / "a.jsonl").write_bytes(b"".join(good + b"\n" + line + b"\n" for line in lines))
    tar = tmp_path / "00000.tar"
    data, times = tar.read_bytes(), tar.stat()
    with open(tar, "r+b") as file:
        file.seek(data.index(JPEG, data.index(JPEG) + 1) + 9)
        file.write(b"!")
    os.utime(tar, ns=(times.st_atime_ns, times.st_mtime_ns))  # keeps the index valid
    options = PmdOptions("redcaps", tmp_path / "a.jsonl", tmp_path, "pmd")
    manifest = prepare_pmd(tmp_path / "out", options, progress=False)
    assert manifest["dropped"] == {
        "changed bytes": 1,
        MALFORMED: 13,
        "no image": 3,  # empty, missing, and the row that is not UTF-8, which has no URL
        "no text": 7,
        "unreadable caption": 6,
    }
    assert manifest["counts"]["images"] == len(lines)
