"""Cached codes: crop boxes, files, and header mismatches."""

import json
import pickle

import numpy as np
import pytest
import torch
from mmf.common.registry import registry

from mmf_flava.data.code_writer import CodeWriter
from mmf_flava.data.codes import (
    NO_CODE,
    OPENED_CODES,
    CodeFile,
    CodePart,
    DatasetCodes,
    build_header,
    resolve_codes_folder,
    view_generator,
)
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.records import open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.errors import UserError

CODEBOOK = {"type": "kmeans", "sha256": "ab", "vocab_size": 64, "dtype": "fp32"}
GEOMETRY = {"codebook_size": 24, "decode_size": 31, "crop_scale": [0.9, 1.0]}
HEADER = build_header(5, 2, 36, "cd", GEOMETRY, CODEBOOK)
CODES = np.random.default_rng(0).integers(64, size=(5, 2, 36))


@pytest.fixture(autouse=True)
def unregister_opened_codes():
    yield
    registry.unregister(OPENED_CODES)


def write(folder, header=HEADER, codes=CODES, stem="pmd-train"):
    with CodeWriter(folder, stem, header) as writer:
        for record in writer.pending(0, len(codes)):
            writer.write(record, codes[record])
        assert writer.finish()
    return folder


def test_written_codes_are_read_back(tmp_path):
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pmd-train.codes", "pmd-train.json"]
    assert (tmp_path / "pmd-train.codes").stat().st_size == 2 * CODES.size, "2 bytes per code"
    codes = CodeFile(tmp_path, "pmd-train", HEADER)
    assert codes.read(3, 1).tolist() == CODES[3, 1].tolist() and codes.read(3, 1).dtype == np.int64
    assert pickle.loads(pickle.dumps(codes)).read(4, 0).tolist() == CODES[4, 0].tolist()


def test_record_without_image_raises_bad_record(tmp_path):
    codes = CODES.copy()
    codes[2] = NO_CODE
    with pytest.raises(BadRecord, match="record 2"):
        CodeFile(write(tmp_path, codes=codes), "pmd-train", HEADER).read(2, 0)


def test_a_truncated_file_is_a_bad_record(tmp_path):
    codes = CodeFile(write(tmp_path), "pmd-train", HEADER)
    with open(codes.path, "r+b") as file:
        file.truncate(3 * 36 * 2)
    assert codes.read(1, 0).tolist() == CODES[1, 0].tolist()  # a memory-mapped file would end the process
    with pytest.raises(BadRecord, match="was truncated") as caught:
        codes.read(1, 1)
    assert caught.value.reason is Reason.CHANGED


def test_parts_are_read_as_one_split(tmp_path):
    parts = [CodePart("b", "path b", 2, "hash b"), CodePart("a", "path a", 3, "hash a")]
    for part, codes in zip(parts, (CODES[:2], CODES[2:]), strict=True):
        write(tmp_path, {**HEADER, "records": part.records, "records_sha256": part.sha256}, codes, part.stem)
    expected = {"patches": 36, "geometry": GEOMETRY}
    read = pickle.loads(pickle.dumps(DatasetCodes(tmp_path, parts, expected)))
    assert (read.views, read.vocab_size, read.folder) == (2, 64, tmp_path)
    for record, view in np.ndindex(5, 2):
        assert read.read(record, view).tolist() == CODES[record, view].tolist()
    with pytest.raises(UserError, match="no completed codes of path c"):
        DatasetCodes(tmp_path, [*parts, CodePart("c", "path c", 1, "hash c")], expected)
    header = {**HEADER, "records": 3, "records_sha256": "hash a", "codebook": {**CODEBOOK, "sha256": "xy"}}
    (tmp_path / "a.json").write_text(json.dumps(header))
    with pytest.raises(UserError, match=r"a\.codes: .*Expected codebook\.sha256 ab, got xy"):
        DatasetCodes(tmp_path, parts, expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"records_sha256": "other"}, "different records"),
        ({"records": 6}, "a different number of records"),
        ({"views": 3}, "a different number of views"),
        ({"patches": 49}, "a different number of patches"),
        ({"geometry": {**GEOMETRY, "crop_scale": None}}, r"Expected geometry\.crop_scale None, got \[0.9, 1.0\]"),
        ({"codebook": {**CODEBOOK, "sha256": "xy"}}, r"Expected codebook\.sha256 xy, got ab"),
        ({"codebook": {**CODEBOOK, "seed": None}}, r"Expected codebook\.seed None, got None"),
    ],
)
def test_mismatch_names_the_header_key(tmp_path, change, words):
    write(tmp_path)
    with pytest.raises(UserError, match=words):
        CodeFile(tmp_path, "pmd-train", {**HEADER, **change})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("records", 10**9),
        ("views", 4),
        ("patches", 37),
        ("records", 4),
        ("records", -5),
        ("views", True),
        ("views", "2"),
    ],
)
def test_header_with_wrong_size_raises(tmp_path, key, value):
    write(tmp_path)
    header = {**HEADER, key: value}
    (tmp_path / "pmd-train.json").write_text(json.dumps(header))
    with pytest.raises(UserError, match=r"expected \d+ bytes|invalid codes header"):
        CodeFile(tmp_path, "pmd-train", {})


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", "[" * 100_000, " " * 2**21, json.dumps({**HEADER, "codebook": 3})]
)
def test_invalid_header_raises(tmp_path, content):
    write(tmp_path)
    (tmp_path / "pmd-train.json").write_text(content)
    with pytest.raises(UserError, match="invalid codes header"):
        CodeFile(tmp_path, "pmd-train", {})


def test_pickle_in_codes_file_is_not_executed(tmp_path):
    """A pickled .npy of the expected size is read as raw codes, which are invalid."""

    class Payload:
        def __reduce__(self):
            return (tmp_path / "executed").mkdir, ()

    write(tmp_path)
    np.save(tmp_path / "pickled.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    pickled = (tmp_path / "pickled.npy").read_bytes()
    (tmp_path / "pmd-train.codes").write_bytes(pickled[: 2 * CODES.size].ljust(2 * CODES.size, b"\xff"))
    with pytest.raises(BadRecord):
        CodeFile(tmp_path, "pmd-train", HEADER).read(0, 0)
    (tmp_path / "pmd-train.json").write_bytes(pickled)
    with pytest.raises(UserError, match="invalid codes header"):
        CodeFile(tmp_path, "pmd-train", HEADER)
    assert not (tmp_path / "executed").exists()


def test_pickle_in_token_documents_is_not_executed(demo, tmp_path):
    import shutil

    from mmf_flava.data.token_files import TokenFile

    class Payload:
        def __reduce__(self):
            return (tmp_path / "executed").mkdir, ()

    shutil.copytree(demo / "text" / "val", tmp_path / "text")
    np.save(tmp_path / "text" / "documents.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"documents\.npy"):
        TokenFile(tmp_path / "text")
    assert not (tmp_path / "executed").exists()


def test_codes_folder_resolves_names_and_paths(tmp_path):
    assert resolve_codes_folder("dvae", tmp_path) == tmp_path / "codes" / "dvae"
    assert resolve_codes_folder("/x/dvae", tmp_path).as_posix() == "/x/dvae"
    assert resolve_codes_folder("./dvae/x", tmp_path).as_posix() == "dvae/x"


def test_view_generators_depend_on_record_and_view():
    values = {(record, view): view_generator(record, view).random() for record in range(20) for view in range(5)}
    assert len(set(values.values())) == 100
    assert values[7, 3] == view_generator(7, 3).random()


def test_records_hash_depends_on_records_and_order(demo, tmp_path):
    pairs = open_records(demo / "pairs" / "train")
    assert records_sha256(pairs) == records_sha256(open_records(sorted((demo / "pairs" / "train").glob("*.tar"))))
    assert records_sha256(pairs) != records_sha256(open_records(demo / "pairs" / "val"))
    assert records_sha256(pairs) != records_sha256(open_records(sorted((demo / "pairs" / "train").glob("*.tar"))[::-1]))
    images = open_records(demo / "images" / "val")
    before = records_sha256(images)
    images.keys = images.keys[1:]
    assert records_sha256(images) != before
    hashes = set()
    for content in (b"one", b"two"):
        with ShardWriter(tmp_path / "x.tar") as shard:
            shard.write("1", {"jpg": content})
        hashes.add(records_sha256(open_records(tmp_path / "x.tar")))
    assert len(hashes) == 2


@pytest.mark.parametrize("name", ["pmd", "imagenet"])
def test_cached_views_are_fixed_per_record(config, load, name):
    config.dataset_config[name].views = 2
    dataset = load(name)
    size, seen = len(dataset), {}
    for n in [*range(5), *(n for n in range(size, 8 * size) if dataset.order.index(n) == dataset.order.index(0))]:
        view = dataset[n]["image_for_codebook"]
        index = dataset.order.index(n)
        fixed = dataset.codebook_views(index)
        assert fixed.shape == (2, 3, 24, 24)
        matches = [number for number in range(2) if torch.equal(fixed[number], view)]
        assert matches
        seen.setdefault(index, set()).update(matches)
    assert seen[dataset.order.index(0)] == {0, 1}, "the sample's generator selects the view"
    config.dataset_config[name].views = 0
    with pytest.raises(UserError, match=rf"dataset_config\.{name}\.views"):
        load(name)


def test_missing_codes_raise_only_for_training(config, load):
    config.dataset_config.pmd.codes = "nothing"
    with pytest.raises(
        UserError, match=r"dataset_config\.pmd\.codes.*/train.*cache_codes RECIPE --dataset pmd --split train"
    ):
        load("pmd")
    sample = load("pmd", "val")[0]
    assert "image_for_codebook" in sample and "image_codes" not in sample
    assert registry.get(OPENED_CODES) == {"pmd val": None}
