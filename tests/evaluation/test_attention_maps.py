"""Files of the attention maps: images spread over the dataset, maps of known values, bad records."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmf_flava.config.run import AttentionMapsConfig
from mmf_flava.data.evaluation_samples import whole_images
from mmf_flava.evaluation.attention_maps import write_attention_maps
from mmf_flava.report.examples import read_examples
from tests.evaluation.toys import CPU, ToyDataset

PIXELS = [[[[n / 10, 0.5], [0.25, 0.0]]] * 3 for n in range(10)]  # 2 x 2 pixels; the first one is the number


class Model:
    """Two heads: the first one attends to one patch, the second one to two patches."""

    def __init__(self):
        self.calls = 0

    def image_attention(self, image):
        self.calls += 1
        return torch.tensor([[[0.8, 0.0], [0.0, 0.0]], [[0.2, 0.0], [0.0, 0.4]]]).expand(len(image), 2, 2, 2)


class Processor:
    def pixels(self, image):
        return (10 * image).round().to(torch.uint8).permute(1, 2, 0).numpy()

    def without_crops(self):
        return Processor()


def dataset(**options):
    return ToyDataset(PIXELS, list(range(10)), **options)


def read(path):
    return np.array(Image.open(path)).tolist()


def test_images_are_spread_and_maps_are_scaled(tmp_path):
    data = dataset()
    data.image_processor = Processor()
    write_attention_maps(tmp_path / "examples", Model(), data, AttentionMapsConfig("toy", 3), CPU)
    entries = json.loads((tmp_path / "examples" / "attention.json").read_text())["images"]
    assert [entry["id"] for entry in entries] == ["s0", "s3", "s6"]
    folder = tmp_path / "examples"
    assert [read(folder / entry["image"])[0][0] for entry in entries] == [[0, 0, 0], [3, 3, 3], [6, 6, 6]]
    first, second = (read(folder / name) for name in entries[0]["heads"])
    assert (first, second) == ([[255, 0], [0, 0]], [[128, 0], [0, 255]])
    assert read(folder / entries[0]["mean"]) == [[255, 0], [0, 102]]  # 0.5 and 0.2
    shown = read_examples(folder / "examples.json").attention
    assert len(shown) == 3 and len(shown[0].heads) == 2 and shown[0].mean.startswith("data:image/png")


def test_bad_records_are_left_out_and_pixels_need_no_processor(tmp_path):
    write_attention_maps(tmp_path, Model(), dataset(bad={0, 5}), AttentionMapsConfig("toy", 20), CPU)
    entries = json.loads((tmp_path / "attention.json").read_text())["images"]
    assert [entry["id"] for entry in entries] == [f"s{n}" for n in (1, 2, 3, 4, 6, 7, 8, 9)]
    assert read(tmp_path / entries[-1]["image"])[0] == [[255] * 3, [142] * 3]  # 0.9 and 0.5


@pytest.mark.parametrize("records", [10, 0])
def test_other_processes_only_run_the_model(tmp_path, records):
    model, data = Model(), ToyDataset(PIXELS[:records], list(range(records)))
    write_attention_maps(None, model, data, AttentionMapsConfig("toy", 3), CPU)
    assert model.calls == (records > 0) and not list(tmp_path.iterdir())


def test_view_without_crops_leaves_the_dataset_unchanged():
    data = dataset()
    assert whole_images(data) is data
    data.image_processor = processor = Processor()
    view = whole_images(data)
    assert view.image_processor is not processor and data.image_processor is processor
    assert view.embeddings is data.embeddings
