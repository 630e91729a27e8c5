"""Bad records are left out of the batches of an evaluation, and stop it only if an error of the program causes them."""

import pytest

from mmf_flava.config.dataset_base import StreamConfig
from mmf_flava.data.evaluation_samples import count_samples
from mmf_flava.data.order import spread_units
from mmf_flava.data.quarantine import Quarantine, count_by_reason
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.sampling import build_batch_loader, build_evaluation_loader
from mmf_flava.data.stream import StreamDataset


class Numbers(StreamDataset):
    """A dataset of numbers. The records in ``errors`` raise exceptions."""

    def __init__(self, errors, dataset_type="val", size=12):
        super().__init__("numbers", StreamConfig(data_dir=""), dataset_type, [spread_units(size)])
        self.errors = errors

    def _sample(self, index, rng):
        if index in self.errors:
            raise self.errors[index]
        return {"sample_id": str(index), "value": index}


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_records_are_left_out(workers, tmp_path):
    errors = {
        1: BadRecord(Reason.NO_IMAGE, "number one", "one"),
        **{n: BadRecord(Reason.NO_CAPTION, "none") for n in (4, 5, 6, 7)},
        11: KeyError("x"),
    }
    quarantine, logged = Quarantine(tmp_path / "quarantine.jsonl", {}), []
    quarantine.warn = logged.append
    batches = list(build_evaluation_loader(Numbers(errors), 4, workers))
    for batch in batches:
        quarantine.update(batch)
    assert [batch["sample_id"] for batch in batches if "sample_id" in batch] == [["0", "2", "3"], ["8", "9", "10"]]
    assert [count_samples(batch) for batch in batches] == [3, 0, 3]
    assert "value" not in batches[1] and batches[1]["dataset_name"] == "numbers"
    assert count_by_reason(quarantine.bad_records) == {"numbers": {"no caption": 4, "no image": 1, "unexpected": 1}}
    lines = quarantine.file.read_text().splitlines()
    assert '"sample_id": "one", "record": 1, "reason": "no image", "message": "number one"' in lines[0]
    assert "unexpected error (KeyError: 'x')" in lines[-1] and "Traceback" not in lines[-1]
    tracebacks = [text for text in logged if "Traceback" in text]
    assert len(tracebacks) == 1 and "raise self.errors[index]" in tracebacks[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_program_stops_an_evaluation(workers, tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", {})
    dataset = Numbers({n: KeyError(n) for n in range(20, 30)}, size=64)
    with pytest.raises(RuntimeError, match=r"numbers \(val\): 10 records in a row.*(?s:.*)raise self.errors\[index\]"):
        for batch in build_evaluation_loader(dataset, 2, workers):
            quarantine.update(batch)
    assert len(quarantine.bad_records) == 10


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_program_stops_training(workers):
    dataset = Numbers({n: KeyError(n) for n in range(20, 30)}, size=64)
    batches = [[n] for n in range(19, 64)]
    with pytest.raises(RuntimeError, match=r"numbers \(val\): 10 records in a row.*(?s:.*)raise self.errors\[index\]"):
        list(build_batch_loader(dataset, batches, workers))
    nine = Numbers({n: KeyError(n) for n in range(20, 29)}, size=64)
    found = list(build_batch_loader(nine, batches, workers))
    assert found[1]["sample_id"] == ["29"] and len(found[1]["replaced"][0]) == 9


def test_few_records_that_all_fail_stop_training():
    with pytest.raises(RuntimeError, match=r"all records failed.*(?s:.*)raise self.errors\[index\]"):
        Numbers({n: KeyError(n) for n in range(5)}, size=5)[0]
    mixed = {n: KeyError(n) if n % 5 == 0 else BadRecord(Reason.NO_IMAGE, "none") for n in range(60)}
    with pytest.raises(RuntimeError, match="the first 32 records failed"):
        Numbers(mixed, size=80)[0]
    assert Numbers(mixed, size=80)[5]["sample_id"] == "60"
