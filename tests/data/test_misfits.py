"""Samples whose fields, shapes or dtypes differ from the others cost one sample, in training and in evaluation."""

from collections import Counter

import pytest
import torch

from mmf_flava.config.dataset_base import StreamConfig
from mmf_flava.data.misfits import find_misfits
from mmf_flava.data.order import spread_units
from mmf_flava.data.sampling import build_batch_loader, build_evaluation_loader
from mmf_flava.data.stream import StreamDataset


def sample(name="x", length=3, side=2, **fields):
    ids = torch.arange(length)
    return {"sample_id": name, "image": torch.zeros(3, side, side), "input_ids": ids, "input_mask": ids > 0, **fields}


@pytest.mark.parametrize(
    ("odd", "difference"),
    [
        (
            sample("odd", side=3),
            r"image is float32 of shape \(3, 3, 3\), in other samples float32 of shape \(3, 2, 2\)",
        ),
        (sample("odd", image=torch.zeros(3, 2, 2).half()), "image is float16 of"),
        (sample("odd", image=None), "image is other, in other samples float32 of"),
        (sample("odd", extra=1), "extra is int, in other samples missing"),
        (sample("odd", input_ids=torch.zeros(1, 3)), "input_ids is float32 of 2 dimensions"),
        (sample("odd", input_mask=torch.ones(5, dtype=torch.bool)), "text is fields of different lengths"),
    ],
)
@pytest.mark.parametrize("position", [0, 1, 3])
def test_the_sample_that_differs_is_found(odd, difference, position):
    samples = [sample(length=length) for length in (2, 3, 5)]
    samples.insert(position, odd)
    misfits = find_misfits(samples, Counter())
    assert list(misfits) == [position]
    with pytest.raises(type(misfits[position]), match=rf"^odd: the sample does not fit the batch \({difference}"):
        raise misfits[position]


def test_integers_beyond_64_bits_do_not_fit():
    misfits = find_misfits([sample(targets=1), sample(targets=2**63), sample(targets=2)], Counter())
    assert list(misfits) == [1]


def test_earlier_batches_decide_a_tie():
    seen = Counter()
    find_misfits([sample(), sample()], seen)
    assert list(find_misfits([sample(side=5), sample()], seen)) == [0]
    assert find_misfits([sample(side=5)], seen) == {}, "at least one sample of a batch fits"


class Images(StreamDataset):
    """Records with an image; that of record 2 has another size."""

    def __init__(self, dataset_type):
        super().__init__("images", StreamConfig(data_dir=""), dataset_type, [spread_units(8)])

    def _sample(self, index, rng):
        return {"sample_id": f"s{index}", "image": torch.full((3, 5 if index == 2 else 4, 4), float(index))}


@pytest.mark.parametrize("workers", [0, 2])
def test_misfit_is_replaced_in_training(workers):
    batches = [[0, 1, 2, 3], [4, 5, 6, 7]]
    dataset = Images("val")  # in file order
    found = list(build_batch_loader(dataset, batches, workers))
    assert [batch["sample_id"] for batch in found] == [["s0", "s1", "s3", "s3"], ["s4", "s5", "s6", "s7"]]
    assert found[0]["image"][:, 0, 0, 0].tolist() == [0, 1, 3, 3]
    (entry,) = found[0]["replaced"][2]
    assert (entry["sample_id"], entry["record"], entry["reason"]) == ("s2", 2, "does not fit the batch")
    assert [found[0]["replaced"][n] for n in (0, 1, 3)] == [[], [], []]


@pytest.mark.parametrize("workers", [0, 2])
def test_misfit_is_left_out_of_evaluation(workers):
    (first, second) = build_evaluation_loader(Images("val"), 4, workers)
    assert (first["sample_id"], second["sample_id"]) == (["s0", "s1", "s3"], ["s4", "s5", "s6", "s7"])
    assert first["image"].shape == (3, 3, 4, 4)
    assert [entry and entry["record"] for entry in first["left_out"]] == [None, None, 2, None]
