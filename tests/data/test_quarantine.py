import json
import logging

import pytest

from mmf_flava.data.quarantine import Quarantine, counts, sentence
from mmf_flava.errors import UserError


def batch(bad, size=10, name="pmd", split="train"):
    """A batch of ``size`` samples, of which the first ones replace the records ``bad`` {number: reason}."""
    entries = [
        {"sample_id": f"key{number}", "record": number, "reason": reason, "message": f"key{number}: {reason}"}
        for number, reason in bad.items()
    ]
    replaced = [[entry] for entry in entries] + [[] for _ in range(size - len(entries))]
    return {"dataset_name": name, "dataset_type": split, "replaced": replaced}


def test_each_record_is_counted_and_named_once(tmp_path, caplog):
    quarantine = Quarantine(tmp_path / "run/quarantine.jsonl", {})
    with caplog.at_level(logging.WARNING):
        quarantine.note(batch({3: "no image", 5: "no caption"}))
        quarantine.note(batch({5: "no caption", 7: "no caption"}))
        quarantine.note(batch({5: "no caption"}, split="val"))
    assert counts(quarantine.found) == {"pmd": {"no caption": 3, "no image": 1}}
    assert sentence(counts(quarantine.found)["pmd"]) == "3 no caption, 1 no image"
    lines = [json.loads(line) for line in (tmp_path / "run/quarantine.jsonl").read_text().splitlines()]
    assert [(line["split"], line["record"], line["sample_id"]) for line in lines] == [
        ("train", 3, "key3"),
        ("train", 5, "key5"),
        ("train", 7, "key7"),
        ("val", 5, "key5"),
    ]
    assert [record.message.count("key") for record in caplog.records] == [1, 1], "said once a reason"


def test_a_run_that_goes_on_names_nothing_twice(tmp_path):
    file = tmp_path / "quarantine.jsonl"
    Quarantine(file, {}).note(batch({3: "no image"}))
    with open(file, "a") as handle:
        handle.write('{"dataset": "pmd", "spl')  # killed here
    again = Quarantine(file, {})
    again.note(batch({3: "no image"}))
    assert counts(again.found) == {"pmd": {"no image": 1}}
    assert file.read_text().count("key3: ") == 1


def test_more_than_the_share_stops_training(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", {"pmd": 0.01, "imagenet": None})
    for number in range(99):
        quarantine.note(batch({number: "no image"}))  # one in ten, but of too few samples to tell
    quarantine.note(batch({}, name="pmd", split="val"))
    with pytest.raises(UserError, match=r"100 of 1000 .*100 no image.*max_bad_share 0\.01"):
        quarantine.note(batch({99: "no image"}))


def test_up_to_the_share_training_goes_on(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", {"pmd": 0.01})
    for number in range(300):
        quarantine.note(batch({number: "no image"} if number % 10 == 9 else {}))  # one in a hundred
    for _ in range(200):
        quarantine.note(batch({1: "no image", 2: "no image"}, name="imagenet"))  # has no limit


def test_batches_of_other_datasets_pass(tmp_path):
    Quarantine(tmp_path / "quarantine.jsonl", {}).note({"dataset_name": "vqa2", "dataset_type": "train"})
    assert not (tmp_path / "quarantine.jsonl").exists()
