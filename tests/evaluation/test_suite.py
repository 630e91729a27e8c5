"""Evaluation of a split with bad records: the results are those of the split without these records."""

import json
from types import SimpleNamespace

import pytest
import torch

from mmf_flava.config.dataset_base import StreamConfig
from mmf_flava.config.run import EvaluationConfig, LinearProbeConfig, RetrievalConfig, ZeroShotConfig
from mmf_flava.data.order import spread_units
from mmf_flava.data.quarantine import Quarantine
from mmf_flava.data.record import BadRecord, Reason
from mmf_flava.data.stream import StreamDataset
from mmf_flava.evaluation.gallery import IncompleteGalleryError
from mmf_flava.evaluation.split_result import SampleCount
from mmf_flava.evaluation.suite import EvaluationSuite
from mmf_flava.training.results import Results
from tests.evaluation.toys import CPU, ToyModel

NUMBERS = range(-20, 20)
BAD = {
    3: BadRecord(Reason.NO_IMAGE, "x"),
    **{n: BadRecord(Reason.NO_CAPTION, "y") for n in range(8, 12)},
    30: KeyError(),
}


class Texts:
    special, pad_to_multiple = SimpleNamespace(pad=0), 1

    def encode(self, texts):
        ids = torch.tensor([[len(text)] for text in texts])
        return ids, torch.ones_like(ids, dtype=torch.bool)


class Vectors(StreamDataset):
    """Images that are vectors. The records in ``errors`` raise exceptions."""

    text_processor = None

    def __init__(self, numbers, errors=(), dataset_type="test"):
        super().__init__("vectors", StreamConfig(data_dir=""), dataset_type, [spread_units(len(numbers))])
        self.numbers, self.errors = numbers, dict(errors)

    def _sample(self, index, rng):
        if index in self.errors:
            raise self.errors[index]
        number = self.numbers[index]
        return {
            "sample_id": f"s{number}",
            "image": torch.tensor([number + 0.3, number % 3 - 1.0]),
            "targets": int(number > 0),
            "captions": [f"{'a' * (number + 21)}"],
        }


class Model(ToyModel):
    def encode_text(self, ids, mask):
        return torch.cat((ids - 21.0, (ids - 21) % 3 - 1.0), 1)

    def forward(self, batch):
        return {"losses": {"test/vectors/mean": batch["image"][:, 0].mean()}}


def evaluate(dataset, config, workers=0, **options):
    dataset.text_processor = Texts()
    datasets = {"test": {"vectors": dataset}, "val": {}, "probe": {"vectors": Vectors(NUMBERS)}}
    suite = EvaluationSuite(config, datasets, workers, CPU, **options)
    return suite.run(Model(), "test")


def config(**sections):
    return EvaluationConfig(batch_size=4, **sections)


ALL = {
    "zero_shot": ZeroShotConfig("vectors", ["no", "yes"], ["{}"]),
    "linear_probe": LinearProbeConfig("vectors", lambdas=[0.1, 1.0], max_iterations=10),
}


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_records_are_left_out_of_every_score(workers, tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", {})
    found = evaluate(Vectors(NUMBERS, BAD), config(**ALL), workers, on_batch=quarantine.update)
    good = [number for index, number in enumerate(NUMBERS) if index not in BAD]
    expected = evaluate(Vectors(good), config(**ALL), workers)
    assert found.losses == pytest.approx(expected.losses, abs=1e-6)
    assert found.losses["mean"] == pytest.approx(sum(good) / len(good) + 0.3, abs=1e-5)
    assert found.zero_shot.summary() == expected.zero_shot.summary()
    assert found.linear_probe.summary() == expected.linear_probe.summary()
    assert found.samples == {"vectors": SampleCount(34, 6)} and expected.samples == {}
    assert len(quarantine.bad_records) == 6
    assert found.format_summary() == expected.format_summary() + ", on 34 of 40 samples of vectors"

    results = Results(tmp_path)
    results.write_evaluation("test", 1, found, None)
    with_bad = json.loads((tmp_path / "evaluation.json").read_text())
    results.write_evaluation("test", 1, expected, None)
    without = json.loads((tmp_path / "evaluation.json").read_text())
    assert with_bad.pop("samples") == {"vectors": {"evaluated": 34, "bad": 6}}
    with_bad["losses"] = without["losses"] = {}
    assert with_bad == without
    assert results.summary_lines({"test": found})[-1].startswith(
        "The scores are computed on 34 of 40 samples of vectors"
    )
    assert len(results.summary_lines({"test": expected})) == 2


@pytest.mark.parametrize(
    "trains, at_validations, fitted", [(True, False, False), (True, True, True), (False, False, True)]
)
def test_linear_probe_at_validations(trains, at_validations, fitted):
    dataset = Vectors(NUMBERS)
    dataset.text_processor = Texts()
    probe = LinearProbeConfig("vectors", lambdas=[0.1, 1.0], max_iterations=10, at_validations=at_validations)
    splits = {"test": {}, "val": {"vectors": dataset}, "probe": {"vectors": Vectors(NUMBERS)}}
    suite = EvaluationSuite(config(linear_probe=probe), splits, 0, CPU, trains=trains)
    found = suite.run(Model(), "val")
    record = found.to_record().get("linear_probe")
    assert record == ({"accuracy": found.linear_probe.accuracy, "count": 40} if fitted else None)
    assert ("linear probe accuracy" in found.format_summary()) == fitted


def test_gallery_is_complete_or_refused():
    section = {"losses": False, "retrieval": RetrievalConfig("vectors", [1])}
    assert evaluate(Vectors(NUMBERS), config(**section)).retrieval["images"] == 40
    words = r"6 of 40 records are bad: record 3, record 8, .*, record 30\. A retrieval gallery must be complete"
    with pytest.raises(IncompleteGalleryError, match=words):
        evaluate(Vectors(NUMBERS, BAD), config(**section))
    in_training = evaluate(Vectors(NUMBERS, BAD), config(**section), trains=True)
    assert in_training.retrieval is None and "6 of 40 records are bad" in in_training.format_summary()


def test_all_records_are_bad():
    errors = {n: BadRecord(Reason.NO_IMAGE, "x") for n in range(len(NUMBERS))}
    found = evaluate(Vectors(NUMBERS, errors), config())
    assert (found.losses, found.samples) == ({}, {"vectors": SampleCount(0, 40)})
