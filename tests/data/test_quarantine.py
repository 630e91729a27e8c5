import json
import logging

import pytest

from mmf_flava.data.quarantine import Quarantine, count_by_reason, format_counts
from mmf_flava.errors import UserError


def batch(bad, size=10, name="pmd", split="train"):
    """Return a batch of ``size`` samples; the first ones replace the bad records ``bad`` {record index: reason}."""
    entries = [
        {"sample_id": f"key{number}", "record": number, "reason": reason, "message": f"key{number}: {reason}"}
        for number, reason in bad.items()
    ]
    replaced = [[entry] for entry in entries] + [[] for _ in range(size - len(entries))]
    return {"dataset_name": name, "dataset_type": split, "replaced": replaced}


def test_each_record_is_counted_and_listed_once(tmp_path, caplog):
    quarantine = Quarantine(tmp_path / "run/quarantine.jsonl", {})
    with caplog.at_level(logging.WARNING):
        quarantine.update(batch({3: "no image", 5: "no caption"}))
        quarantine.update(batch({5: "no caption", 7: "no caption"}))
        quarantine.update(batch({5: "no caption"}, split="val"))
    assert count_by_reason(quarantine.bad_records) == {"pmd": {"no caption": 3, "no image": 1}}
    assert format_counts(count_by_reason(quarantine.bad_records)["pmd"]) == "3 no caption, 1 no image"
    lines = [json.loads(line) for line in (tmp_path / "run/quarantine.jsonl").read_text().splitlines()]
    assert [(line["split"], line["record"], line["sample_id"]) for line in lines] == [
        ("train", 3, "key3"),
        ("train", 5, "key5"),
        ("train", 7, "key7"),
        ("val", 5, "key5"),
    ]
    assert [record.message.count("key") for record in caplog.records] == [1, 1], "logged once per reason"


def test_resumed_run_lists_no_record_twice(tmp_path):
    file = tmp_path / "quarantine.jsonl"
    Quarantine(file, {}).update(batch({3: "no image"}))
    with open(file, "a") as handle:
        handle.write('{"dataset": "pmd", "spl')  # killed here
    resumed = Quarantine(file, {})
    resumed.update(batch({3: "no image"}))
    assert count_by_reason(resumed.bad_records) == {"pmd": {"no image": 1}}
    assert file.read_text().count("key3: ") == 1


def test_exceeding_max_bad_share_stops_training(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", {"pmd": 0.01, "imagenet": None})
    for number in range(99):
        quarantine.update(batch({number: "no image"}))  # 10% bad, but too few samples to check
    quarantine.update(batch({}, name="pmd", split="val"))
    with pytest.raises(UserError, match=r"100 of 1000 .*100 no image.*max_bad_share allows a fraction of 0\.01"):
        quarantine.update(batch({99: "no image"}))


def test_training_continues_up_to_max_bad_share(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", {"pmd": 0.01})
    for number in range(300):
        quarantine.update(batch({number: "no image"} if number % 10 == 9 else {}))  # 1% bad
    for _ in range(200):
        quarantine.update(batch({1: "no image", 2: "no image"}, name="imagenet"))  # no limit


def test_batches_without_replaced_field_are_ignored(tmp_path):
    Quarantine(tmp_path / "quarantine.jsonl", {}).update({"dataset_name": "vqa2", "dataset_type": "train"})
    assert not (tmp_path / "quarantine.jsonl").exists()
