import numpy as np
import pytest
import torch
from PIL import Image

from mmf_flava.data import crops
from mmf_flava.data.crops import Crops, sample_crop_box

BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
BOX = (10.3, 4.4, 91.2, 70.6)  # rounded to pixels: 10, 4, 91, 71


def test_crops_match_the_requested_area_and_aspect_ratio():
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = sample_crop_box(rng, 40, 30, (0.5, 0.9))
        assert 0 <= left < right <= 40
        assert 0 <= top < bottom <= 30
        assert 0.499 < (right - left) * (bottom - top) / 1200 < 0.901
        assert 0.749 < (right - left) / (bottom - top) < 1.334
    left, top, right, bottom = sample_crop_box(rng, 100, 10, (0.9, 1.0))  # too wide: a centre crop
    assert (top, bottom) == (0, 10)
    assert left == pytest.approx(100 - right)


@pytest.fixture
def image():
    """An image of 100 x 80 random pixels, which maximise the differences between filters."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8))


@pytest.mark.parametrize("resampling", [BICUBIC, LANCZOS])
def test_downscaled_view_equals_pillow_on_rounded_pixels(image, resampling, monkeypatch):
    expected = np.asarray(image.crop((10, 4, 91, 71)).resize((24, 24), resampling)).transpose(2, 0, 1)
    view = Crops(image).view(BOX, 24, resampling)
    assert (view.shape, view.dtype) == ((3, 24, 24), torch.uint8)
    assert np.abs(view.numpy().astype(int) - expected).max() <= 1
    monkeypatch.setattr(crops, "FILTERS", {})  # simulates an older torch without these filters
    assert np.array_equal(Crops(image).view(BOX, 24, resampling), expected)


def test_upscaled_view_uses_the_unrounded_box(image):
    expected = np.asarray(image.resize((90, 90), BICUBIC, box=BOX)).transpose(2, 0, 1)
    assert np.array_equal(Crops(image).view(BOX, 90, BICUBIC), expected)


@pytest.mark.parametrize("side", [24, 90])
def test_view_as_a_pillow_image_has_the_same_pixels(image, side):
    found = Crops(image).view_image(BOX, side, BICUBIC)
    assert found.mode == "RGB"
    assert np.array_equal(np.asarray(found), Crops(image).view(BOX, side, BICUBIC).permute(1, 2, 0))


def test_views_of_one_image_are_independent(image):
    source = Crops(image)
    first = source.view(BOX, 24, BICUBIC).clone()
    source.view((0, 0, 100, 80), 30, LANCZOS)
    assert torch.equal(source.view(BOX, 24, BICUBIC), first)
