import numpy as np
import pytest
import torch
from PIL import Image

from mmf_flava.data import crops
from mmf_flava.data.crops import Crops, random_crop

BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
BOX = (10.3, 4.4, 91.2, 70.6)  # whole pixels: 10, 4, 91, 71


def test_crops_have_the_area_asked_for():
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = random_crop(rng, 40, 30, (0.5, 0.9))
        assert 0 <= left < right <= 40
        assert 0 <= top < bottom <= 30
        assert 0.499 < (right - left) * (bottom - top) / 1200 < 0.901
        assert 0.749 < (right - left) / (bottom - top) < 1.334
    left, top, right, bottom = random_crop(rng, 100, 10, (0.9, 1.0))  # too flat: the centre
    assert (top, bottom) == (0, 10)
    assert left == pytest.approx(100 - right)


@pytest.fixture
def picture():
    """100 x 80 pixels of noise, the hardest picture for a filter."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8))


@pytest.mark.parametrize("resampling", [BICUBIC, LANCZOS])
def test_a_shrunk_box_is_what_pillow_makes_of_its_whole_pixels(picture, resampling, monkeypatch):
    expected = np.asarray(picture.crop((10, 4, 91, 71)).resize((24, 24), resampling)).transpose(2, 0, 1)
    view = Crops(picture).view(BOX, 24, resampling)
    assert (view.shape, view.dtype) == ((3, 24, 24), torch.uint8)
    assert np.abs(view.numpy().astype(int) - expected).max() <= 1
    monkeypatch.setattr(crops, "FILTERS", {})  # an older torch
    assert np.array_equal(Crops(picture).view(BOX, 24, resampling), expected)


def test_a_box_that_is_enlarged_keeps_parts_of_pixels(picture):
    expected = np.asarray(picture.resize((90, 90), BICUBIC, box=BOX)).transpose(2, 0, 1)
    assert np.array_equal(Crops(picture).view(BOX, 90, BICUBIC), expected)


def test_views_of_one_picture_do_not_change_each_other(picture):
    both = Crops(picture)
    first = both.view(BOX, 24, BICUBIC).clone()
    both.view((0, 0, 100, 80), 30, LANCZOS)
    assert torch.equal(both.view(BOX, 24, BICUBIC), first)
