"""The index of images finds what a dict finds, whatever the number of runs."""

import itertools
import os
import random

import pytest

from mmf_flava.data.prepare import image_index
from mmf_flava.data.prepare.annotations import Annotation
from mmf_flava.data.prepare.image_index import ImageIndex, Place, Run, merge_runs
from mmf_flava.data.prepare.image_source import ImageSource
from mmf_flava.data.record import BadRecord
from mmf_flava.data.shard_writer import ShardWriter
from mmf_flava.errors import UserError

JPEG = b"\xff\xd8\xff"


def write_runs(folder, keys_by_run):
    """Write runs, and return their paths and the places of a dict in which the first of equal keys wins."""
    expected = {}
    for number, keys in enumerate(keys_by_run):
        run = Run()
        for position, key in enumerate(keys):
            place = Place(number, 1000 * position, position, position + 1, position % 11)
            run.add(key, place)
            expected.setdefault(key, place)
        run.write(folder / f"{number}.run")
    return [folder / f"{number}.run" for number in range(len(keys_by_run))], expected


@pytest.mark.parametrize(("part", "per_prefix"), [(1 << 21, 32), (10, 1), (300, 4)])
def test_lookups_equal_those_of_a_dict(tmp_path, monkeypatch, part, per_prefix):
    monkeypatch.setattr(image_index, "PART", part)
    monkeypatch.setattr(image_index, "PER_PREFIX", per_prefix)
    rng = random.Random(0)
    keys = [f"http://host/{n}.jpg" for n in range(1000)] + ["", "é\udce9", "a" * 5000]
    runs, expected = write_runs(tmp_path, [rng.choices(keys, k=200) for _ in range(7)] + [[], ["ä"]])
    merge_runs(runs, tmp_path / "index")
    index = ImageIndex(tmp_path / "index")
    assert index.count == len(expected) and len(index.examples) == 3
    assert {key: index.find(key) for key in expected} == expected
    assert not any(map(index.find, ["http://host/1000.jpg", *(key for key in keys if key not in expected)]))


def test_empty_index(tmp_path):
    merge_runs([], tmp_path / "index")
    index = ImageIndex(tmp_path / "index")
    assert (index.count, index.examples, index.find("a")) == (0, [], None)


def test_names_of_files_are_found_after_merging(tmp_path):
    names = [[os.fsdecode(b"a/\xe9.jpg")], ["b/ü.png", "c"], []]
    for number, paths in enumerate(names):
        run = Run()
        for path in paths:
            run.add(path, run.add_name(path))
        run.write(tmp_path / f"{number}.run")
    merge_runs([tmp_path / f"{number}.run" for number in range(3)], tmp_path / "index")
    index = ImageIndex(tmp_path / "index")
    assert [index.name(index.find(name)) for name in itertools.chain(*names)] == list(itertools.chain(*names))


@pytest.mark.parametrize("position", [0, 3, 17, 40, 60, 100, -1])
def test_damaged_index_is_named(tmp_path, position):
    (path,), _ = write_runs(tmp_path, [["a", "b"]])
    content = bytearray(path.read_bytes())
    if position < 0:
        del content[position]
    else:
        content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"0\.run is damaged\. Delete its folder"):
        ImageIndex(path)
    with pytest.raises(UserError, match=r"0\.run is damaged"):
        merge_runs([path], tmp_path / "index")


@pytest.mark.parametrize("content", [b"", b"not an index" * 100])
def test_damaged_index_of_a_source_is_named(tmp_path, content):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "index").write_bytes(content)
    with pytest.raises(UserError, match=r"work/index is damaged"):
        ImageSource(tmp_path, tmp_path / "work")


def test_changed_image_is_a_bad_record(tmp_path):
    with ShardWriter(tmp_path / "0.tar") as writer:
        writer.write("a", {"jpg": JPEG + b"unchanged"})
        writer.write("b", {"jpg": JPEG})
    source = ImageSource(tmp_path, tmp_path / "work")
    content = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(content.replace(b"unchanged", b"different"))
    with pytest.raises(BadRecord, match="does not match its checksum"):
        source.read(Annotation(names=("a.jpg",)))
    assert source.read(Annotation(names=("b.jpg",))) == ("jpg", JPEG)
