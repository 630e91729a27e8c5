import json
import multiprocessing
import os
import pickle
import re

import pytest
from PIL import Image

from mmf_flava.data.annotations import parse_annotation, parse_label
from mmf_flava.data.formats.columns import Columns
from mmf_flava.data.image_list import ImageList
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.records import ConcatRecords, open_records
from mmf_flava.data.records_hash import records_sha256
from mmf_flava.errors import UserError


def write(path, *entries, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries) + end)
    return path


@pytest.fixture
def three_entries(tmp_path):
    """Three entries, two with the same image; a blank line; no newline at the end."""
    for name in ("a.jpg", "ü b.PNG"):
        (tmp_path / name).write_bytes(name.encode())
    entries = [{"image": "a.jpg", "caption": "one"}, "", {"image": "ü b.PNG", "caption": "größer 猫", "label": 4}]
    lines = [json.dumps(entry, ensure_ascii=False) if entry else " " for entry in entries]
    return write(tmp_path / "three.jsonl", *lines, {"image": "a.jpg", "captions": ["two", "three"]}, end="")


def test_each_line_is_a_record(three_entries):
    reader = ImageList(three_entries)
    assert len(reader) == 3
    assert [reader[n].key for n in range(3)] == ["a.jpg#1", "ü b.PNG", "a.jpg#4"]
    annotations = [(["one"], -1), (["größer 猫"], 4), (["two", "three"], -1)]
    assert [parse_annotation(reader[n]) for n in range(3)] == annotations
    assert [parse_label(reader[n]) for n in range(3)] == [-1, 4, -1]
    assert reader[1].fields["png"] == "ü b.PNG".encode()
    assert reader.read(0, ("json", "txt")).fields.keys() == {"json"}
    assert reader.read(0, ("jpg", "png")).fields == {"jpg": b"a.jpg"}
    with pytest.raises(IndexError):
        reader[3]


@pytest.mark.parametrize(
    ("entry", "image", "captions"),
    [
        ({"image": "x.jpg", "img": "y.jpg", "captions": ["a", None, "", "b"], "caption": "c"}, "x.jpg", ("a", "b")),
        ({"img": "img/1.png", "text": "a meme", "label": 1, "id": 8291}, "img/1.png", ("a meme",)),
        ({"file_name": "1.jpg", "caption": ["a", "b"]}, "1.jpg", ("a", "b")),
        ({"image_id": 17, "image_path": "t/17.jpg", "caption_tokens": ["a", "cat", "."]}, "t/17.jpg", ("a cat .",)),
        ({"image_id": "0af", "caption_str": "A cat", "reference_strs": ["A cat", "B"]}, "0af.jpg", ("A cat",)),
        ({"image_name": "COCO_val_1", "image_id": 1}, "COCO_val_1.jpg", ()),
        ({"image_name": "1.PNG", "caption": None}, "1.PNG", ()),
        ({"image_id": 17, "text": "half \ud83d"}, "17.jpg", ("half",)),
    ],
)
def test_common_and_mmf_key_names_are_parsed(entry, image, captions):
    parsed = Columns().entry(entry)
    assert (parsed.image, parsed.captions) == (image, captions)


def test_reads_mmf_json_and_json_arrays(tmp_path, three_entries):
    entries = [json.loads(line) for line in three_entries.read_text().splitlines() if line.strip()]
    write(tmp_path / "mmf.json", {"metadata": {"version": 1}, "data": entries})
    write(tmp_path / "array.json", entries)
    expected = [parse_annotation(ImageList(three_entries)[n]) for n in range(3)]
    for name in ("mmf.json", "array.json"):
        reader = ImageList(tmp_path / name)
        assert [parse_annotation(reader[n]) for n in range(3)] == expected
        assert [reader[n].key for n in range(3)] == ["a.jpg#1", "ü b.PNG", "a.jpg#3"]
    for content, message in [
        ('{"data": 1}', r"coco\.json: expected an array of objects.*\"data\": \[\.\.\.\]"),
        ('{"images": [], "annotations": []}', r"coco\.json: expected an array of objects.*pmd --part coco"),
        ('{"image": {"0": "a.jpg"}, "text": {"0": "b"}}', r"one object per column \(image, text\).*orient=\"records\""),
    ]:
        (tmp_path / "coco.json").write_text(content)
        with pytest.raises(UserError, match=message):
            ImageList(tmp_path / "coco.json")
    for name in ("lines.json", "lines"):  # the content decides, not the extension
        reader = ImageList(write(tmp_path / name, *entries))
        assert [parse_annotation(reader[n]) for n in range(3)] == expected
    write(tmp_path / "bad.json", [*entries, 7])
    reader = ImageList(tmp_path / "bad.json")
    assert [parse_annotation(reader[n]) for n in range(3)] == expected
    with pytest.raises(BadRecord, match=r"entry 4 is invalid \(not a JSON object\)"):
        reader.read(3)


def test_ids_are_record_keys(tmp_path):
    lines = [{"image": "1.jpg", "id": 7}, {"image": "1.jpg", "id": "x"}, {"image": "1.jpg"}, {"image": "2", "id": 7}]
    (tmp_path / "1.jpg").touch()
    reader = ImageList(write(tmp_path / "l.jsonl", *lines))
    assert [reader.read(n, ()).key for n in range(4)] == ["7#1", "x", "1.jpg", "7#4"]


def test_invalid_lines_are_bad_records(tmp_path, caplog):
    lines = [{"image": "1.jpg"}, "{", "", {"caption": "x"}, {"image": 3}, {"image": "1.jpg", "id": {}}, "[]"]
    lines += [{"image": "1.jpg", "captions": 3}, {"image": "\ud800"}, {"image": "1.jpg", "id": [1]}, "[" * 100_000]
    path = write(tmp_path / "l.jsonl", *lines)
    (tmp_path / "1.jpg").touch()
    reader = ImageList(path)
    assert re.search(
        r"l\.jsonl: 9 of 11 lines are invalid: line 2 \(not JSON.*line 4 \(missing image: one of the keys image"
        r",.*line 5 \(image must be a path\), \.\.\.\. Correct",
        caplog.text,
    )
    assert (len(reader), reader.read(0).key) == (10, "1.jpg")
    assert [location for location, _ in reader.read_labels()] == ["line 1"]
    for index in range(1, 10):
        with pytest.raises(BadRecord) as error:
            reader.read(index)
        number = index + 1 + (index > 1)  # line 3 is empty
        assert (error.value.reason, error.value.key) == ("invalid entry", f"line {number}")
    refused = {
        1: "is not a valid JSON file",
        3: r"no column for the image was recognised\. The columns are caption\. .*columns: \{image: caption\}",
        6: "has no records",
        10: r"is not a valid JSON file \(the JSON data are nested too deeply",
    }
    for number, line in enumerate(lines):
        if line and number:
            with pytest.raises(UserError, match=refused.get(number, r"1 of 1 lines are invalid: line 1 \(")):
                ImageList(write(path, line))
    path.write_bytes(b'{"image": "\xff.jpg"}\n')
    with pytest.raises(UserError, match="line 1"):
        ImageList(path)
    assert caplog.text.encode(), "lone surrogates cannot be written to a log"


def test_missing_files_raise(tmp_path, three_entries):
    with pytest.raises(UserError, match=r"none\.jsonl has no records: the path does not exist"):
        open_records(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"none\.jsonl cannot be read \(No such file"):
        ImageList(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"folder .*images does not exist"):
        ImageList(three_entries, tmp_path / "images")
    for content in ("", "\n \n"):
        (tmp_path / "empty.jsonl").write_text(content)
        with pytest.raises(UserError, match="no records"):
            ImageList(tmp_path / "empty.jsonl")
    reader = ImageList(three_entries)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(BadRecord, match=r"a\.jpg cannot be read") as caught:
        reader[0]
    assert caught.value.reason == Reason.VANISHED
    with pytest.raises(BadRecord, match="cannot be read"):
        ImageList(write(tmp_path / "nul.jsonl", {"image": "ü b.PNG"}, {"image": "\0.jpg"}))[1]
    with pytest.raises(
        UserError, match=r"x\.jsonl: column image: none of the first images \(1\).*line 1: .*/z\.jpg\. Write image_dir"
    ):
        ImageList(write(tmp_path / "x.jsonl", {"image": "z.jpg"}))
    assert reader[1].key == "ü b.PNG"
    with open(three_entries, "r+") as file:
        file.truncate(30)
    with pytest.raises(BadRecord, match=r"three\.jsonl: line 4 has changed") as caught:
        reader[2]
    assert caught.value.reason == Reason.CHANGED
    reader = pickle.loads(pickle.dumps(reader))  # opens the file again
    three_entries.unlink()
    with pytest.raises(BadRecord, match=r"three\.jsonl cannot be read"):
        reader[2]


def test_image_paths_are_resolved(tmp_path, three_entries):
    (tmp_path / "else/deep").mkdir(parents=True)
    (tmp_path / "else/deep/1").write_bytes(b"without extension")
    path = write(tmp_path / "lists/l.jsonl", {"image": "deep/1"}, {"image": str(tmp_path / "a.jpg")})
    reader = open_records([three_entries.parent / "lists/l.jsonl", path], images=tmp_path / "else")
    assert isinstance(reader, ConcatRecords) and not reader.sequential
    assert reader[2].fields["jpg"] == b"without extension"
    assert reader[1].fields["jpg"] == b"a.jpg"


def test_records_hash_depends_on_images_only(tmp_path, three_entries):
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(b"same")
    lists = [["1.jpg", "2.jpg"] * 200, ["2.jpg", "1.jpg"] * 200, ["1.jpg"] * 400]
    lists.append([*lists[0][:7], "1.jpg", *lists[0][8:]])  # one line among 400
    found = set()
    for images in lists:
        found.add(records_sha256(ImageList(write(tmp_path / "l.jsonl", *({"image": name} for name in images)))))
    assert len(found) == 4
    captioned = [{"image": name, "caption": "does not affect codes"} for name in lists[-1]]
    assert records_sha256(ImageList(write(tmp_path / "l.jsonl", *captioned))) in found


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reader_works_in_other_processes(three_entries, method):
    reader = ImageList(three_entries)
    reader[0]
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = pool.map(reader.read, [2, 0, 1])
    assert [record.key for record in found] == ["a.jpg#4", "a.jpg#1", "ü b.PNG"]
    assert reader[1].key == "ü b.PNG"


def test_memory_and_pickles_contain_no_lines(tmp_path):
    line = {"image": "1.jpg", "caption": "c" * 1000}
    (tmp_path / "1.jpg").touch()
    reader = ImageList(write(tmp_path / "l.jsonl", *[line] * 500))
    reader[0]
    data = pickle.dumps(reader)
    assert len(data) < 500 * 9 + 2000
    assert pickle.loads(data)[499].key == "1.jpg#500"


@pytest.fixture
def image_lists(tmp_path):
    """Twelve images whose grey value encodes the class, and two lists of six entries in another folder."""
    (tmp_path / "images").mkdir()
    for n in range(12):
        Image.new("L", (30, 30), 20 * n).save(tmp_path / "images" / f"{n}.png")
    lines = [{"image": f"{n}.png", "caption": f"a digit {n}", "label": n} for n in range(12)]
    write(tmp_path / "lists/1.jsonl", *lines[:6])
    write(tmp_path / "lists/2.json", {"data": lines[6:]})
    return tmp_path


@pytest.mark.parametrize("name", ["pmd", "imagenet"])
def test_datasets_train_on_image_lists(config, load, image_lists, name):
    section = config.dataset_config[name]
    tokenizer = f"{section.data_dir}/tokenizer"
    section.data_dir, section.image_dir = str(image_lists), "images"
    section.splits.train = ["lists/1.jsonl", "lists/2.json"]
    if name == "pmd":
        section.processors.text_processor.params.tokenizer = tokenizer
        section.mismatch_probability = 0
    dataset = load(name)
    assert len(dataset) == 12
    samples = [dataset[n] for n in range(12)]
    assert sorted(sample.targets for sample in samples) == list(range(12))
    for sample in samples:
        n = sample.targets
        assert sample.sample_id == f"{n}.png"
        assert is_uniform(sample.image_for_codebook, 20 * n / 255)
        assert name == "imagenet" or sample.captions == [f"a digit {n}"]
    batch = dataset.collate(samples)
    assert batch.image.shape == (12, 3, 24, 24)
    section.image_dir = "nowhere"
    with pytest.raises(UserError, match=rf"dataset_config\.{name}\.splits\.train.*nowhere does not exist"):
        load(name)


def is_uniform(image, value):
    return abs(image.mean().item() - value) < 0.01 and image.std().item() < 0.01


def test_file_names_that_are_not_utf8_are_found(tmp_path):
    """Python writes their bytes to JSON as lone surrogates."""
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(b"image")
    entries = [{"image": name}, {"image": name, "id": "a\n\ud800"}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    records = ImageList(tmp_path / "list.jsonl")
    assert [records.read(n).key for n in range(2)] == [r"caf\xe9.jpg", r"a\x0a\xed\xa0\x80"]
    assert [records.read(n).fields["jpg"] for n in range(2)] == [b"image", b"image"]


def test_devices_are_bad_records(tmp_path):
    (tmp_path / "l.jsonl").write_text('{"image": "/dev/zero"}\n')
    with pytest.raises(BadRecord, match=r"/dev/zero cannot be read: .*not a regular file"):
        ImageList(tmp_path / "l.jsonl").read(0)
